package gpoll

// A carrier brings the routine's messages to one attach. There are four: handler, a goroutine that takes from the
// attach's queue; channelSink, through which the routine sends on a channel; streamConn, through which it writes to a
// socket; and pollConn, through which it answers a poll on a connection of Listener. The routine and the attach know
// only this interface.
//
// The caller of each method but perform, inform and overdue holds the routine's mu. No method waits. c is the client
// that the attach belongs to.
type carrier interface {
	// take lets the routine carry the client on from its attach's cursor: the routine will offer everything behind it.
	// take fills in h.by, h.mode and what else h says of the carrier. With mode queued the goroutine stays.
	take(c *Client, h *hotClient)

	// pending reports whether something that is no message has to be written before the routine may carry the client.
	pending() bool

	// offer brings messages and holes in their order. The client is not owed those up to h.from. When the carrier can take
	// no more, a goroutine reads on from the log.
	offer(r *routine, c *Client, recs []*record)

	// perform does op and answers it if the routine carries the client and can go on. It reports whether it did. perform
	// takes the routine's mu itself, after the lock of a socket.
	perform(op *operation) bool

	// inform tells the client of a, which watches, who has come and gone, if the routine carries the client and can go on.
	// It reports whether it did. inform takes the routine's mu itself, after the lock of a socket.
	inform(a *attach) bool

	// leave lets a goroutine read on from the log, for a new epoch or for something that is no message.
	leave(r *routine, c *Client)

	// reached takes the client from the routine that carries it. It returns the cursor at which an attach without one goes
	// on.
	reached(r *routine, c *Client) Position

	// elapsed is called when the attach's time has come: a poll is over, or a sign of life is owed. It may put a into
	// r.beats or r.expired.
	elapsed(r *routine, a *attach)

	// overdue is called afterwards, without the routine's mu, for an attach that elapsed has put there. For one of
	// r.expired the routine has its turn: overdue collects an answer.
	overdue(r *routine, a *attach, now moment)

	// ended is called when the attach has been ended from outside. was is the mode that it had.
	ended(r *routine, a *attach, was mode, why *ending)
}

// carried reports whether the routine carries the client without a goroutine.
func (m mode) carried() bool { return m > queued }

// A handler is an attach that a goroutine of its own carries: it takes what the routine queues (next and ready).
type handler attach

func (q *handler) take(c *Client, h *hotClient) {
	h.by, h.mode = q, queued
	if a := (*attach)(q); a.queue == nil {
		a.queue = make(chan *record, a.queueSize())
		c.queue = a.queue
	}
}

func (*handler) pending() bool { return false }

// offer queues recs. When the queue is full the client lags from there on.
func (q *handler) offer(r *routine, c *Client, recs []*record) {
	from := c.hot().from
	for _, rec := range recs {
		if rec.pos.Seq > from && !(*attach)(q).enqueue(rec) {
			r.lag(c)
			return
		}
	}
}

func (*handler) perform(*operation) bool { return false }

func (*handler) inform(*attach) bool { return false }

func (q *handler) leave(_ *routine, c *Client) { c.lagLocked() }

func (*handler) reached(_ *routine, c *Client) Position { return c.cursor }

func (*handler) elapsed(_ *routine, a *attach) {
	if a.later != nil && a.later.elapsed(a) {
		return
	}
	a.due, a.isDue = 0, true
	a.wake()
}

func (*handler) overdue(*routine, *attach, moment) {}

// ended leaves the end to the goroutine: next reports it.
func (*handler) ended(_ *routine, a *attach, _ mode, _ *ending) {
	if a.later != nil {
		a.later.age(a)
	}
}

// enqueue queues rec for the attach's goroutine, if there is room.
func (a *attach) enqueue(rec *record) bool {
	set := &a.client.routine.b.set
	size := rec.size()
	heavy := size > set.heavy
	if heavy && a.heavy.Add(int64(size)) > int64(set.clientBytes) {
		a.heavy.Add(-int64(size))
		return false
	}
	select {
	case a.queue <- rec:
		return true
	default:
		return false
	}
}
