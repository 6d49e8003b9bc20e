package gpoll

import (
	"net/http"
	"sync"
	"time"
)

// A poll is one request that waits for what its client is owed.
type poll struct {
	attach *attach
	json   bool
	after  Position // of an explicit cursor

	started Position // cursor at the beginning
	owed    int      // backfill at the beginning
	items   []item
	more    bool
	asks    []byte // what the server asks, as elements of JSON
}

// refuseAttached is what a gentle beginPoll returns when there is another attach. Nobody hears it.
var refuseAttached = &refusal{}

// beginPoll attaches a client by a poll. by is nil where its handler waits and answers; later is nil where deadlines
// are not left alone; attachOptions explains gentle and memory.
func (b *Broadcaster) beginPoll(p *poll, req *request, arr *arrival, by carrier, gentle bool, memory *attach,
	later *deadlines) *refusal {
	var o attachOptions
	arr.options(req, &o)
	o.transport, o.due, o.by, o.gentle, o.memory = longPoll, jitter(b.set.pollWait), by, gentle, memory
	if g := arr.grantee; g != nil && !g.grant.Expires.IsZero() {
		o.due = max(min(o.due, time.Until(g.grant.Expires)), time.Millisecond) // the next poll asks Authorize
	}
	if later != nil {
		o.later, o.due = later, later.until(o.due, b.set.youth)
	}
	a, err := arr.client.open(&o)
	switch err {
	case nil:
	case errAttached:
		return refuseAttached
	default:
		return b.refusalOf(err)
	}
	*p = poll{attach: a, json: req.json, after: req.after, started: a.cursor, owed: len(a.backfill), items: p.items}
	return nil
}

// maxPlainGaps is how many gaps wait for a message. They fit a response's head everywhere.
const maxPlainGaps = 32

// limit bounds one answer. In the plain form the first message ends it.
func (p *poll) limit() replay {
	limit := p.attach.client.routine.b.limitReplay().narrowed(p.attach.narrow)
	if !p.json {
		limit.count = 1
	}
	return limit
}

// ready reports gotItems when there is something to answer with, gotDue for an empty answer, and otherwise the event of
// attach.ready.
func (p *poll) ready() event {
	limit := p.limit()
	for {
		items, more, ev := p.attach.ready(limit, p.items)
		if ev == gotHandedOver {
			return ev // the poll is the routine's from here on
		}
		if ev == gotOp {
			if p.asks = p.attach.operate(p.asks); len(p.asks) == 0 {
				continue // new topics, which Client.Subscribe brings
			}
		}
		p.items, p.more = items, more
		if ev == gotPresence && !p.attach.hasNews() {
			continue
		}
		if ev == gotItems && !p.json && p.items[len(p.items)-1].gap != nil && len(p.items) < maxPlainGaps {
			continue // in the plain form a gap waits for the message that it stands before
		}
		return ev
	}
}

// answer is one message in the plain form, a batch in JSON.
func (p *poll) answer() answer {
	if p.json {
		var news []byte
		if p.attach.watches {
			news = p.attach.client.routine.b.present.news(p.attach).json
		}
		return batchAnswer(p.attach.client.ID(), p.items, p.attach.cursor, p.more, p.asks, news)
	}
	return plainAnswer(p.items, p.attach.cursor)
}

// endLocked ends the attach of a poll. written says that its answer went out, as far as can be known.
func (p *poll) endLocked(written bool) bool {
	a := p.attach
	switch {
	case !a.implicit:
		return a.closeLocked(p.after, Position{}, 0, nil)
	case !written:
		return a.closeLocked(p.started, Position{}, 0, nil) // the same again for the next poll
	default:
		return a.closeLocked(p.started, a.cursor, p.owed-len(a.backfill), nil)
	}
}

func (p *poll) end(written bool) bool {
	r := p.attach.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	if written && len(p.items) > 0 {
		p.attach.client.wholeLocked()
	}
	if s := p.attach.client.sess.Load(); written && len(p.asks) > 0 {
		s.told = s.offered
	}
	return p.endLocked(written)
}

// A waitingPoll is a poll whose handler waits and answers. All that it needs for that is one piece of memory.
type waitingPoll struct {
	poll
	w     http.ResponseWriter
	r     *http.Request
	claim *claim
	later deadlines
	late  *time.Timer // ends the attach as slow; nil: the deadline does. See beforePiece
	own   attach      // poll.attach
	first [1]item     // where poll.items begins; most polls are answered with one
	alone bool        // nobody else knows the poll any more
}

// waitingPolls are the memory of polls that have been answered.
var waitingPolls = sync.Pool{New: func() any { return new(waitingPoll) }}

// free gives the memory of a poll that is over to the next one.
func (p *waitingPoll) free() {
	if p.alone && p.own.ending.Load() == nil { // the goroutine that ended it may still look at it
		*p = waitingPoll{}
		waitingPolls.Put(p)
	}
}

// admitPoll answers a registration or a refusal itself, and returns the poll that has to wait, or nil.
func (b *Broadcaster) admitPoll(w http.ResponseWriter, r *http.Request) *waitingPoll {
	var req request
	if !b.admit(w, r, &req) {
		return nil
	}
	p, refused := b.openPoll(w, r, &req)
	b.refuseIf(w, r, refused)
	return p
}

func (b *Broadcaster) openPoll(w http.ResponseWriter, r *http.Request, req *request) (*waitingPoll, *refusal) {
	k := b.claim(r, req)
	arr, refused := b.arrive(r, req)
	if refused != nil {
		return nil, refused
	}
	if arr.registered {
		b.answerRegistration(w, r, arr.client, req.json)
		k.over(canStream(w) && http.NewResponseController(w).Flush() == nil)
		return nil, nil
	}
	if refused := b.meet(arr.client, r); refused != nil {
		return nil, refused
	}
	p := waitingPolls.Get().(*waitingPoll)
	p.w, p.r, p.claim, p.items = w, r, k, p.first[:0]
	later := (*deadlines)(nil)
	if p.later.conn = b.deadlinesLater(w, r); p.later.conn != nil {
		later = &p.later
	}
	refused = b.beginPoll(&p.poll, req, &arr, nil, true, &p.own, later)
	if refused == refuseAttached {
		if !arr.client.giveWay(r.Context().Done()) {
			b.answerInPassing(w, r, req, &arr)
			k.over(false)
			return nil, nil
		}
		refused = b.beginPoll(&p.poll, req, &arr, nil, false, &p.own, later)
	}
	if refused != nil {
		return nil, refused
	}
	if later == nil {
		// The server's own time-outs are for requests that do not wait. Behind a wrapper without Unwrap they stay in force.
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Time{})
		_ = rc.SetWriteDeadline(time.Time{})
	}
	return p, nil
}

// answerInPassing answers a poll whose sender has stopped sending while another attach has the client: with the
// messages that are there, and without an attach. If the sender has gone altogether, nobody hears the answer, and the
// other attach, which may be its own, goes on.
func (b *Broadcaster) answerInPassing(w http.ResponseWriter, r *http.Request, req *request, arr *arrival) {
	p := poll{attach: &attach{client: arr.client}, json: req.json}
	p.items, p.attach.cursor, p.more = b.readInPassing(arr, req.after, p.limit())
	out := p.answer()
	_ = b.writeAnswer(w, r, &out, &everyPiece{w, b.set.writeTimeout}) // it may have gone
	b.countItems(p.items)
}

// serve waits for what the client is owed, and answers. It waits on a small stack: its other work is in functions of
// their own.
func (p *waitingPoll) serve() {
	var done <-chan struct{}
	for !p.proceed() {
		if done == nil {
			done = p.r.Context().Done() // net/http makes the channel at the first call
		}
		select {
		case rec := <-p.attach.queue:
			p.attach.head = rec
		case <-done:
			p.write() // a client that has only stopped sending gets an empty answer
			return
		}
	}
}

// proceed answers if there is something to answer, and reports whether it did.
func (p *waitingPoll) proceed() bool {
	switch p.ready() {
	case gotNothing:
		p.later.lift()
		return false
	case gotEnd:
		b := p.attach.client.routine.b
		_ = http.NewResponseController(p.w).SetWriteDeadline(time.Now().Add(b.set.writeTimeout)) // as in write
		b.refuse(p.w, p.r, p.attach.ending.Load().refusal)
	default:
		p.write()
	}
	return true
}

// write answers.
func (p *waitingPoll) write() {
	b := p.attach.client.routine.b
	p.later.write()
	if p.r.TLS != nil || p.r.ProtoMajor > 1 {
		a := p.attach
		p.late = b.after(b.set.writeTimeout, func() { a.end(endSlow) })
	}
	out := p.answer()
	p.claim.watch(&out)
	answering := &p.attach.client.answering
	answering.Store(true)
	// Asked before the answer goes out: curl and some proxies close the connection as soon as they have the answer.
	gone := p.r.Context().Err() != nil
	err := b.writeAnswer(p.w, p.r, &out, p)
	if err == nil && canStream(p.w) {
		err = http.NewResponseController(p.w).Flush()
	}
	written := err == nil && !gone
	p.end(written)
	if p.late != nil && !p.late.Stop() {
		p.alone = false // it still looks at the attach
	}
	if err != nil {
		p.attach.client.cut()
	}
	answering.Store(false)
	b.countItems(p.items)
	p.claim.settle(p, &out, written)
}

// beforePiece implements deadlineSetter. Behind a wrapper without Unwrap the server's own time-out stays in force, and
// nobody says whether the write went out. Over TLS, net/http says goodbye for 5 s after the deadline; over HTTP/2 a
// write returns only when the connection takes it. So a timer ends the attach there.
func (p *waitingPoll) beforePiece() {
	if p.late != nil {
		p.late.Reset(p.attach.client.routine.b.set.writeTimeout)
	}
	if p.later.conn != nil && p.later.state.Load() == writing {
		return // a guard will set a deadline when the answer takes long
	}
	timeout := p.attach.client.routine.b.set.writeTimeout
	_ = http.NewResponseController(p.w).SetWriteDeadline(time.Now().Add(timeout))
}

// end is poll.end. It leaves the connection to net/http.
func (p *waitingPoll) end(written bool) {
	p.alone = p.later.end()
	p.poll.end(written)
}

// answerRegistration tells a new client its id.
func (b *Broadcaster) answerRegistration(w http.ResponseWriter, r *http.Request, c *Client, json bool) {
	r0 := c.routine
	r0.mu.Lock()
	cursor, items := c.cursor, []item(nil)
	if c.kept != nil {
		items = c.kept.backfill
	}
	if json { // the answer carries them
		c.kept = nil
	}
	r0.mu.Unlock()
	out := jsonAnswer(registrationJSON(c), cursor)
	if json {
		out = batchAnswer(c.ID(), items, cursor, false, nil, nil)
		b.countItems(items)
	}
	_ = b.writeAnswer(w, r, &out, &everyPiece{w, b.set.writeTimeout}) // a client that does not hear its id expires
}

// registrationJSON is {"client-id":"…"}, the answer of the 2015 package.
func registrationJSON(c *Client) []byte {
	return append(append([]byte(`{"client-id":"`), c.ID()...), `"}`...)
}
