package load

import (
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// An upstream is what the clients of an engine say at the moment.
type upstream struct {
	say   Say
	run   uint32
	size  int
	until int64 // by Now: no client asks any more
	full  bool  // a client asks again as soon as it is answered

	ready   []*Client // of a flood: the socket may take another piece
	answers uint64
}

// floodBuffer is what the kernel holds for a client of a flood, so that little is under way when it ends.
const floodBuffer = 32 << 10

// Flood has each client say the same payload again and again, as fast as its socket takes it: several messages in one
// write. It ends when done, which is asked between two rounds of writing, returns true, or when every client has said
// most messages (0: no bound). It returns how many messages were said: all of them whole.
func (e *Engine) Flood(text Say, size, several, most int, done func() bool) (said uint64, err error) {
	payload := Payload(nil, e.cfg.Run, 1, Now(), size)
	var piece []byte
	for n := range several {
		piece = text(piece, payload, uint64(n+1))
	}
	e.up = &upstream{}
	defer func() { e.up = nil }()
	for i := range e.clients {
		c := &e.clients[i]
		if c.fd >= 0 {
			_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, floodBuffer)
			c.said = 0
			e.up.ready = append(e.up.ready, c)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e.stepped = 0
	for !done() {
		n := len(e.up.ready)
		for _, c := range e.up.ready[:n] {
			if c.fd < 0 || most > 0 && c.said >= most {
				continue
			}
			c.Send(piece)
			c.said += several
			said += uint64(several)
			if len(c.out) == 0 {
				e.up.ready = append(e.up.ready, c)
			}
		}
		e.up.ready = slices.Delete(e.up.ready, 0, n)
		if most > 0 && len(e.up.ready) == 0 && !e.writing() {
			break
		}
		if err := e.stepFor(len(e.up.ready) == 0); err != nil {
			return said, err
		}
	}
	for end := time.Now().Add(quietEnd); e.writing() && time.Now().Before(end); {
		if err := e.stepFor(true); err != nil {
			return said, err
		}
	}
	return said, nil
}

// quietEnd is how long what is under way may take to arrive at the end.
const quietEnd = 20 * time.Second

// writing reports whether a client's socket has not taken everything.
func (e *Engine) writing() bool {
	return slices.ContainsFunc(e.clients, func(c Client) bool { return c.fd >= 0 && len(c.out) > 0 })
}

// Ask has each client ask for d, and verifies that every answer has the payload of the question, in order. The latency
// of the tally is that of the answers. If every is 0, a client asks again when it is answered; otherwise it asks once
// in that time, also when the answer before has not come, and the latency counts from the moment at which the question
// was due. It returns how many were answered, and counts those that were not as lost.
func (e *Engine) Ask(text Say, size int, every, d time.Duration) (answers uint64, err error) {
	began := Now()
	u := &upstream{say: text, run: e.cfg.Run, size: size, until: began + int64(d), full: every == 0}
	e.up = u
	defer func() { e.up = nil }()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e.stepped = 0
	asked := uint64(0)
	if u.full {
		for i := range e.clients {
			e.ask(&e.clients[i], Now())
		}
	}
	apart := every / time.Duration(len(e.clients)) // between two clients
	for now := began; now < u.until; now = Now() {
		for !u.full {
			due := began + int64(asked)*int64(apart)
			if due > now || due >= u.until {
				break
			}
			e.ask(&e.clients[asked%uint64(len(e.clients))], due)
			asked++
		}
		if err := e.stepFor(u.full); err != nil { // at a pace the processor is this goroutine's: no wait is exact
			return u.answers, err
		}
	}
	for end := time.Now().Add(quietEnd); e.unanswered() > 0 && time.Now().Before(end); {
		if err := e.stepFor(true); err != nil {
			return u.answers, err
		}
	}
	e.tally.Lost += e.unanswered()
	return u.answers, nil
}

func (e *Engine) ask(c *Client, stamp int64) {
	if c.fd < 0 {
		return
	}
	u := e.up
	c.asked++
	payload := Payload(e.scratch[:0], u.run, c.asked, stamp, u.size)
	e.scratch = u.say(payload, payload, c.asked)
	c.Send(e.scratch[len(payload):])
}

// unanswered counts the questions that wait for their answers.
func (e *Engine) unanswered() (n uint64) {
	for i := range e.clients {
		if c := &e.clients[i]; c.asked >= c.next {
			n += c.asked - c.next + 1
		}
	}
	return n
}

// answered is called when a client has got the answer to its oldest question.
func (u *upstream) answered(c *Client) {
	u.answers++
	if u.full && c.engine.now < u.until {
		c.engine.ask(c, Now())
	}
}
