package gpoll

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"sync/atomic"

	"github.com/corvuscrypto/gpoll/internal/frame"
	"github.com/corvuscrypto/gpoll/internal/socket"
)

// Writing from the routine: a WebSocket that keeps up, or an SSE response on a connection of its own, needs no queue
// and no goroutine that writes. Under its mu the routine collects what each such client is owed (streamConn.offer), and
// afterwards writes it without the lock (writeInline). What is no message goes out between two rounds (inPlace). A
// client leaves this path when its socket is full, or for a gap (leave).

// take implements carrier. Where nobody can write to the socket without waiting, the pump goes on.
func (s *streamConn) take(c *Client, h *hotClient) {
	if s.stream.raw == nil {
		(*handler)(s.attach).take(c, h)
		return
	}
	h.by, h.mode, h.lease, h.form, h.collected = s, inline, s.stream.lease.number(), s.form, 0
}

func (s *streamConn) pending() bool { return s.stream.pending() }

// offer collects what goes to c's socket in this round, where that is not just the messages for everyone.
func (s *streamConn) offer(r *routine, c *Client, recs []*record) {
	h := c.hot()
	recs = newer(recs, h.from)
	if len(recs) == 0 {
		return
	}
	if !whole(recs) {
		h.collected = r.round // nothing of this round is written
		s.leave(r, c)
		return
	}
	r.pieces = append(r.pieces, piece{r.join(recs, h.form), len(recs)})
	r.collect(h, int32(len(r.pieces)-1))
}

// writeRound writes p, which r has collected, and does not wait. It writes nothing if the client was taken from the
// routine meanwhile, which then has another lease. It returns how many of p's messages count as delivered: the socket
// may have taken the last of them in part only.
func (s *streamConn) writeRound(r *routine, lease uint32, p *piece) (messages int) {
	messages, err := s.writeLeased(r, lease, p)
	if err != nil {
		s.attach.end(endGone) // its reader sees the error too
		return 0
	}
	return messages
}

// writeLeased writes p to one client, if the routine still has the right to.
func (s *streamConn) writeLeased(r *routine, lease uint32, p *piece) (messages int, err error) {
	st := &s.stream
	returned := false
	st.mu.Lock()
	defer func() {
		if !returned { // a panic: nobody knows what went out
			st.broken = true
			st.stalled.Store(true)
		}
		st.mu.Unlock()
	}()
	if st.stalled.Load() || st.closing.Load() {
		s.leaveInline(r, lease, nil, 0, 0)
		returned = true
		return 0, nil
	}
	last, ok := st.lease.claim(lease, r.round)
	if !ok {
		returned = true
		return 0, nil // the lease ended before p: another goroutine or attach goes on from there
	}
	n, err := st.try(p.bytes)
	messages = p.messages
	switch {
	case err != nil:
		st.lease.disclaim(lease, r.round, last)
	case n < len(p.bytes):
		messages = s.leaveInline(r, lease, p, n, last)
	}
	returned = true
	return messages, err
}

// leaveInline takes a client off the inline path because its socket takes no more. With DisconnectSlow it ends the
// attach instead. The socket took n bytes of p; p is nil when nothing was tried. leaveInline returns how many of p's
// messages were begun. The stream keeps the rest of those; the others are read from the log later, so that an end
// before them waits for one frame only. stream.mu is held.
func (s *streamConn) leaveInline(r *routine, lease uint32, p *piece, n int, last uint64) (begun int) {
	a := s.attach
	c := a.client
	st := &s.stream
	r.mu.Lock()
	defer r.mu.Unlock()
	ours := c.attach == a && st.lease.number() == lease
	var at Position
	size := 0
	if p != nil {
		found := false
		switch size, begun = begunFrames(p.bytes, n, s.form); {
		case !ours: // the lease was ended after the claim, which counts all of p as written
		case n == 0:
			st.lease.disclaim(lease, r.round, last)
			found = true
		case begun >= p.messages:
			found = true
		default:
			at, found = r.positionAfterLocked(c, begun)
		}
		if !found {
			size, begun = len(p.bytes), p.messages
		}
	}
	if n < size {
		st.rest = bytes.Clone(p.bytes[n:size])
		st.stalled.Store(true)
	}
	switch {
	case !ours: // another goroutine has the attach, or it has ended
	case r.b.DisconnectSlow && !st.closing.Load():
		r.endLocked(a, endSlow)
		if !at.IsZero() {
			c.cursor = at
		}
	default:
		s.leave(r, c)
		if !at.IsZero() {
			a.cursor, c.cursor = at, at
		}
	}
	return begun
}

// positionAfterLocked returns the Position of the n-th message that c was given in this round.
func (r *routine) positionAfterLocked(c *Client, n int) (at Position, found bool) {
	want := c.interestLocked()
	items, _, _ := r.b.messages.read(maxPosition(r.before, c.hot().from), &want, replay{n, math.MaxInt32}, nil)
	if len(items) < n || slices.ContainsFunc(items[:n], func(it item) bool { return it.gap != nil }) {
		return at, false
	}
	return items[n-1].pos, true
}

// begunFrames returns how many of the frames or events in p begin before n, and where the last of them ends.
func begunFrames(p []byte, n int, f form) (end, frames int) {
	if f.events() {
		const blank = "\n\n"
		if n > 0 {
			from := max(n-len(blank), 0)
			end = from + bytes.Index(p[from:], []byte(blank)) + len(blank)
		}
		return end, bytes.Count(p[:end], []byte(blank))
	}
	for ; end < n; frames++ {
		size := 2 + int(p[end+1])
		switch p[end+1] {
		case 126:
			size = 4 + int(binary.BigEndian.Uint16(p[end+2:]))
		case 127:
			size = 10 + int(binary.BigEndian.Uint64(p[end+2:]))
		}
		end += size
	}
	return end, frames
}

// perform implements carrier. Where the application has to be asked again, the pump does op.
func (s *streamConn) perform(op *operation) bool {
	a := s.attach
	buf := socket.Take()
	defer socket.Return(buf)
	return s.inPlace(func(at Position) (answer []byte, ok bool) {
		if a.asksLocked(op) {
			return nil, false
		}
		answer, changed := a.doLocked(buf[:0], op, at)
		if r := a.client.routine; changed && r.at != r.b.messages.end() {
			r.notify() // it may not have been woken for messages of a new topic
		}
		return answer, true
	})
}

// inform implements carrier.
func (s *streamConn) inform(a *attach) bool {
	if s.stream.raw == nil {
		return false
	}
	p := &s.b.present
	for late := false; ; late = false {
		n := p.news(a)
		if !n.any {
			return true
		}
		told := s.inPlace(func(Position) ([]byte, bool) {
			if late = !p.told(a, &n); late {
				return nil, false
			}
			return s.appendPresence(nil, n.json), true
		})
		if told || !late {
			return told
		}
	}
}

// appendPresence appends news of who is present, if there are any.
func (s *streamConn) appendPresence(b, news []byte) []byte {
	switch {
	case news == nil:
		return b
	case s.form.events():
		return appendPresenceEvent(b, news)
	}
	return frame.Append(b, frame.Text, presenceJSON(news))
}

// inPlace writes what tell returns, which is no message, in its place: everything up to at was written to the client,
// and nothing behind it. It writes nothing and reports false where a goroutine has to do it: the routine does not carry
// the client, something is left over, a round is under way, or tell reports false. inPlace calls tell with routine.mu.
func (s *streamConn) inPlace(tell func(at Position) (p []byte, ok bool)) bool {
	ok, left, err := s.tryInPlace(tell)
	s.follow(left, err)
	return ok
}

func (s *streamConn) tryInPlace(tell func(at Position) (p []byte, ok bool)) (ok, left bool, err error) {
	st := &s.stream
	st.mu.Lock() // until p is written: the routine writes no message meanwhile
	defer st.mu.Unlock()
	if st.pending() || st.closing.Load() {
		return false, false, nil
	}
	p, ok := s.tell(tell)
	if len(p) > 0 {
		left, err = st.writeNowLocked(p)
	}
	return ok, left, err
}

func (s *streamConn) tell(tell func(at Position) (p []byte, ok bool)) (p []byte, ok bool) {
	c := s.attach.client
	r := c.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.attach != s.attach || c.hot().mode != inline || r.unwrittenLocked(c, s.stream.lease.round()) {
		return nil, false
	}
	return tell(maxPosition(r.at, c.hot().from))
}

// leave lets the pump carry the client on from the last message that was written to it, until it has caught up. That
// message counts as delivered when its rest is still to be written: it goes out before an end.
func (s *streamConn) leave(r *routine, c *Client) {
	c.cursor = s.reached(r, c)
	s.attach.cursor, s.attach.verified = c.cursor, true
	c.hot().mode = reading
	r.b.spawn(s.pump)
}

// reached takes the right to write to the socket from the routine, and returns how far the client has been written to.
// If the routine is in the midst of a round, it no longer begins a write to this socket.
func (s *streamConn) reached(r *routine, c *Client) Position {
	return r.cursorLocked(c, s.stream.lease.end())
}

// elapsed implements carrier: a sign of life is owed.
func (s *streamConn) elapsed(r *routine, a *attach) {
	a.due = 0
	r.beats = append(r.beats, a)
}

// overdue implements carrier.
func (s *streamConn) overdue(r *routine, _ *attach, _ moment) { s.beat(r) }

// ended has a goroutine tell the peer.
func (s *streamConn) ended(r *routine, _ *attach, _ mode, _ *ending) { r.b.spawn(s.finish) }

// cursorLocked is how far a client has been written to. wrote is the last round that was claimed under its lease.
func (r *routine) cursorLocked(c *Client, wrote uint64) Position {
	if r.unwrittenLocked(c, wrote) {
		return maxPosition(r.before, c.hot().from)
	}
	return maxPosition(r.at, c.hot().from)
}

// unwrittenLocked reports whether something that was collected for a client in this round has not been written.
func (r *routine) unwrittenLocked(c *Client, wrote uint64) bool {
	return c.hot().collected == r.round && wrote != r.round&leaseRound
}

// A lease is the right of a routine to write to a socket. Its upper bits are a number that changes when the lease ends,
// the lower ones the last round that was claimed under it. The routine claims a round before it writes. The holder of
// routine.mu who ends the lease learns in the same operation whether the round was claimed. So every message goes out
// under the lease or is read from the log afterwards, and ending a lease needs no lock of the stream.
type lease struct{ v atomic.Uint64 }

const (
	leaseBits  = 40
	leaseRound = 1<<leaseBits - 1 // only neighbouring rounds are compared: the lower bits suffice
)

// number names the lease in force.
func (l *lease) number() uint32 { return uint32(l.v.Load() >> leaseBits) }

// round is the last one that was claimed.
func (l *lease) round() uint64 { return l.v.Load() & leaseRound }

// claim reports whether that lease is still in force, and if so notes the round. last is the one that was claimed
// before.
func (l *lease) claim(number uint32, round uint64) (last uint64, ok bool) {
	old := l.v.Load()
	ok = uint32(old>>leaseBits) == number && l.v.CompareAndSwap(old, uint64(number)<<leaseBits|round&leaseRound)
	return old & leaseRound, ok
}

// disclaim gives back a round of which nothing was written.
func (l *lease) disclaim(number uint32, round, last uint64) {
	l.v.CompareAndSwap(uint64(number)<<leaseBits|round&leaseRound, uint64(number)<<leaseBits|last)
}

// end ends the lease and returns the last round that was claimed under it.
func (l *lease) end() (round uint64) {
	for {
		old := l.v.Load()
		if l.v.CompareAndSwap(old, (old>>leaseBits+1)<<leaseBits) {
			return old & leaseRound
		}
	}
}
