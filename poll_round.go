package gpoll

import "unique"

// A parkedAnswers is what a round collects for parked polls. Each connection in it has its stream.mu held until its
// answer is written.
type parkedAnswers struct {
	answers []pollAnswer
	begun   int       // how many of answers were begun
	holding *pollConn // its mu is held, and it is not in answers yet
	items   []item

	plain      plainAnswerKey // of the answer that was made last
	plainBytes []byte         // in scratch.arena
}

// parkedAnswers returns the lane of the routine's turn.
func (r *routine) parkedAnswers() *parkedAnswers {
	l, ok := r.answers.(*parkedAnswers)
	if !ok {
		l = new(parkedAnswers)
		r.answers = l
	}
	return l
}

func (l *parkedAnswers) reset() {
	*l = parkedAnswers{answers: emptied(l.answers), items: emptied(l.items)}
}

// A pollAnswer is what one parked poll gets in a round. Its connection's stream.mu is held until it is written.
type pollAnswer struct {
	conn     *pollConn
	bytes    []byte
	messages int
}

// offer collects the answer to the parked poll of a client.
func (c *pollConn) offer(r *routine, of *Client, recs []*record) {
	recs = newer(recs, of.hot().from)
	if len(recs) == 0 {
		return
	}
	a := of.attach
	if !whole(recs) || !c.mu.TryLock() {
		c.resumeLocked(r, of, r.before)
		return
	}
	l := r.parkedAnswers()
	l.holding = c
	p := &c.poll
	limit := p.limit()
	l.items = append(l.items, p.items...) // a gap that waits for its message
	bytes := 0
	for i, rec := range recs {
		if i == limit.count || i > 0 && bytes+rec.size() > limit.bytes {
			p.more = true
			break
		}
		bytes += rec.size()
		l.items = append(l.items, item{rec: rec, pos: rec.pos})
		a.cursor = rec.pos
	}
	p.items = l.items
	if !p.more && p.json {
		a.cursor = r.at
	}
	l.put(r, c)
}

// put collects the answer that the items of conn's poll make. conn.mu is held.
func (l *parkedAnswers) put(r *routine, conn *pollConn) {
	p := &conn.poll
	same := plainAnswerKey{fixed: conn.current.fixed} // many polls get the same plain answer to one message
	if !p.json && len(p.items) == 1 {
		same.rec = p.items[0].rec
	}
	if same.rec == nil || same != l.plain {
		start := len(r.arena)
		out := p.answer()
		r.arena = out.append(r.arena, same.fixed.Value(), r.b.calendar.today().line)
		l.plain, l.plainBytes = same, r.arena[start:len(r.arena):len(r.arena)]
	}
	messages := len(p.items)
	for _, it := range p.items {
		if it.gap != nil {
			r.b.countGap(it.gap)
			messages--
		}
	}
	l.answers, l.holding = append(l.answers, pollAnswer{conn, l.plainBytes, messages}), nil
	p.endLocked(true)
	l.items, p.items = emptied(l.items), nil
}

// write implements roundAnswers.
func (l *parkedAnswers) write(r *routine) {
	delivered := 0
	for i := range l.answers {
		out := &l.answers[i]
		c := out.conn
		l.begun = i + 1
		err := c.putLocked(out.bytes)
		if err == nil {
			delivered += out.messages
		}
		switch a := c.poll.attach; {
		case err != nil || c.stalled.Load():
			r.unsend(a)
		case a.narrow > 0 && out.messages > 0:
			a.client.whole()
		}
		c.mu.Unlock()
		out.conn = nil
	}
	if delivered > 0 {
		r.b.delivered.Add(uint64(delivered))
	}
}

// unsend forgets a response that has not gone out, or not yet: the next poll without cursor gets its messages again.
// See arrived.
func (r *routine) unsend(a *attach) {
	if !a.implicit {
		return
	}
	c := a.client
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.attach == nil && c.kept != nil && c.kept.sent == a.cursor {
		c.kept.sent, c.kept.backSent = Position{}, 0
	}
}

// overdue implements carrier. The client may have another poll by now, or resume has this one. While its connection is
// in use the poll stays due, and the next sweep answers it.
func (c *pollConn) overdue(r *routine, a *attach, now moment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.client.attach == a && a.client.hot().mode == parked && now >= a.due && c.mu.TryLock() {
		l := r.parkedAnswers()
		l.holding = c
		a.cursor = maxPosition(r.at, a.cursor.Seq)
		l.put(r, c)
	}
}

// A plainAnswerKey names an answer in the plain form that many polls get.
type plainAnswerKey struct {
	rec   *record
	fixed unique.Handle[string]
}

// abandon implements roundAnswers: it unlocks the connections whose answers were collected, and tells their clients.
func (l *parkedAnswers) abandon(r *routine) {
	b := r.b
	if conn := l.holding; conn != nil { // its poll is still attached: endAll ends it
		conn.poll.items = nil
		conn.mu.Unlock()
	}
	for i := range l.answers {
		conn := l.answers[i].conn
		if conn == nil {
			continue // written
		}
		b.contained("a rescue", func() {
			r.unsend(conn.poll.attach)
			b.countEnd(endInternal)
			if i < l.begun { // some of it may have gone out
				b.spawn(conn.shut) // the reader ends with it
			} else {
				conn.refuseLocked(refuseInternal)
			}
		})
		conn.mu.Unlock()
	}
}
