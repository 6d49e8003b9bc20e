package gpoll

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/corvuscrypto/gpoll/internal/frame"
	"github.com/corvuscrypto/gpoll/internal/socket"
)

// A session is an attach on a connection of its own: a WebSocket, or SSE over HTTP/1.1. It has a stream, which the
// routine writes to, and a goroutine that reads.
//
// Who writes and waits for the socket, when there is something that the routine or the reader could not write at once:
// before the attach its reader, during it the pump, after it finish. Each writes all that is queued before it goes, and
// so tells the end that comes meanwhile. The connection is closed when both are over: reading (over), and the end's way
// to the peer (told).
type session struct {
	stream  stream
	b       *Broadcaster
	form    form
	attach  *attach        // nil before begin
	request *http.Request  // of gpoll.v1, until the hello
	helloBy moment         // when the hello has to be there; 0: it is, or none is to come
	greeted bool           // the hello has just been answered
	reader  *socket.Reader // made when it is first needed

	awaiting atomic.Bool // a ping was not answered yet
	held     atomic.Bool // the reader is at a command and reads no pong
	checking bool        // touched only by the routine's goroutine

	passes  *passedGap  // of closeForGap
	unwatch func() bool // see watch; nil: nobody is watching. Guarded by stream.mu
}

// begin attaches the session to its client and sends head and the registration. From then on the routine, or a
// goroutine, writes.
func (s *session) begin(c *Client, o attachOptions, head []byte) {
	s.watchNoMore()
	a := new(attach)
	o.transport, o.due, o.by, o.memory = webSocket, jitter(s.b.set.heartbeat), s, a
	if s.form.events() {
		o.transport = sse
		s.stream.precede(head) // also before an end that comes at once
	}
	s.attach = a // before anybody finds the session by it
	if _, err := c.open(&o); err != nil {
		s.attach = nil
		s.refuse(refused(s.b.refusalOf(err)))
		return
	}
	var first []byte
	switch s.form {
	case formFrame:
		first = frame.Append(nil, frame.Text, registrationJSON(c))
	case formJSONFrame:
		first = frame.Append(nil, frame.Text, s.welcome(c, a.cursor))
	default:
		first = a.firstEvent()
	}
	late := s.lateness()
	err := s.write(first, late)
	late.Stop()
	if err != nil {
		a.end(endGone)
		return
	}
	s.startPump() // only now, so that the registration comes first
}

// run is the goroutine that reads, until the connection ends. It waits here, on a stack of the smallest size: what
// follows is in functions of their own.
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

// over ends the session when its reader has ended. Where an end is on its way to the peer, told closes the connection.
func (s *session) over(err error) {
	s.b.log.Debug("gpoll: WebSocket ended", "err", err)
	if s.request != nil && isTimeout(err) {
		s.refuse(s.noHello())
	}
	if s.attach != nil {
		s.attach.end(endGone)
	}
	st := &s.stream
	st.mu.Lock()
	st.unread = true
	told := st.ended && !st.broken
	telling := !st.ended && (st.closing.Load() || s.attach != nil && s.attach.ending.Load() != endGone)
	st.mu.Unlock()
	s.watchNoMore()
	if told {
		st.awaitReceived(s.b.ctx.Done()) // the wait for its answer may have been cut short by a Shutdown
	}
	if !telling {
		_ = st.Close()
	}
}

// startPump lets the routine or a goroutine carry the client on.
func (s *session) startPump() {
	if ev, _ := s.attach.step(); ev != gotHandedOver {
		s.b.spawn(s.pump)
	}
}

// lateness returns a timer that ends the attach as slow. write has it run while it waits; the caller stops it.
func (s *session) lateness() *time.Timer {
	a := s.attach
	return s.b.after(s.b.set.writeTimeout, func() { a.end(endSlow) })
}

// write writes p after what is left over, and the control frames that wait, and waits for the socket. When that takes
// longer than WriteTimeout, late ends what has to end: the write itself goes on, so that the peer hears of it after a
// whole frame, until the end's own time is over. An end that comes meanwhile is told.
func (s *session) write(p []byte, late *time.Timer) error {
	late.Reset(s.b.set.writeTimeout)
	told, err := s.stream.writeWaiting(p)
	late.Stop()
	if told {
		s.told(err)
	}
	return err
}

// A pump writes about so much at once: an end that comes meanwhile waits for no more, and a cursor is never behind by
// more.
const pieceSize = 64 << 10

// pump writes what the client is owed until the routine takes over or the attach ends.
func (s *session) pump() {
	defer s.rescue()
	a := s.attach
	late := s.lateness()
	defer late.Stop()
	var items []item
	var buf []byte
	err := s.write(nil, late) // what the routine's write left over
	for err == nil {
		var ev event
		items, ev = a.next(s.b.limitReplay(), items[:0])
		switch ev {
		case gotItems:
			buf, err = s.writeItems(items, buf, late)
			clear(items)
		case gotOp:
			buf = a.operate(buf[:0])
			err = s.write(buf, late)
		case gotDue:
			buf = s.appendBeat(buf[:0], a.cursor)
			err = s.write(buf, late)
		case gotStall:
			err = s.write(nil, late)
		case gotHandedOver, gotEnd: // finish tells why
			return
		}
	}
	a.end(endGone) // unless it ended before
}

// writeItems writes items, in the memory of buf, piece by piece. Its error says that the attach ends.
func (s *session) writeItems(items []item, buf []byte, late *time.Timer) ([]byte, error) {
	buf = buf[:0]
	from := 0 // what comes first in buf
	for i := range items {
		gap := items[i].gap != nil && s.form == formFrame
		if !gap {
			buf = appendItem(buf, &items[i], s.form)
		}
		if gap && from < i || len(buf) >= pieceSize || i == len(items)-1 && !gap {
			to := i + 1
			if gap {
				to = i
			}
			before, ok := s.attach.claim(items[to-1].pos)
			if !ok {
				return buf, errEnding
			}
			if err := s.write(buf, late); err != nil {
				s.attach.disclaim(before, items[to-1].pos)
				return buf, err
			}
			s.b.countItems(items[from:to])
			buf, from = buf[:0], to
		}
		if gap {
			s.closeForGap(items[i])
			return buf, errEnding
		}
	}
	return buf, nil
}

// claim is called before messages up to at are written: an attach that comes from here on without a cursor goes on
// after them. It returns the cursor that the client had, and false when the attach has ended: then they are the next
// one's.
func (a *attach) claim(at Position) (before Position, ok bool) {
	c := a.client
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	if c.attach != a {
		return before, false
	}
	before = c.cursor
	if before.Epoch != at.Epoch || before.Seq < at.Seq { // older: last=N
		c.cursor = at
	}
	return before, true
}

// disclaim gives back what was claimed and not written, unless another attach has gone on after it.
func (a *attach) disclaim(before, at Position) {
	c := a.client
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	if (c.attach == a || c.attach == nil) && c.cursor == at {
		c.cursor = before
	}
}

// A passedGap is a gap that a close frame announces. A client without a cursor goes on after it if that frame went out,
// and before it if not.
type passedGap struct{ before, after Position }

// closeForGap closes for a gap that the plain form cannot carry. What comes before it was written. A new connect goes
// on after it.
func (s *session) closeForGap(it item) {
	a := s.attach
	c := a.client
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	if c.attach != a {
		return
	}
	s.b.countGap(it.gap)
	s.passes = &passedGap{c.cursor, it.pos} // for finish, which begins below
	c.routine.endLocked(a, &ending{&refusal{code: "gap", message: it.gap.String()}, closeUnknown})
}

// refuse closes a connection that never got an attach. run waits for the peer's close frame.
func (s *session) refuse(why *ending) {
	s.watchNoMore()
	if why == endGone {
		_ = s.stream.Close()
		return
	}
	s.b.counts.refused.add(why.refusal.code)
	s.b.logRefusal(why.refusal, s.request)
	s.sendClose(why)
}

// finish tells the peer why its attach has ended. It waits for the socket, but for nobody who writes to it: that one
// goes on and tells the end.
func (s *session) finish() {
	defer s.rescue()
	switch why := s.attach.ending.Load(); {
	case why != endGone:
		s.sendEnd(why, true)
	case s.stream.closing.Load(): // the last frame is on its way, or waits for its answer: see told and over
	default:
		_ = s.stream.Close()
	}
}

// How long a peer may take to answer a close frame.
const closeWait = 5 * time.Second

// sendClose tells the peer why the connection ends, where that is not because of its attach.
func (s *session) sendClose(why *ending) { s.sendEnd(why, false) }

func (s *session) sendEnd(why *ending, ofAttach bool) {
	if s.form.events() {
		s.sendLast(appendEnd(nil, why), ofAttach)
		return
	}
	payload := append([]byte{byte(why.closeCode >> 8), byte(why.closeCode)}, why.closeReason()...)
	s.sendLast(frame.Append(nil, frame.Close, payload), ofAttach)
}

// sendLast sends the last frame, after what was partly written, within WriteTimeout. When there was one before, that
// one is told.
func (s *session) sendLast(frame []byte, ofAttach bool) {
	st := &s.stream
	st.mu.Lock()
	first := st.queueLastLocked(frame)
	if first {
		st.attachEnd = ofAttach
	}
	st.mu.Unlock()
	if !first {
		return
	}
	// Also of a write that is under way. A connection that is gone has none.
	_ = st.SetWriteDeadline(time.Now().Add(st.timeout))
	if told, err := st.writeWaiting(nil); told {
		s.told(err)
	}
}

// told is called once, when the last frame has gone out or cannot go out. A WebSocket's peer answers it.
func (s *session) told(err error) {
	st := &s.stream
	st.mu.Lock()
	attachEnd, unread := st.attachEnd, st.unread
	st.mu.Unlock()
	if err == nil && attachEnd && s.passes != nil {
		s.passes.pass(s.attach.client)
	}
	if err != nil || unread || s.form.events() || s.b.ctx.Err() != nil {
		if err != nil {
			st.cut()
		} else {
			st.awaitReceived(s.b.ctx.Done())
		}
		_ = st.Close() // the reader ends with it
		return
	}
	st.readLast(time.Now().Add(closeWait))
	s.watch()
}

// pass moves the client's cursor behind the gap, unless it has a new attach, which has begun before it.
func (g *passedGap) pass(c *Client) {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	if c.attach == nil && c.cursor == g.before {
		c.cursor = g.after
	}
}

// watch is for a peer that the session waits for and nobody else does: for the hello, or for the answer to a close.
// Shutdown does not wait for that.
func (s *session) watch() {
	st := &s.stream
	unwatch := context.AfterFunc(s.b.ctx, func() { st.readLast(time.Unix(1, 0)) }) // the reader ends
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.unread {
		unwatch()
		return
	}
	s.unwatch = unwatch
}

func (s *session) watchNoMore() {
	s.stream.mu.Lock()
	defer s.stream.mu.Unlock()
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
}

// awaitHello begins the time that the hello of gpoll.v1 has.
func (s *session) awaitHello() {
	s.helloBy = s.b.now() + moment(helloWait)
	_ = s.stream.readBy(s.readDeadline()) // run sees it when the connection is gone
	s.watch()
}

// noHello is why a connection ends whose hello did not come.
func (s *session) noHello() *ending {
	if s.b.state.Load() != stateOpen {
		return s.b.endShutdown()
	}
	return refused(refuseHello)
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

// sendControl sends a ping or a pong without waiting.
func (s *session) sendControl(kind controlKind, frame []byte) { s.follow(s.stream.queue(kind, frame)) }

// follow sees to what is left of a write that did not wait, or to its failure.
func (s *session) follow(left bool, err error) {
	switch {
	case err != nil:
		s.b.spawn(func() { _ = s.stream.Close() }) // the reader ends with it; a routine does not wait for that
	case left:
		s.carry()
	}
}

// carry finds a goroutine for what the socket did not take at once.
func (s *session) carry() {
	a := s.attach
	if a == nil { // the reader calls this, and is alone
		late := s.b.after(s.b.set.writeTimeout, func() { _ = s.stream.Close() }) // which ends the write
		_ = s.write(nil, late)                                                   // it sees a failure too
		return
	}
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	// A pump does not hand over before it has written it. Where the attach has ended, finish writes it before it tells the
	// end.
	a.attendLocked()
}

// beat is called by the routine when a heartbeat is due. A WebSocket is pinged, and PongTimeout later it must have
// answered. SSE and gpoll.v1, whose scripts see no ping, get the scanned Position.
func (s *session) beat(r *routine) {
	a := s.attach
	set := &s.b.set
	next := jitter(set.heartbeat)
	if !s.form.events() {
		if s.checking = !s.checking; !s.checking {
			if !s.held.Load() && s.awaiting.Load() { // in this order: see obey
				a.end(endTimeout)
				return
			}
			a.touch(max(next-set.pongTimeout, set.tick))
			return
		}
		s.awaiting.Store(true)
		s.sendControl(ping, frame.Append(nil, frame.Ping, ""))
		next = set.pongTimeout
	}
	a.touch(next)
	if s.form == formFrame || s.inPlace(func(at Position) ([]byte, bool) { return s.appendBeat(nil, at), true }) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a.isDue = true // the pump sends it before it hands over
	a.attendLocked()
}

// appendBeat appends what tells the client that it has everything up to at. The plain WebSocket form has nothing for
// that.
func (s *session) appendBeat(b []byte, at Position) []byte {
	switch {
	case s.form.events():
		return appendHeartbeat(b, at)
	case s.form == formJSONFrame:
		return frame.Append(b, frame.Text, positionJSON(at))
	}
	return b
}

func positionJSON(p Position) []byte {
	return append(p.append([]byte(`{"position":"`)), `"}`...)
}
