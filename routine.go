package gpoll

import (
	"runtime"
	"slices"
	"sync"
	"time"
)

// A routine is a shard: one goroutine that walks the log and hands each message to its clients, at most
// RoutineMaxClients. It takes all that is new as one batch and never waits for a client.
//
// Lock order: stream.mu, routine.mu, registry.mu, then one of presenceBook.mu, topicIndex.mu, messageLog.mu, group.mu
// and the counters'. A goroutine that holds any of them but stream.mu does not wait.
type routine struct {
	b  *Broadcaster
	id int

	logReader
	stop chan struct{}

	count int // clients, guarded by registry.mu

	mu       sync.Mutex // guards the fields below, and the clients' where client.go says so
	clients  []*Client
	hot      []hotClient             // of clients, in their order
	topics   map[string]*subscribers // also of patterns
	at       Position                // everything up to here has been offered to the clients
	before   Position                // at, as it was before the last round
	round    uint64
	patterns patternTree[subscribers] // those of topics

	// Only the routine's goroutine touches these.
	*scratch             // while it hands out
	reached  Position    // everything up to here has been taken from the log
	beats    []*attach   // overdue, of carriers that owe a sign of life
	expired  []*attach   // overdue, of carriers that are answered in a round
	timer    *time.Timer // of gather; nil: none yet
	wrote    moment      // how long the last round wrote to sockets; 0: to few, or to none
	wroteAt  moment      // when that round was over
}

func newRoutine(b *Broadcaster, id int) *routine {
	r := &routine{
		b:         b,
		id:        id,
		logReader: newLogReader(),
		stop:      make(chan struct{}),
		topics:    map[string]*subscribers{},
	}
	r.at = b.messages.join(&r.logReader)
	r.reached = r.at
	return r
}

// run is the routine's goroutine. It ends when stop is closed: when the last client has gone.
func (r *routine) run() {
	defer r.b.messages.leave(&r.logReader)
	tick := time.NewTicker(r.b.set.tick)
	defer tick.Stop()
	for {
		select {
		case <-r.signal:
			if d := r.pause(); d > 0 && !r.gather(d) {
				return
			}
			r.fanOut()
		case <-tick.C:
			r.fanOut() // also records for none of the clients: their scanned Position moves
			r.sweep(r.b.now())
		case <-r.stop:
			return
		}
	}
}

// longestPause bounds the time for which a message waits for others while a routine is busy.
const longestPause = moment(time.Millisecond)

// pause returns for how long messages gather before the next round: SyncDelayMs. Where that is 0, a round that closely
// follows one which wrote to many sockets waits for a quarter of that one's time, 1 ms at most. Publishers and the
// network get the processor meanwhile. What they bring goes out in one write for each socket.
func (r *routine) pause() time.Duration {
	if d := r.b.set.syncDelay; d > 0 {
		return d
	}
	if r.wrote == 0 || r.b.now()-r.wroteAt > r.wrote/2 {
		return 0
	}
	return time.Duration(min(r.wrote/4, longestPause))
}

// gather lets messages come together for that long, or until a publisher waits for room.
func (r *routine) gather(d time.Duration) bool {
	if r.timer == nil {
		r.timer = time.NewTimer(d)
	} else {
		r.timer.Reset(d)
	}
	defer r.timer.Stop()
	// Drop a token from before: full says whether a publisher waits now.
	select {
	case <-r.hurry:
	default:
	}
	if r.b.messages.full(&r.logReader) {
		return true
	}
	select {
	case <-r.timer.C:
	case <-r.hurry:
	case <-r.stop:
		return false
	}
	return true
}

// fanOut hands everything new to the clients: one round.
func (r *routine) fanOut() {
	defer r.rescue(r.at)
	// As many routines hand out at a time as there are processors. Between two of them the publishers get the processor:
	// what they bring goes out with this batch.
	r.scratch = <-r.b.turns
	runtime.Gosched()
	r.batch, r.reached = r.b.messages.take(&r.logReader, r.batch)
	r.offer(r.batch, r.reached)
	r.writeInline()
	r.writeAnswers()
	for _, c := range r.overfull {
		r.b.remove(c, endBufferFull)
	}
	if r.sent > 0 {
		r.b.delivered.Add(r.sent)
	}
	r.endTurn()
}

// offer hands a batch to the clients. It collects what goes to a socket; the routine writes that when mu is free again.
func (r *routine) offer(batch []*record, at Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case at.Epoch != r.at.Epoch:
		for _, c := range r.clients {
			r.restartLocked(c)
		}
		r.before, r.at = r.at, at
	case len(batch) > 0:
		r.before, r.at = r.at, at
		r.offerLocked(batch)
	}
}

// endTurn lets another routine hand out.
func (r *routine) endTurn() {
	r.reset()
	r.b.turns <- r.scratch
	r.scratch = nil
}

// newer returns the records of recs that come after seq.
func newer(recs []*record, seq uint64) []*record {
	for len(recs) > 0 && recs[0].pos.Seq <= seq {
		recs = recs[1:]
	}
	return recs
}

// whole reports whether there is no hole of the broker in recs.
func whole(recs []*record) bool {
	return !slices.ContainsFunc(recs, func(rec *record) bool { return rec.hole != nil })
}

// emptied returns s without its elements; its memory stays.
func emptied[T any](s []T) []T {
	clear(s)
	return s[:0]
}

// restartLocked makes a client read the log, which tells it of the new epoch.
func (r *routine) restartLocked(c *Client) {
	if h := c.hot(); h.mode >= queued {
		h.by.leave(r, c)
	}
}

// offerLocked hands a batch to the clients: to all of them in order when there is a message for everyone, else to the
// addressees alone.
func (r *routine) offerLocked(batch []*record) {
	r.round++
	for _, rec := range batch {
		switch rec.to.kind {
		case kindAll:
			for _, id := range rec.except {
				if c := r.member(id); c != nil {
					r.address(c, dueRecord{skip: int32(len(r.everyone))})
				}
			}
			r.everyone = append(r.everyone, rec)
		case kindTopic:
			if s := r.topics[rec.to.name]; s != nil {
				for _, m := range s.members {
					r.addressUnless(m.client, rec)
				}
			}
			if r.patterns.len > 0 {
				r.addressMatching(rec)
			}
		case kindClient:
			if c := r.member(rec.to.name); c != nil {
				r.addressUnless(c, rec)
			}
		case kindUser:
			for _, c := range r.b.clients.ofUser(rec.to.name) {
				if c.routine == r && !c.removed {
					r.addressUnless(c, rec)
				}
			}
		}
	}
	if len(r.everyone) == 0 {
		for _, c := range r.touched {
			if c.hot().mode >= counting {
				r.offerMixed(c)
			}
		}
		return
	}
	first, last := r.everyone[0].pos.Seq, r.everyone[len(r.everyone)-1]
	whole := whole(r.everyone)
	single := whole && len(r.everyone) == 1
	data, sent := last.data, uint64(0) // in registers: memory would be read again for each client
	for i := range r.hot {
		h := &r.hot[i]
		switch {
		case h.mode < counting:
		case h.round == r.round:
			r.offerMixed(r.clients[i])
		case h.mode == inline && whole && h.from < first:
			r.collect(h, r.pieceForEveryone(h.form))
		case h.mode == direct && single && h.from < first:
			select {
			case h.direct <- data:
				sent++
			default:
				r.offerTo(r.clients[i], r.everyone)
			}
		default:
			r.offerTo(r.clients[i], r.everyone)
		}
	}
	r.sent += sent
}

// settled waits until the present batch has been handed out, and returns its end.
func (r *routine) settled() Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

// member returns the routine's client with that public id, or nil.
func (r *routine) member(publicID string) *Client {
	key, ok := parseKey(publicID)
	if !ok {
		return nil
	}
	c := r.b.clients.get(key)
	if c == nil || c.routine != r || c.removed {
		return nil
	}
	return c
}

func (r *routine) addressUnless(c *Client, rec *record) {
	if len(rec.except) > 0 && rec.excepts(c.public) {
		return
	}
	r.address(c, dueRecord{rec: rec, before: int32(len(r.everyone))})
}

// address adds d to the records addressed to c in this round.
func (r *routine) address(c *Client, d dueRecord) {
	d.next = -1
	i := int32(len(r.due))
	r.due = append(r.due, d)
	if h := c.hot(); h.round != r.round {
		h.round, c.first = r.round, i
		r.touched = append(r.touched, c)
	} else {
		r.due[c.end].next = i
	}
	c.end = i
}

// offerMixed merges the records addressed to c with those for everyone.
func (r *routine) offerMixed(c *Client) {
	merged := r.merged[:0]
	done := int32(0)
	for i := c.first; i >= 0; i = r.due[i].next {
		d := &r.due[i]
		if d.rec == nil {
			merged = append(merged, r.everyone[done:d.skip]...)
			done = d.skip + 1
			continue
		}
		merged = append(merged, r.everyone[done:d.before]...)
		merged = append(merged, d.rec)
		done = d.before
	}
	merged = append(merged, r.everyone[done:]...)
	r.merged = merged
	if len(merged) > 0 {
		r.offerTo(c, merged)
	}
}

// offerTo hands messages to one client.
func (r *routine) offerTo(c *Client, recs []*record) {
	switch h := c.hot(); {
	case h.mode == counting:
		r.countLocked(c, recs)
	default:
		h.by.offer(r, c, recs)
	}
}

// countLocked counts messages for a client that is expected to poll for them. When they are too many it has the client
// removed.
func (r *routine) countLocked(c *Client, recs []*record) {
	if c.kept == nil {
		c.kept = &keptCursor{}
	}
	for _, rec := range recs {
		c.kept.backlog++
		c.kept.bytes += rec.size()
	}
	if c.kept.backlog > r.b.set.clientBuffer || c.kept.bytes > r.b.set.clientBytes {
		c.removed = true // an attach from here on is too late
		r.overfull = append(r.overfull, c)
	}
}

// lag makes a client that cannot keep up read on from the log. With DisconnectSlow it ends a stream instead.
func (r *routine) lag(c *Client) {
	if r.b.DisconnectSlow && c.attach.transport != longPoll {
		r.endLocked(c.attach, endSlow)
		return
	}
	c.lagLocked()
}
