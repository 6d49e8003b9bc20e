package gpoll

import (
	"sync"
	"time"
)

// A poll on a connection that is kept is parked: it has no goroutine that waits for messages. The routine answers it,
// and the connection's reader, which waits for the next request, takes it back when the client sends more or goes away.
//
// hotClient.mode, which routine.mu guards, says who answers the poll:
//
//   - parked: the routine. A round that has something for the poll answers it, if stream.mu is free.
//   - resuming: resume, in a goroutine of its own, which waits for stream.mu and reads the log on. A round gives the
//     poll to it when stream.mu is held, or when a gap of the broker or a new epoch has to be read from the log.
//   - reading: the goroutine that runs ready, in begin or in resume. It answers the poll or parks it again.

// What begin did with a poll.
type pollBegun uint8

const (
	pollPassed   pollBegun = iota // the server has to see the request
	pollAnswered                  // answered at once
	pollParked                    // the routine answers it, or has done so
)

// begin takes a repeat of a poll on.
func (c *pollConn) begin(rep *repeat, after Position) pollBegun {
	b := c.b
	if b.now()-rep.passed > moment(b.set.repeatFor) {
		return pollPassed
	}
	var g *grantee
	if b.Authorize != nil {
		var refused *refusal
		if g, refused = b.authorize(rep.asker.Clone(rep.asker.Context())); refused != nil || g.user() != rep.client.user {
			return pollPassed
		}
	}
	if c.idle > 0 { // the connection is not idle while its poll waits
		c.idleUntil(time.Time{})
	}
	req := rep.req
	req.after, req.arrived = after, b.arrivals.Add(1)
	p := &c.poll
	p.items = c.first[:0]
	arr := arrival{client: rep.client, grantee: g}
	var refused *refusal
	if arr.named, refused = b.topicsOf(&req, rep.client, g); refused == nil {
		refused = b.beginPoll(p, &req, &arr, c, true, &rep.own, nil)
	}
	if refused != nil {
		c.idleAgain()
		return pollPassed
	}
	b.repeats.Add(1)
	c.mu.Lock()
	c.parked, c.current, c.refused = p.attach, rep, false
	c.mu.Unlock()
	ev := p.ready()
	if ev == gotHandedOver {
		return pollParked
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.concludeLocked(ev)
	return pollAnswered
}

// concludeLocked answers the poll with what ready has found.
func (c *pollConn) concludeLocked(ev event) {
	p := &c.poll
	switch {
	case c.parked == nil: // it has ended, and finish or Close has told the client why
	case ev == gotEnd:
		c.refuseLocked(p.attach.ending.Load().refusal)
	default:
		c.b.countItems(p.items)
		out := p.answer()
		answering := &p.attach.client.answering
		answering.Store(true)
		p.end(c.answerLocked(&out) == nil && !c.stalled.Load())
		answering.Store(false)
	}
	c.first, p.items, p.asks = [1]item{}, nil, nil
}

// take lets the routine answer.
func (c *pollConn) take(_ *Client, h *hotClient) { h.by, h.mode = c, parked }

func (*pollConn) pending() bool { return false }

func (*pollConn) perform(*operation) bool { return false }

func (*pollConn) inform(*attach) bool { return false }

func (c *pollConn) leave(r *routine, of *Client) { c.resumeLocked(r, of, r.at) }

// reached returns the old cursor: it moves when the answer has gone out.
func (*pollConn) reached(_ *routine, of *Client) Position { return of.cursor }

// elapsed implements carrier: the time of the poll is over. While another goroutine has the poll, it stays due.
func (c *pollConn) elapsed(r *routine, a *attach) {
	if a.client.hot().mode == parked {
		r.expired = append(r.expired, a)
	}
}

// ended has a goroutine tell the client.
func (c *pollConn) ended(r *routine, a *attach, _ mode, _ *ending) {
	r.b.spawn(func() { c.finish(a) })
}

// resumeLocked gives c's parked poll, which the round cannot answer, to a goroutine of its own. Everything up to at has
// been offered to the poll. routine.mu is held.
func (c *pollConn) resumeLocked(r *routine, of *Client, at Position) {
	a := of.attach
	a.cursor, a.verified = maxPosition(at, of.hot().from), true
	of.hot().mode = resuming
	r.b.spawn(func() {
		defer c.rescue(a)
		c.resume(of)
	})
}

// resume reads the log on for a client's poll that a round could not answer.
func (c *pollConn) resume(of *Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := of.routine
	r.mu.Lock()
	// Otherwise the reader has taken the poll back, or it has ended.
	mine := c.parked != nil && of.attach == c.parked && of.hot().mode == resuming
	if mine {
		of.hot().mode = reading
	}
	r.mu.Unlock()
	if !mine {
		return
	}
	if ev := c.poll.ready(); ev != gotHandedOver {
		c.concludeLocked(ev)
	}
}

// idleAgain begins the server's time-out between two requests.
func (c *pollConn) idleAgain() {
	if c.idle > 0 {
		c.idleUntil(time.Now().Add(c.idle))
	}
}

// answerLocked writes out as the answer of the parked poll.
func (c *pollConn) answerLocked(out *answer) error {
	buf := answerBuffers.Get().(*[]byte)
	*buf = out.append((*buf)[:0], c.current.fixed.Value(), c.b.calendar.today().line)
	err := c.putLocked(*buf)
	if cap(*buf) <= maxAnswerBuffer {
		answerBuffers.Put(buf)
	}
	return err
}

// answerBuffers hold the answer that is being written.
var answerBuffers = sync.Pool{New: func() any { return new([]byte) }}

const maxAnswerBuffer = 64 << 10

// putLocked writes the answer of the parked poll, without waiting, and does not keep p. drain writes what the socket
// refuses. The reader begins no other poll meanwhile, so that at most one answer is under way.
func (c *pollConn) putLocked(p []byte) error {
	c.parked = nil
	err := c.tryWriteLocked(p)
	switch {
	case err != nil:
		c.b.spawn(c.shut) // the reader ends with it; a routine does not wait for that
	case c.stalled.Load():
		c.draining = make(chan struct{})
		c.b.spawn(c.drain)
	default:
		c.idleAgain()
	}
	return err
}

// drain writes what the socket did not take at once. When the client makes no progress for WriteTimeout, it closes the
// connection. From a shutdown on progress does not count.
func (c *pollConn) drain() {
	defer c.rescueDrain()
	late := c.b.pace(&c.stream, func() { _ = c.Conn.SetWriteDeadline(time.Unix(1, 0)) }) // the write ends
	late.frozen = func() bool { return c.b.ctx.Err() != nil || c.listener.isClosed() }
	late.start()
	defer late.stop()
	if c.writeRest(late) {
		c.shut() // the reader ends with it
	}
}

// writeRest writes what is left over, waits for that, and reports whether the connection has to be closed.
func (c *pollConn) writeRest(late *pace) (last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeOutLocked(nil)
	late.stop()
	_ = c.Conn.SetWriteDeadline(time.Time{}) // before the server may set its own
	switch {
	case c.broken:
		c.poll.attach.client.cut()
	case !c.refused:
		c.poll.arrived()
	}
	if !c.broken {
		c.idleAgain()
	}
	c.drainedLocked()
	return c.broken || c.closed
}

// drainedLocked lets the reader go on.
func (c *pollConn) drainedLocked() {
	c.stalled.Store(false)
	close(c.draining)
}

// arrived is called when an answer has gone out that the socket did not take at once: the next poll without cursor
// acknowledges it, unless another poll has come meanwhile.
func (p *poll) arrived() {
	a := p.attach
	c := a.client
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	c.wholeLocked()
	if !a.implicit || a.ending.Load() != nil || c.attach != nil {
		return
	}
	if c.kept != nil && c.kept.sent.IsZero() && c.cursor == p.started {
		c.kept.sent, c.kept.backSent = a.cursor, p.owed-len(a.backfill)
	}
}

// drained waits until no answer is under way.
func (c *pollConn) drained() {
	c.mu.Lock()
	over := c.draining
	c.mu.Unlock()
	if over != nil {
		<-over
	}
}

// refuseLocked answers the parked poll, whose attach has ended, with why.
func (c *pollConn) refuseLocked(why *refusal, more ...field) {
	c.refused = true
	c.b.counts.refused.add(why.code)
	out := why.answer()
	out.fields = append(out.fields, more...)
	_ = c.answerLocked(&out) // the reader sees a failure too
}

// The reader calls takeBack when something has arrived while a poll was parked, or when the client sends no more.
// takeBack waits for a write that is under way. It reports true when the poll had no answer yet, and has then ended its
// attach.
func (c *pollConn) takeBack(ended bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parked == nil {
		return false
	}
	a := c.parked
	if c.poll.end(false) {
		if c.parked = nil; ended {
			c.b.countItems(c.poll.items) // a gap that waited for its message
			out := c.poll.answer()
			_ = c.answerLocked(&out) // nobody may be there to get the empty answer
		}
		return true
	}
	c.refuseLocked(a.ending.Load().refusal)
	return false
}

// finish tells the client why its parked poll has ended.
func (c *pollConn) finish(a *attach) {
	defer c.rescue(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parked == a {
		c.refuseLocked(a.ending.Load().refusal)
	}
}

// dismissLocked answers a parked poll before its connection is closed. While an answer is under way drain closes the
// connection.
func (c *pollConn) dismissLocked(why *refusal) {
	c.closed = true
	if c.parked == nil {
		return
	}
	if a := c.parked; !c.poll.end(false) && a.ending.Load() != nil {
		why = a.ending.Load().refusal
	}
	c.refuseLocked(why, field{"Connection", "close"})
}

// rescue is deferred in a goroutine that answers a.
func (c *pollConn) rescue(a *attach) {
	if v := recover(); v != nil {
		c.b.logPanic("a goroutine of a connection", v)
		if a.ending.Load() != nil { // the panic came while telling its end
			c.shut()
			return
		}
		a.end(endInternal)
	}
}

// rescueDrain is deferred in drain. An answer that did not go out whole ends its connection.
func (c *pollConn) rescueDrain() {
	if v := recover(); v != nil {
		c.b.logPanic("a goroutine of a connection", v)
		c.shut()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.stalled.Load() { // else it had ended before
			c.drainedLocked()
		}
	}
}
