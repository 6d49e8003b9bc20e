package gpoll

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/corvuscrypto/gpoll/internal/frame"
	"github.com/corvuscrypto/gpoll/internal/socket"
)

// A streamConn is an attach on a connection of its own: a WebSocket, or SSE over HTTP/1.1. It has a stream, which the
// routine writes to, and a goroutine that reads.
//
// One goroutine at a time waits for the socket and writes what the routine or the reader could not write at once:
// before the attach the reader, during it the pump, after it finish. Each writes all that is queued before it ends,
// also an end that comes meanwhile. The connection is closed when reading is over (over) and the end has reached the
// peer or cannot (told).
type streamConn struct {
	stream   stream
	b        *Broadcaster
	form     form
	holds    bool                     // held was set since readable
	anew     bool                     // the stack has grown: a fresh goroutine goes on
	answered bool                     // the last command was, or may have been
	deep     bool                     // the goroutine has obeyed commands
	awaiting atomic.Bool              // a ping has no answer yet
	held     atomic.Bool              // the reader obeys a command and reads no pong
	attach   *attach                  // nil before begin
	request  *http.Request            // of gpoll.v1, until the hello
	helloBy  moment                   // deadline of the hello; 0: it has come, or none is expected
	reader   *socket.Reader           // made when it is first needed
	lent     *[socket.BufferSize]byte // holds stream.prefix; nil: that is memory of its own

	// Of a WebSocket. Only the routine's goroutine touches them.
	pingAt moment // when the next ping is due
	pongBy moment // when the peer must have answered; 0: no pong is awaited
	pinged pingMark

	passes  *passedGap  // of closeForGap
	unwatch func() bool // see watch; nil: there is no watch. Guarded by stream.mu
}

// begin attaches the connection to its client and sends head and the registration. From then on the routine, or a
// goroutine, writes.
func (s *streamConn) begin(c *Client, o attachOptions, head []byte) {
	s.watchNoMore()
	a := new(attach)
	o.transport, o.due, o.by, o.memory = webSocket, jitter(s.b.set.heartbeat), s, a
	if s.form.events() {
		o.transport = sse
		s.stream.precede(head) // also before an end that comes at once
	}
	s.attach = a // before anybody finds s by it
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
	if err != nil {
		a.end(endGone)
		return
	}
	s.startPump() // only now, so that the registration comes first
}

// run is the goroutine that reads, until the connection ends. It waits on a stack of the smallest size: its other work
// is in functions of their own.
func (s *streamConn) run() {
	defer s.rescueReader()
	err := s.readable()
	for err == nil {
		err = s.handle()
		if s.anew { // rescueReader starts a fresh goroutine
			return
		}
		if err == nil {
			err = s.readable()
		}
	}
	s.over(err)
}

// over ends the connection when its reader has ended. When an end is on its way to the peer, told closes the connection
// instead.
func (s *streamConn) over(err error) {
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
		st.awaitReceived(s.b.ctx.Done()) // Shutdown may have cut short the wait for its answer
		if _, wrong := errors.AsType[*refusal](err); wrong {
			st.linger(s.b.ctx.Done()) // the peer may be in the midst of sending
		}
	}
	if !telling {
		_ = st.Close()
	}
}

// startPump lets the routine or a goroutine carry the client on.
func (s *streamConn) startPump() {
	if ev, _ := s.attach.step(); ev != gotHandedOver {
		s.b.spawn(s.pump)
	}
}

// lateness returns what ends the attach as slow, for write.
func (s *streamConn) lateness() *pace {
	a := s.attach
	return s.b.pace(&s.stream, func() { a.end(endSlow) })
}

// write writes what is left over, then p, then the control frames that wait. It waits for the socket. When the peer
// makes no progress for WriteTimeout, late ends the attach or, before the attach, the connection. The write goes on
// until the end's own time is over, so that the peer is told the end after a whole frame. write also tells an end that
// comes meanwhile.
func (s *streamConn) write(p []byte, late *pace) error { return s.writeClaimed(p, late, nil) }

func (s *streamConn) writeClaimed(p []byte, late *pace, claim func() bool) error {
	late.start()
	told, err := s.stream.writeWaiting(p, claim)
	late.stop()
	if told {
		s.told(err)
	}
	return err
}

// A pump writes about so many bytes at once. An end that comes meanwhile waits for no more than that, and a cursor is
// behind by no more.
const pieceSize = 64 << 10

// pump writes what the client is owed until the routine takes over or the attach ends.
func (s *streamConn) pump() {
	defer s.rescue()
	a := s.attach
	late := s.lateness()
	var items []item
	var buf []byte
	err := s.write(nil, late) // the rest of the routine's write
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
		case gotPresence:
			buf = s.appendPresence(buf[:0], a.takeNews())
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

// writeItems writes items, in the memory of buf, piece by piece. After an error the attach ends.
func (s *streamConn) writeItems(items []item, buf []byte, late *pace) ([]byte, error) {
	buf = buf[:0]
	from := 0 // index of the first item in buf
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
			if err := s.writeMessages(buf, items[to-1].pos, late); err != nil {
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

// writeMessages writes messages up to at. They are claimed with the stream's lock: an end, and so a newer attach, comes
// before the claim, or after the messages.
func (s *streamConn) writeMessages(p []byte, at Position, late *pace) error {
	var before Position
	claimed := false
	err := s.writeClaimed(p, late, func() bool {
		before, claimed = s.attach.claim(at)
		return claimed
	})
	if err != nil && claimed {
		s.attach.disclaim(before, at)
	}
	return err
}

// claim is called before messages up to at are written: a later attach without a cursor goes on after them. It returns
// the cursor that the client had. It returns false when the attach has ended: then the messages are the next attach's.
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

// disclaim gives back messages that were claimed and not written, unless another attach has gone on after them.
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

// closeForGap ends the attach for a gap that the plain form cannot carry. Everything before the gap was written. The
// client's next attach goes on after the gap.
func (s *streamConn) closeForGap(it item) {
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

// refuse closes a connection that has no attach. run waits for the peer's close frame.
func (s *streamConn) refuse(why *ending) {
	s.watchNoMore()
	if why == endGone {
		_ = s.stream.Close()
		return
	}
	s.b.noteRefusal(why.refusal, s.request)
	s.sendClose(why)
}

// finish tells the peer why its attach has ended. It waits for the socket. If another goroutine is writing, that one
// tells the end.
func (s *streamConn) finish() {
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

// sendClose tells the peer why the connection ends, when the reason is not its attach.
func (s *streamConn) sendClose(why *ending) { s.sendEnd(why, false) }

func (s *streamConn) sendEnd(why *ending, ofAttach bool) {
	if s.form.events() {
		s.sendLast(appendEnd(nil, why), ofAttach)
		return
	}
	payload := append([]byte{byte(why.closeCode >> 8), byte(why.closeCode)}, why.closeReason()...)
	s.sendLast(frame.Append(nil, frame.Close, payload), ofAttach)
}

// sendLast sends the last frame, after a partly written one, within WriteTimeout. It does nothing when there is a last
// frame already.
func (s *streamConn) sendLast(frame []byte, ofAttach bool) {
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
	// The deadline also holds for a write under way. Setting it fails only where the connection is gone.
	_ = st.SetWriteDeadline(time.Now().Add(st.timeout))
	if told, err := st.writeWaiting(nil, nil); told {
		s.told(err)
	}
}

// told is called once, when the last frame has gone out or cannot go out. A WebSocket's peer answers it.
func (s *streamConn) told(err error) {
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

// watch lets Shutdown end a wait for the peer: for its hello, or for its answer to a close frame.
func (s *streamConn) watch() {
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

func (s *streamConn) watchNoMore() {
	s.stream.mu.Lock()
	defer s.stream.mu.Unlock()
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
}

// awaitHello begins the time within which the hello of gpoll.v1 has to come.
func (s *streamConn) awaitHello() {
	s.helloBy = s.b.now() + moment(helloWait)
	_ = s.stream.readBy(s.readDeadline()) // run sees a connection that is gone
	s.watch()
}

// noHello is the ending of a connection whose hello did not come.
func (s *streamConn) noHello() *ending {
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
	case why.refusal.code == "bad-frame", // what it was is of use to whoever writes a client
		why.refusal.code == "refused", why.closeCode == closeRemoved && why != endRemoved: // the application's words
		return saying(why.refusal.code, why.refusal.message)
	case why.refusal.retry > 0:
		return fmt.Sprintf("%s;retry_ms=%d", why.refusal.code, why.refusal.retry.Milliseconds())
	}
	return why.refusal.code
}

// sendControl sends a ping or a pong without waiting.
func (s *streamConn) sendControl(kind controlKind, frame []byte) {
	s.follow(s.stream.queue(kind, frame))
}

// follow handles the rest of a write that did not wait, or its failure.
func (s *streamConn) follow(left bool, err error) {
	switch {
	case err != nil:
		s.b.spawn(func() { _ = s.stream.Close() }) // the reader ends with it; a routine does not wait for that
	case left:
		s.carry()
	}
}

// carry finds a goroutine to write what the socket did not take at once.
func (s *streamConn) carry() {
	a := s.attach
	if a == nil { // only the reader runs, and calls this
		late := s.b.pace(&s.stream, func() { _ = s.stream.Close() }) // which ends the write
		_ = s.write(nil, late)                                       // it sees a failure too
		return
	}
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	// A pump writes the rest before it hands over. When the attach has ended, finish writes the rest before it tells the
	// end.
	a.attendLocked()
}

// beat is called by the routine when a heartbeat is due or the time for a pong is over. It pings a WebSocket, which
// must answer within PongTimeout. It sends the scanned Position over SSE and gpoll.v1, whose scripts see no ping.
func (s *streamConn) beat(r *routine) {
	a := s.attach
	set := &s.b.set
	if s.form.events() {
		a.touch(jitter(set.heartbeat))
		s.tellPosition(r)
		return
	}
	now := s.b.now()
	switch {
	case s.pongBy == 0:
	case s.held.Load() || !s.awaiting.Load(): // in this order: see handled
		s.pongBy = 0
	case now < s.pongBy:
	case !s.pinged.under(&s.stream):
		a.end(endTimeout)
		return
	default:
		s.pongBy = now + moment(set.pongTimeout)
	}
	due := now >= s.pingAt
	if due {
		s.pingAt = now + moment(jitter(set.heartbeat))
		if s.pongBy == 0 {
			s.awaiting.Store(true)
			s.pinged.begin(&s.stream)
			s.pongBy = now + moment(set.pongTimeout)
		}
		s.sendControl(ping, frame.Append(nil, frame.Ping, ""))
	}
	next := s.pingAt
	if s.pongBy != 0 {
		next = min(next, s.pongBy)
	}
	a.touch(max(time.Duration(next-now), set.tick))
	if due && s.form != formFrame {
		s.tellPosition(r)
	}
}

// tellPosition tells the client that it has everything up to the scanned Position: at once, or through the goroutine
// that carries it.
func (s *streamConn) tellPosition(r *routine) {
	if s.inPlace(func(at Position) ([]byte, bool) { return s.appendBeat(nil, at), true }) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.attach.isDue = true // the pump sends it before it hands over
	s.attach.attendLocked()
}

// appendBeat appends the event or message that tells the client that it has everything up to at. The plain WebSocket
// form has none.
func (s *streamConn) appendBeat(b []byte, at Position) []byte {
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

// rescue is deferred in a goroutine that writes to the stream.
func (s *streamConn) rescue() {
	if v := recover(); v != nil {
		s.b.logPanic("a goroutine of a connection", v)
		if s.attach == nil || s.attach.ending.Load() != nil { // the panic came while telling its end
			_ = s.stream.Close() // the reader ends with it
			return
		}
		s.attach.end(endInternal)
	}
}

// rescueReader is deferred in the goroutine that reads. After a panic, and when the application has ended the
// goroutine, it goes on reading until the peer was told, or cannot be.
func (s *streamConn) rescueReader() {
	switch v := recover(); {
	case v != nil:
		s.b.logPanic("the reader of a connection", v)
	case s.anew:
		s.anew, s.deep = false, false
		s.b.spawn(s.run)
		return
	case s.stream.isUnread():
		return
	}
	s.b.contained("a rescue", func() {
		if s.attach != nil {
			s.attach.end(endInternal)
		} else {
			s.refuse(endInternal)
		}
		_ = s.stream.SetReadDeadline(time.Now().Add(s.b.set.writeTimeout + closeWait)) // reading reports a closed connection
		_, _ = io.Copy(io.Discard, s.stream.Conn)                                      // the data has no use
	})
	s.over(io.ErrUnexpectedEOF)
}
