package gpoll

import (
	"errors"
	"net/http"
	"time"
)

// A poll is one request that waits for what its client is owed.
type poll struct {
	attach *attach
	w      http.ResponseWriter
	r      *http.Request
	rc     *http.ResponseController
	json   bool
	after  Position // of an explicit cursor

	started Position // cursor at the beginning
	owed    int      // backfill at the beginning
	items   []item
	more    bool
}

// admitPoll answers a registration or a refusal itself, and returns the poll that has to wait, or nil.
func (b *Broadcaster) admitPoll(w http.ResponseWriter, r *http.Request) (p *poll) {
	b.handle(w, r, func(w http.ResponseWriter, r *http.Request, req *request) (refused *refusal) {
		p, refused = b.openPoll(w, r, req)
		return refused
	})
	return p
}

func (b *Broadcaster) openPoll(w http.ResponseWriter, r *http.Request, req *request) (*poll, *refusal) {
	g, refused := b.authorize(r)
	if refused != nil {
		return nil, refused
	}
	if req.id == "" {
		return nil, b.answerRegistration(w, req, g)
	}
	c, refused := b.find(req.id, g.user())
	if refused != nil {
		return nil, refused
	}
	if b.state.Load() != stateOpen {
		return nil, b.refuseShutdown()
	}
	named, refused := b.topicsOf(req, c, g)
	if refused != nil {
		return nil, refused
	}
	o := attachOptions{transport: longPoll, cursor: req.after, named: named, last: req.last, grantee: g, due: jitter(b.set.pollWait)}
	if g != nil && !g.grant.Expires.IsZero() {
		o.due = max(min(o.due, time.Until(g.grant.Expires)), time.Millisecond) // the next poll asks Authorize
	}
	a, err := c.open(o)
	if err != nil {
		return nil, refuseUnknownClient
	}
	p := &poll{attach: a, w: w, r: r, rc: http.NewResponseController(w), json: req.json, after: req.after,
		started: a.cursor, owed: len(a.backfill), items: make([]item, 0, 1)}
	// The server's own time-outs are for requests that do not wait. A wrapper without Unwrap leaves them in force.
	_ = p.rc.SetReadDeadline(time.Time{})
	_ = p.rc.SetWriteDeadline(time.Time{})
	return p, nil
}

// serve waits for what the client is owed, and answers. It waits here, on a small stack: what else it does is in functions of
// their own.
func (p *poll) serve() {
	done := p.r.Context().Done()
	for !p.ready() {
		select {
		case rec := <-p.attach.queue:
			p.attach.head = rec
		case <-done:
			p.attach.close(p.started, Position{}, 0) // nobody is there to be answered
			return
		}
	}
}

// ready answers if there is something to answer, and reports whether that is over with.
func (p *poll) ready() bool {
	a := p.attach
	b := a.client.routine.b
	limit := replay{count: 1, bytes: b.set.replayBytes}
	if p.json {
		limit.count = b.set.replayCount
	}
	for {
		var ev event
		p.items, p.more, ev = a.ready(limit, p.items)
		switch ev {
		case gotNothing:
			return false
		case gotEnd:
			b.refuse(p.w, a.ending.Load().refusal)
			return true
		case gotItems:
			if !p.json && p.items[len(p.items)-1].gap != nil {
				continue // in the plain form a gap waits for the message that it stands before
			}
		}
		p.answer()
		return true
	}
}

// form makes of items one message in the plain form, a batch in JSON.
func (p *poll) form() answer {
	if p.json {
		return batchAnswer(p.attach.client, p.items, p.attach.cursor, p.more)
	}
	return plainAnswer(p.items, p.attach.cursor)
}

// answer writes it.
func (p *poll) answer() {
	a := p.attach
	b := a.client.routine.b
	// A wrapper without Unwrap leaves the server's own time-out in force, and does not say whether the write went out.
	_ = p.rc.SetWriteDeadline(time.Now().Add(b.set.writeTimeout))
	out := p.form()
	err := out.write(p.w)
	if err == nil {
		if err = p.rc.Flush(); errors.Is(err, http.ErrNotSupported) {
			err = nil
		}
	}
	switch {
	case !a.implicit:
		a.close(p.after, Position{}, 0)
	case err != nil || p.r.Context().Err() != nil:
		a.close(p.started, Position{}, 0) // the same again for the next poll
	default:
		a.close(p.started, a.cursor, p.owed-len(a.backfill))
	}
	b.countItems(p.items)
}

// answerRegistration makes a client and tells it its id.
func (b *Broadcaster) answerRegistration(w http.ResponseWriter, req *request, g *grantee) *refusal {
	named, refused := b.topicsOf(req, nil, g)
	if refused != nil {
		return refused
	}
	c, refused := b.register(registration{remote: true, user: g.user(), named: named, given: g.given(), cursor: req.after, last: req.last})
	if refused != nil {
		return refused
	}
	r0 := c.routine
	r0.mu.Lock()
	cursor, items := c.cursor, []item(nil)
	if c.kept != nil {
		items = c.kept.backfill
	}
	if req.json { // which carries them
		c.kept = nil
	}
	r0.mu.Unlock()
	out := jsonAnswer(registrationJSON(c), cursor)
	if req.json {
		out = batchAnswer(c, items, cursor, false)
	}
	_ = out.write(w) // a client that does not hear its id expires
	return nil
}

// registrationJSON is {"client-id":"…"}, the seed's answer.
func registrationJSON(c *Client) []byte {
	return append(append([]byte(`{"client-id":"`), c.ID()...), `"}`...)
}
