package gpoll

// Writing from the routine: a WebSocket, or an SSE response on a connection of its own, that keeps up has no goroutine that writes and no queue. The routine collects what
// each such client is owed under its mu (offerInline), and writes it afterwards without it (writeInline). A client
// leaves this path by pullOut: when its socket is full, when its writer is busy, for a gap, or to change its subscription.

// An inlineWrite is what one client gets in one round.
type inlineWrite struct {
	attach   *attach
	turn     uint32 // the attach's, when this was collected
	messages int
	bytes    []byte
}

// offerInline collects what goes to c's socket in this round.
func (r *routine) offerInline(c *Client, recs []*record) {
	a := c.attach
	f := a.socket.form
	for len(recs) > 0 && recs[0].pos.Seq <= c.from {
		recs = recs[1:]
	}
	if len(recs) == 0 {
		return
	}
	for _, rec := range recs {
		if rec.hole != nil {
			r.pullOutLocked(c, maxPosition(r.before, c.from))
			return
		}
	}
	c.collected = r.round
	r.writes = append(r.writes, inlineWrite{a, a.turn, len(recs), r.join(recs, f)})
}

// join returns recs in a form as one piece. Clients that get the same piece share it.
func (r *routine) join(recs []*record, f form) []byte {
	if len(recs) == 1 {
		return recs[0].in(f)
	}
	shared := len(recs) == len(r.everyone) && &recs[0] == &r.everyone[0]
	if shared && r.shared[f] != nil {
		return r.shared[f]
	}
	start := len(r.arena)
	for _, rec := range recs {
		r.arena = append(r.arena, rec.in(f)...)
	}
	joined := r.arena[start:len(r.arena):len(r.arena)]
	if shared {
		r.shared[f] = joined
	}
	return joined
}

// writeInline writes what offerInline collected. It waits for nobody.
func (r *routine) writeInline() {
	if len(r.writes) == 0 {
		return
	}
	delivered := 0
	for i := range r.writes {
		if r.writeOne(&r.writes[i]) {
			delivered += r.writes[i].messages
		}
	}
	r.b.delivered.Add(uint64(delivered))
	r.writes = emptied(r.writes)
	r.shared = [formCount][]byte{}
	r.arena = r.arena[:0]
	if cap(r.arena) > 1<<20 {
		r.arena = nil // a burst does not keep its memory
	}
}

// beatInline sends the scanned Position of a client at rest.
func (r *routine) beatInline(a *attach) {
	c := a.client
	r.mu.Lock()
	switch {
	case c.attach != a:
		r.mu.Unlock()
		return
	case c.mode != inline: // the pump sends it
		a.isDue = true
		a.wake()
		r.mu.Unlock()
		return
	}
	w := inlineWrite{a, a.turn, 0, a.socket.appendBeat(nil, r.inlineCursorLocked(c))}
	r.mu.Unlock()
	r.writeOne(&w)
}

// writeOne writes one client's piece and reports whether it counts as delivered.
func (r *routine) writeOne(w *inlineWrite) bool {
	a := w.attach
	c := a.client
	s := &a.socket.stream
	if !s.mu.TryLock() {
		// Whoever writes is not this routine: let a goroutine wait for its turn.
		r.mu.Lock()
		defer r.mu.Unlock()
		if a.turn == w.turn && c.attach == a && c.mode == inline {
			r.pullOutLocked(c, maxPosition(r.before, c.from))
		}
		return false
	}
	if a.turn != w.turn || s.closing.Load() {
		s.mu.Unlock()
		return false // a goroutine has taken over, and reads this from the log
	}
	if len(s.rest) > 0 {
		r.mu.Lock()
		r.pullOutLocked(c, maxPosition(r.before, c.from))
		r.mu.Unlock()
		s.mu.Unlock()
		return false
	}
	err := s.tryWriteLocked(&r.raw, w.bytes)
	s.wrote.Store(r.round)
	if len(s.rest) > 0 {
		r.mu.Lock()
		r.lagInlineLocked(c)
		r.mu.Unlock()
	}
	s.mu.Unlock()
	if err != nil {
		a.end(endGone) // its reader sees the same
		return false
	}
	if s.controls.Load() {
		a.socket.flush(&r.raw)
	}
	return true
}

// lagInlineLocked takes a client whose socket took only a part off the inline path. What is left counts as written.
func (r *routine) lagInlineLocked(c *Client) {
	if c.mode != inline {
		return
	}
	if r.b.DisconnectSlow {
		r.endLocked(c.attach, endSlow)
		return
	}
	r.pullOutLocked(c, maxPosition(r.at, c.from))
}

// pullOutLocked lets a goroutine carry the client on from that cursor, until it has caught up.
func (r *routine) pullOutLocked(c *Client, cursor Position) {
	a := c.attach
	a.turn++
	a.cursor, a.verified = cursor, true
	c.mode = reading
	r.b.spawn(a.socket.pump)
}

// inlineCursorLocked returns how far a client on the inline path has been written to.
func (r *routine) inlineCursorLocked(c *Client) Position {
	if c.collected == r.round && c.attach.socket.stream.wrote.Load() != r.round {
		return maxPosition(r.before, c.from)
	}
	return maxPosition(r.at, c.from)
}

func maxPosition(p Position, seq uint64) Position {
	p.Seq = max(p.Seq, seq)
	return p
}
