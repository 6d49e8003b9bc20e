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

// A session is an attach on a connection of its own: a WebSocket, or SSE over HTTP/1.1. It has a stream, which the routine writes
// to, and a goroutine that reads.
type session struct {
	stream  stream
	b       *Broadcaster
	form    form
	attach  *attach         // nil before begin
	request *http.Request   // of gpoll.v1, until the hello
	greeted bool            // the hello has just been answered
	ws      *websocket.Conn // nil while the peer is silent
	in      *bufio.Reader   // what ws reads from

	awaiting atomic.Bool // a ping was not answered yet
	checking bool        // touched only by the routine's goroutine
}

// begin attaches the session to its client and sends head and the registration. From then on the routine, or a goroutine, writes.
func (s *session) begin(c *Client, o attachOptions, head []byte) {
	o.transport, o.due, o.socket = webSocket, jitter(s.b.set.heartbeat), s
	if s.form.events() {
		o.transport = sse
	}
	a, err := c.open(o)
	if err != nil {
		s.refuse(refused(refusalOf(err)))
		return
	}
	switch s.form {
	case formFrame:
		head = appendFrame(head, opText, registrationJSON(c))
	case formJSONFrame:
		head = appendFrame(head, opText, s.welcome(c, a.cursor))
	default:
		head = append(head, a.firstEvent()...)
	}
	if err := s.stream.writeWaiting(head); err != nil {
		a.end(endGone)
		return
	}
	s.startPump() // only now, so that the registration comes first
}

// run is the goroutine that reads, until the connection ends. It waits here, on a stack of the smallest size: what follows is in
// functions of their own.
func (s *session) run() {
	defer s.rescueReader()
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
func (s *session) over(err error) {
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
func (s *session) startPump() {
	a := s.attach
	r := a.client.routine
	r.mu.Lock()
	if s.stream.raw != nil && a.client.attach == a {
		a.back = inline
	}
	r.mu.Unlock()
	if ev, _ := a.step(); ev != gotHandedOver {
		s.b.spawn(s.pump)
	}
}

// pump writes what the client is owed until the routine takes over or the attach ends.
func (s *session) pump() {
	defer s.rescue()
	a := s.attach
	var items []item
	var buf []byte
	err := s.stream.writeWaiting(nil) // what the routine's write left over
	for err == nil {
		var ev event
		items, ev = a.next(s.b.limitReplay(), items[:0])
		buf = buf[:0]
		switch ev {
		case gotItems:
			for i := range items {
				if items[i].gap != nil && s.form == formFrame {
					s.closeForGap(items[i], buf)
					s.flush()
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
			err = s.stream.writeWaiting(s.appendBeat(buf, a.cursor))
		case gotStall:
			err = s.stream.writeWaiting(nil)
		case gotHandedOver, gotEnd:
			s.flush() // a control frame that came while this goroutine wrote
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
func (s *session) closeForGap(it item, before []byte) {
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
func (s *session) refuse(why *ending) {
	if why == endGone {
		_ = s.stream.Close()
		return
	}
	s.b.counts.refused.add(why.refusal.code)
	s.sendClose(why)
}

// finish tells the peer why its attach has ended.
func (s *session) finish() {
	defer s.rescue()
	why := s.attach.ending.Load()
	if why == endGone {
		_ = s.stream.Close()
		return
	}
	s.sendClose(why)
}

// How long a peer may take to answer a close frame.
const closeWait = 5 * time.Second

func (s *session) sendClose(why *ending) {
	if s.form.events() {
		s.stream.queue(appendEnd(nil, why), true)
		_ = s.stream.writeWaiting(nil) // its peer may be gone
		_ = s.stream.Close()           // the end of the response; the reader ends with it
		return
	}
	payload := append([]byte{byte(why.closeCode >> 8), byte(why.closeCode)}, why.closeReason()...)
	s.stream.queue(appendFrame(nil, opClose, payload), true)
	if s.stream.raw == nil {
		_ = s.stream.writeWaiting(nil) // its peer may be gone
	} else {
		s.flush()
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
func (s *session) flush() {
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
			err = st.tryWriteLocked(st.takeControl())
		}
		stalled := len(st.rest) > 0
		if stalled && s.attach != nil {
			c := s.attach.client
			c.routine.mu.Lock()
			if c.attach == s.attach && c.hot().mode == inline {
				c.routine.pullOutLocked(c)
			}
			c.routine.mu.Unlock()
		}
		st.mu.Unlock()
		if err != nil {
			s.b.spawn(func() { _ = st.Close() }) // the reader ends with it; a routine does not wait for that
		}
		if err != nil || stalled {
			return
		}
	}
}

// ponged is the callback of coder/websocket.
func (s *session) ponged(context.Context, []byte) { s.awaiting.Store(false) }

// beat is called by the routine when a heartbeat is due. A WebSocket is pinged, and PongTimeout later it must have answered. SSE and
// gpoll.v1, whose scripts see no ping, get the scanned Position.
func (s *session) beat(r *routine) {
	a := s.attach
	set := &s.b.set
	next := jitter(set.heartbeat)
	if !s.form.events() {
		if s.checking = !s.checking; !s.checking {
			if s.awaiting.Load() {
				a.end(endTimeout)
				return
			}
			a.touch(max(next-set.pongTimeout, set.tick))
			return
		}
		s.awaiting.Store(true)
		s.stream.queue(appendFrame(nil, opPing, ""), false)
		s.flush()
		next = set.pongTimeout
	}
	a.touch(next)
	if s.form != formFrame {
		r.beatInline(a)
	}
}

// appendBeat appends what tells the client that it has everything up to at. The plain WebSocket form has nothing for that.
func (s *session) appendBeat(b []byte, at Position) []byte {
	switch {
	case s.form.events():
		return appendHeartbeat(b, at)
	case s.form == formJSONFrame:
		return appendFrame(b, opText, positionJSON(at))
	}
	return b
}

func positionJSON(p Position) []byte {
	return append(p.append([]byte(`{"position":"`)), `"}`...)
}
