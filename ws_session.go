package gpoll

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// A wsSession is one WebSocket: its stream, its attach, and the goroutine that reads.
type wsSession struct {
	b       *Broadcaster
	stream  stream
	form    form
	attach  *attach         // nil before begin
	request *http.Request   // of gpoll.v1, until the hello
	greeted bool            // the hello has just been answered
	ws      *websocket.Conn // nil while the peer is silent
	in      *bufio.Reader   // what ws reads from

	awaiting atomic.Bool // a ping was not answered yet
	checking bool        // touched only by the routine's goroutine
}

// begin attaches the session to its client and sends the registration. From then on the routine, or a goroutine, writes.
func (s *wsSession) begin(c *Client, o attachOptions) {
	o.transport, o.due, o.socket = webSocket, jitter(s.b.set.heartbeat), s
	a, err := c.open(o)
	if err != nil {
		s.refuse(endUnknown)
		return
	}
	first := registrationJSON(c)
	if s.form == formJSONFrame {
		first = s.welcome(c, a.cursor)
	}
	if err := s.stream.writeWaiting(appendFrame(nil, opText, first)); err != nil {
		a.end(endGone)
		return
	}
	s.startPump() // only now, so that the first frame is the registration
}

// run is the goroutine that reads, until the connection ends. It waits here, on a stack of the smallest size: what follows is in
// functions of their own.
func (s *wsSession) run() {
	err := s.readable()
	for err == nil {
		err = s.handle()
		if s.greeted {
			// The hello has grown the stack: a fresh goroutine goes on.
			s.greeted = false
			s.b.spawn(s.run)
			return
		}
		if err == nil {
			err = s.readable()
		}
	}
	s.over(err)
}

// over ends the session when its reader has ended.
func (s *wsSession) over(err error) {
	s.b.log.Debug("gpoll: WebSocket ended", "err", err)
	if s.request != nil && isTimeout(err) {
		s.refuse(refused(refuseHello))
	}
	if s.attach != nil {
		s.attach.end(endGone)
	}
	if s.ws != nil {
		_ = s.ws.CloseNow()
	}
	_ = s.stream.Close()
}

// startPump lets the routine or a goroutine carry the client on.
func (s *wsSession) startPump() {
	a := s.attach
	r := a.client.routine
	r.mu.Lock()
	if s.stream.raw != nil {
		a.back = inline
	}
	r.mu.Unlock()
	if ev, _ := a.step(); ev != gotHandedOver {
		s.b.spawn(s.pump)
	}
}

// pump writes what the client is owed until the routine takes over or the attach ends.
func (s *wsSession) pump() {
	a := s.attach
	var items []item
	var buf []byte
	err := s.stream.writeWaiting(nil) // what the routine's write left over
	for err == nil {
		var ev event
		items, _, ev = a.next(nil, s.b.limitReplay(), items[:0])
		buf = buf[:0]
		switch ev {
		case gotItems:
			for i := range items {
				if items[i].gap != nil && s.form == formFrame {
					s.closeForGap(items[i], buf)
					s.flush(&rawWriter{})
					return
				}
				buf = appendItem(buf, &items[i], s.form)
			}
			if err = s.stream.writeWaiting(buf); err == nil {
				s.b.countItems(items)
			}
			clear(items)
		case gotOp:
			buf = a.operate(buf)
			err = s.stream.writeWaiting(buf)
		case gotDue:
			if s.form == formJSONFrame {
				buf = appendFrame(buf, opText, positionJSON(a.cursor))
			}
			err = s.stream.writeWaiting(buf)
		case gotStall:
			err = s.stream.writeWaiting(nil)
		case gotHandedOver, gotEnd:
			s.flush(&rawWriter{}) // a control frame that came while this goroutine wrote
			return
		}
	}
	why := endGone
	if isTimeout(err) {
		why = endSlow
	}
	a.end(why)
	_ = s.stream.Close() // the reader ends with it
}

// closeForGap writes what came before a gap that the plain form cannot carry, and closes. A new connect goes on after it.
func (s *wsSession) closeForGap(it item, before []byte) {
	_ = s.stream.writeWaiting(before)
	a := s.attach
	s.b.countGap(it.gap)
	c := a.client
	c.routine.mu.Lock()
	if c.attach == a {
		c.routine.endLocked(a, &ending{&refusal{code: "gap", message: it.gap.String()}, closeUnknown})
		c.cursor = it.pos
	}
	c.routine.mu.Unlock()
}

// refuse closes a connection that never got an attach. run waits for the peer's close frame.
func (s *wsSession) refuse(why *ending) {
	if why == endGone {
		_ = s.stream.Close()
		return
	}
	s.b.counts.refused.add(why.refusal.code)
	s.sendClose(why)
}

// finish tells the peer why its attach has ended.
func (s *wsSession) finish() {
	why := s.attach.ending.Load()
	if why == endGone {
		_ = s.stream.Close()
		return
	}
	s.sendClose(why)
}

// How long a peer may take to answer a close frame.
const closeWait = 5 * time.Second

func (s *wsSession) sendClose(why *ending) {
	payload := append([]byte{byte(why.closeCode >> 8), byte(why.closeCode)}, why.closeReason()...)
	_, _ = s.stream.Write(appendFrame(nil, opClose, payload)) // only queues
	if s.stream.raw == nil {
		_ = s.stream.writeWaiting(nil) // its peer may be gone
	} else {
		s.flush(&rawWriter{})
	}
	_ = s.stream.SetReadDeadline(time.Now().Add(closeWait)) // a connection that is gone has no deadline
}

// closeReason is what a close frame says beside its code, at most 123 bytes.
func (why *ending) closeReason() string {
	switch {
	case why.refusal.code == "gap":
		return why.refusal.message
	case why.refusal.retry > 0:
		return fmt.Sprintf("%s;retry_ms=%d", why.refusal.code, why.refusal.retry.Milliseconds())
	}
	return why.refusal.code
}

// flush writes the control frames that wait, without waiting itself. Whoever is writing at the moment does it afterwards.
func (s *wsSession) flush(raw *rawWriter) {
	st := &s.stream
	if st.raw == nil {
		if s.attach == nil {
			_ = st.writeWaiting(nil) // before the session; its reader sees a failure too
			return
		}
		r := s.attach.client.routine
		r.mu.Lock()
		s.attach.wake() // the pump writes them
		r.mu.Unlock()
		return
	}
	for st.controls.Load() && st.mu.TryLock() {
		var err error
		if len(st.rest) == 0 {
			err = st.tryWriteLocked(raw, st.takeControl())
		}
		stalled := len(st.rest) > 0
		if stalled && s.attach != nil {
			c := s.attach.client
			c.routine.mu.Lock()
			if c.attach == s.attach && c.mode == inline {
				c.routine.pullOutLocked(c, c.routine.inlineCursorLocked(c))
			}
			c.routine.mu.Unlock()
		}
		st.mu.Unlock()
		if err != nil {
			_ = st.Close() // the reader ends with it
		}
		if err != nil || stalled {
			return
		}
	}
}

// ponged is coder/websocket's callback.
func (s *wsSession) ponged(context.Context, []byte) { s.awaiting.Store(false) }

// beat is called by the routine when a heartbeat is due: it pings, and looks PongTimeout later for the answer.
func (s *wsSession) beat(r *routine) {
	a := s.attach
	set := &s.b.set
	if s.checking = !s.checking; !s.checking {
		if s.awaiting.Load() {
			a.end(endTimeout)
			return
		}
		a.touch(max(jitter(set.heartbeat)-set.pongTimeout, set.tick))
		return
	}
	s.awaiting.Store(true)
	a.touch(set.pongTimeout)
	_, _ = s.stream.Write(appendFrame(nil, opPing, "")) // only queues
	s.flush(&r.raw)
	// A script sees no ping: with gpoll.v1 the scanned Position is the sign of life.
	if s.form != formJSONFrame {
		return
	}
	c := a.client
	var w inlineWrite
	r.mu.Lock()
	switch {
	case c.attach != a:
	case c.mode == inline:
		w = inlineWrite{a, a.turn, 0, appendFrame(nil, opText, positionJSON(r.inlineCursorLocked(c)))}
	default: // the pump sends it
		a.isDue = true
		a.wake()
	}
	r.mu.Unlock()
	if w.attach != nil {
		r.writeOne(&w)
	}
}

func positionJSON(p Position) []byte {
	return append(p.append([]byte(`{"position":"`)), `"}`...)
}
