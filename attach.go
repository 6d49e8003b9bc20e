package gpoll

import (
	"errors"
	"sync/atomic"
	"time"
)

// A transport is how an attach carries messages.
type transport uint8

const (
	longPoll transport = iota
	sse
	webSocket
	channel
	transportCount
)

func (t transport) String() string {
	return [...]string{"long-poll", "sse", "websocket", "channel"}[t]
}

// An attach is one poll, SSE response, WebSocket or GetChannel of a client. A client has one at most: the newest.
//
// hotClient.mode says who carries the client on. A goroutine that serves the attach calls ready or next. They read the
// log until the attach has caught up with the routine, and then take what the routine queues. When the queue overflows
// they read the log again.
type attach struct {
	client    *Client
	transport transport
	implicit  bool  // a poll without cursor: the server keeps the cursor
	verified  bool  // see below; the flags stand together, for there is an attach for each client
	isDue     bool  // likewise
	answering bool  // likewise
	watches   bool  // the presence of topics; guarded by the routine's mu
	watchDue  bool  // there may be news of it; likewise
	asks      bool  // its form has a place for what the server asks
	narrow    uint8 // the client's, when the attach began

	// Only the goroutine that serves the attach touches these and verified, which says that up to cursor everything that
	// want is owed was read from the log or offered by the routine. A command also touches want while the routine
	// carries the client.
	want     interest
	cursor   Position // all owed up to here has been returned by next
	backfill []item   // goes out before everything else
	queue    chan *record
	head     *record // received from queue but not returned yet

	heavy  atomic.Int64 // bytes of large messages in queue
	ending atomic.Pointer[ending]

	// Guarded by the routine's mu, as are isDue, which says that due has come, and answering: see unanswered.
	over    chan struct{} // closed when the attach has ended; nil while nobody waits for that
	due     moment        // when the poll ends, or the next heartbeat is owed; 0: never
	ops     []operation   // in their order
	room    chan struct{} // closed when there may be room for another operation; nil while nobody waits for that
	expires moment        // when Authorize is asked again; 0: never

	by carrier // brings the messages

	later *deadlines // of a poll that may leave them alone; nil: it has lifted them

	grantee *grantee // nil without Authorize; replaced when it is renewed
}

func (b *Broadcaster) limitReplay() replay { return replay{b.set.replayCount, b.set.replayBytes} }

// wake lets the goroutine that waits in next look around. A full queue needs no wake-up: nobody waits for it.
func (a *attach) wake() {
	if a.queue == nil {
		return
	}
	select {
	case a.queue <- nil:
	default:
	}
}

// attendLocked has the attach's goroutine look around. Where the routine carries the client it starts that goroutine.
func (a *attach) attendLocked() {
	c := a.client
	switch {
	case c.attach != a:
	case c.hot().mode.carried():
		a.by.leave(c.routine, c)
	default:
		a.wake()
	}
}

// attachOptions is what an attach brings.
type attachOptions struct {
	transport transport
	cursor    Position // zero: the server's
	named     []string // topics
	last      int
	due       time.Duration // from now; 0: never
	grantee   *grantee
	by        carrier // nil: a goroutine of its own
	arrived   uint64  // of Broadcaster.arrivals
	gentle    bool    // ends no other attach
	keeps     bool    // the client's topics: there is no request that could name any
	asks      bool    // the form has a place for what the server asks
	asked     uint64  // see request.asked
	later     *deadlines
	watch     *watchRequest // nil: no presence
	memory    *attach       // unless others ended the attach that was in it before; nil: the attach gets its own
}

var (
	// errAttached is what a gentle open returns when there is another attach.
	errAttached = errors.New("gpoll: the client is attached")

	// errOvertaken is what open returns for a request that arrived before the newest attach.
	errOvertaken = errors.New("gpoll: a later attach has been there")
)

// open attaches to c. The older attach, if any, ends with "superseded". Of two requests the one that arrived later
// wins, whichever calls open first. The error is ErrUnknownClient when c has been removed, errAttached or errOvertaken.
func (c *Client) open(o *attachOptions) (*attach, error) {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	return c.openLocked(o)
}

func (c *Client) openLocked(o *attachOptions) (*attach, error) {
	r := c.routine
	b := r.b
	due := moment(0)
	if o.due > 0 {
		due = b.now() + moment(o.due)
	}
	switch {
	case c.removed:
		return nil, ErrUnknownClient
	case o.arrived < c.newest:
		return nil, errOvertaken
	case c.attach != nil && o.gentle:
		return nil, errAttached
	}
	c.newest = o.arrived
	a := o.memory
	if a == nil || a.ending.Load() != nil { // the goroutine that ended it may still look at it
		a = new(attach)
	}
	*a = attach{client: c, transport: o.transport, cursor: o.cursor, grantee: o.grantee, by: o.by, later: o.later,
		due: due, narrow: c.narrow, asks: o.asks}
	if a.by == nil {
		a.by = (*handler)(a)
	}
	if g := o.grantee; g != nil && o.transport != longPoll {
		a.expires = b.momentOf(g.grant.Expires)
	}
	fresh := without(o.named, c.topics)
	if c.attach != nil {
		r.endLocked(c.attach, endSuperseded)
	}
	if !o.keeps {
		c.setTopicsLocked(o.named, o.grantee.given())
		c.informLocked(o.grantee)
	}
	if o.cursor.IsZero() {
		a.implicit = o.transport == longPoll
		var k keptCursor
		switch {
		case c.kept != nil:
			k = *c.kept
		case a.implicit:
			c.kept = &keptCursor{}
		}
		if !k.sent.IsZero() { // this poll acknowledges the last response
			c.cursor = k.sent
			k.backfill = k.backfill[k.backSent:]
		}
		a.cursor = c.cursor
		if o.last > 0 && len(fresh) > 0 {
			k.backfill = b.backfillLocked(c, fresh, o.last)
		}
		a.backfill = k.backfill
		if a.implicit {
			*c.kept = keptCursor{backfill: k.backfill}
		}
	} else {
		c.cursor = o.cursor
	}
	if !a.implicit {
		c.kept = nil
	}
	a.want = c.interestLocked()
	if cap(c.queue) != a.queueSize() {
		c.queue = nil // it was made for another transport
	}
	a.queue = c.queue
	present := c.presentLocked()
	c.attach, c.attached = a, true
	if !present {
		c.appearLocked()
	}
	if o.watch != nil || c.watches {
		c.watchLocked(a, o.watch)
	}
	c.hot().mode = reading
	c.scheduleLocked()
	a.askAgainLocked(o)
	b.attachCount[o.transport].Add(1)
	return a, nil
}

// queueSize is the length of the queue that the attach needs.
func (a *attach) queueSize() int {
	if a.transport == longPoll {
		return 1 // it is answered once; messages that come at the same time are read from the log
	}
	return a.client.routine.b.set.clientBuffer
}

// backfillLocked returns the newest messages of topics, up to the client's cursor. Reading on from the cursor brings
// the later ones, and all of an epoch that is not the cursor's.
func (b *Broadcaster) backfillLocked(c *Client, topics []string, last int) []item {
	want := c.interestLocked()
	items, end := b.messages.newest(topics, last, &want, b.limitReplay(), nil)
	if end.Epoch != c.cursor.Epoch {
		return nil
	}
	for len(items) > 0 && items[len(items)-1].pos.Seq > c.cursor.Seq {
		items = items[:len(items)-1]
	}
	return items
}

// close ends a stream's attach from its own side, see closeLocked. why is nil or what Stats counts.
func (a *attach) close(cursor Position, why *ending) bool {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	return a.closeLocked(cursor, Position{}, 0, why)
}

// closeLocked ends the attach from its own side. cursor is how far its reader certainly got. sent is the end of the
// response that the next poll without cursor acknowledges; zero: none. When the attach has ended already it does
// nothing and reports false.
func (a *attach) closeLocked(cursor, sent Position, backSent int, why *ending) bool {
	c := a.client
	r := c.routine
	if c.attach != a {
		return false
	}
	r.detachLocked(a, why)
	c.cursor = cursor
	if a.implicit {
		c.hot().mode = counting
		c.kept.sent, c.kept.backSent = sent, backSent
	}
	if len(c.queue) > 0 || a.heavy.Load() != 0 {
		c.queue = nil // what it holds is read from the log again
	}
	return true
}

// What next returns beside items.
type event uint8

const (
	gotItems      event = iota
	gotDue              // the poll's time is over, or a heartbeat is owed
	gotOp               // attach.ops is not empty
	gotPresence         // there may be news of who is present
	gotStall            // the stream holds bytes that are no data of the log
	gotHandedOver       // the routine carries on; the goroutine ends
	gotEnd              // attach.ending says why
	gotNothing          // wait for the queue
)

// next is ready for a goroutine that may wait. It returns when there are items, or when the attach is due, has
// something to do or has ended.
func (a *attach) next(max replay, dst []item) (items []item, ev event) {
	for {
		if items, _, ev = a.ready(max, dst); ev != gotNothing {
			return items, ev
		}
		a.head = <-a.queue
	}
}

// ready returns what is owed after the attach's cursor: gaps and messages in order, appended to dst, at most max. more
// says that further items are there already. Afterwards a.cursor is the scanned Position. When there is nothing the
// caller waits for the queue, puts what it received into a.head and calls again. Only the goroutine that serves the
// attach calls it.
func (a *attach) ready(max replay, dst []item) (items []item, more bool, ev event) {
	for {
		if a.ending.Load() != nil {
			return dst, false, gotEnd
		}
		if items, more = a.drain(dst, max); len(items) > len(dst) {
			return items, more, gotItems
		}
		ev, read := a.step()
		if !read {
			return dst, false, ev
		}
		items, a.cursor, more = a.client.routine.b.messages.read(a.cursor, &a.want, max, dst)
		a.verified = true
		if len(items) > len(dst) {
			return items, more, gotItems
		}
	}
}

// step decides what to do when nothing is queued: read the log, report an event, or (neither) wait for the queue.
func (a *attach) step() (ev event, read bool) {
	c := a.client
	r := c.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.answering {
		a.answering = false
		a.roomLocked()
	}
	if c.attach != a {
		return gotEnd, false
	}
	if a.transport != longPoll {
		c.cursor = a.cursor // what next returned before has been written
	}
	h := c.hot()
	switch {
	case len(a.ops) > 0:
		return gotOp, false
	case a.by.pending():
		return gotStall, false
	case a.watchDue && (a.transport != longPoll || h.mode == queued || a.caughtUpLocked()):
		return gotPresence, false // a poll answers with the messages that are there, too
	case len(a.queue) > 0:
		return gotNothing, false // the wait returns at once
	case h.mode == queued:
		if a.cursor.Seq < r.at.Seq {
			a.cursor = r.at // all that was offered has been taken from the queue
		}
	case a.caughtUpLocked() && a.isDue: // before the routine has it
		a.isDue = false
		return gotDue, false
	case a.caughtUpLocked():
		h.from = a.cursor.Seq
		if a.by.take(c, h); h.mode.carried() {
			return gotHandedOver, false
		}
	default:
		return gotNothing, true
	}
	if a.isDue {
		a.isDue = false
		return gotDue, false
	}
	return gotNothing, false
}

// caughtUpLocked reports whether the routine can take over at the attach's cursor: everything up to r.at has been read,
// and everything behind it will be offered. It is not enough that r.at is not behind the cursor: the log may hold
// messages of a topic that was named just now, for which the routine was not woken.
func (a *attach) caughtUpLocked() bool {
	r := a.client.routine
	if len(a.backfill) > 0 || a.cursor.Epoch != r.at.Epoch || a.cursor.Seq < r.at.Seq {
		return false
	}
	return a.verified || a.cursor == r.b.messages.end() // behind which there is nothing to read
}

// drain appends what is queued to dst, at most max, without waiting.
func (a *attach) drain(dst []item, max replay) (items []item, more bool) {
	if n := len(a.backfill); n > 0 {
		n = min(n, max.count)
		dst = append(dst, a.backfill[:n]...)
		a.backfill = a.backfill[n:]
		return dst, len(a.backfill) > 0
	}
	had, bytes := len(dst), 0
	if rec := a.head; rec != nil {
		a.head = nil
		a.client.routine.settled() // its batch stays together
		bytes = rec.size()
		dst = a.take(rec, dst)
	}
	for range len(a.queue) {
		if len(dst)-had >= max.count {
			return dst, true
		}
		rec := <-a.queue
		if rec == nil { // a wake-up
			continue
		}
		if bytes += rec.size(); len(dst) > had && bytes > max.bytes {
			a.head = rec // for the next answer
			return dst, true
		}
		dst = a.take(rec, dst)
	}
	return dst, false
}

// take appends a record from the queue to dst and moves the cursor behind it.
func (a *attach) take(rec *record, dst []item) []item {
	if size := rec.size(); size > a.client.routine.b.set.heavy {
		a.heavy.Add(-int64(size))
	}
	a.cursor = rec.pos
	if rec.hole != nil {
		return append(dst, item{gap: rec.hole, pos: rec.pos})
	}
	return append(dst, item{rec: rec, pos: rec.pos})
}

// touch sets when the attach is due next.
func (a *attach) touch(d time.Duration) {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	a.due = r.b.now() + moment(d)
	if a.client.attach == a {
		a.client.scheduleLocked()
	}
}

// attachOver returns a channel that is closed when c's attach ends; nil when there is none.
func (c *Client) attachOver() <-chan struct{} {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	a := c.attach
	if a == nil {
		return nil
	}
	if a.over == nil {
		a.over = make(chan struct{})
	}
	return a.over
}

// overLocked lets giveWay go on.
func (a *attach) overLocked() {
	if a.over != nil {
		close(a.over)
		a.over = nil
	}
}
