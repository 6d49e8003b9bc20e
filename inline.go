package gpoll

// Writing from the routine: a WebSocket, or an SSE response on a connection of its own, that keeps up has no goroutine that writes and no queue. The routine collects what
// each such client is owed under its mu (offerInline), and writes it afterwards without it (writeInline). A client
// leaves this path by pullOut: when its socket is full, when its writer is busy, for a gap, or to change its subscription.

// An inlineWrite is what one client gets in one round.
type inlineWrite struct {
	session *session
	turn    uint32 // the session's, when this was collected
	piece   int32  // index in scratch.pieces
}

// A piece is messages in one form. Clients that get the same share it.
type piece struct {
	bytes    []byte
	messages int
}

// collect notes what a client's socket gets in this round.
func (r *routine) collect(h *hotClient, piece int32) {
	h.collected = r.round
	r.writes = append(r.writes, inlineWrite{h.session, h.turn, piece})
}

// offerInline collects what goes to c's socket in this round, where that is not simply everyone.
func (r *routine) offerInline(c *Client, recs []*record) {
	h := c.hot()
	recs = newer(recs, h.from)
	if len(recs) == 0 {
		return
	}
	if !whole(recs) {
		h.collected = r.round // nothing of this round is written
		r.pullOutLocked(c)
		return
	}
	r.pieces = append(r.pieces, piece{r.join(recs, h.form), len(recs)})
	r.collect(h, int32(len(r.pieces)-1))
}

// pieceForEveryone returns the index of everyone in a form.
func (r *routine) pieceForEveryone(f form) int32 {
	if r.made[f] == 0 {
		r.pieces = append(r.pieces, piece{r.join(r.everyone, f), len(r.everyone)})
		r.made[f] = int32(len(r.pieces))
	}
	return r.made[f] - 1
}

// join returns recs in a form in one piece.
func (r *routine) join(recs []*record, f form) []byte {
	if len(recs) == 1 {
		return recs[0].in(f)
	}
	start := len(r.arena)
	for _, rec := range recs {
		r.arena = append(r.arena, rec.in(f)...)
	}
	return r.arena[start:len(r.arena):len(r.arena)]
}

// writeInline writes what was collected. It waits for nobody.
func (r *routine) writeInline() {
	delivered := 0
	for i := range r.writes {
		w := &r.writes[i]
		if p := &r.pieces[w.piece]; r.writeOne(w, p.bytes) {
			delivered += p.messages
		}
	}
	if delivered > 0 {
		r.b.delivered.Add(uint64(delivered))
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
	case c.hot().mode != inline: // the pump sends it
		a.isDue = true
		a.wake()
		r.mu.Unlock()
		return
	}
	w := inlineWrite{session: a.socket, turn: a.socket.stream.turn}
	beat := a.socket.appendBeat(nil, r.inlineCursorLocked(c))
	r.mu.Unlock()
	r.writeOne(&w, beat)
}

// writeOne writes p to one client and reports whether it counts as delivered.
func (r *routine) writeOne(w *inlineWrite, p []byte) bool {
	s := &w.session.stream
	if !s.mu.TryLock() {
		r.leaveInline(w) // whoever writes is not this routine: a goroutine waits for its turn
		return false
	}
	if s.turn != w.turn || s.closing.Load() {
		s.mu.Unlock()
		return false // a goroutine has taken over, and reads this from the log
	}
	var err error
	if !s.stalled.Load() {
		err = s.tryWriteLocked(p)
		s.wrote.Store(r.round)
	}
	written := s.wrote.Load() == r.round
	if s.stalled.Load() { // what is left counts as written
		r.leaveInline(w)
	}
	s.mu.Unlock()
	if err != nil {
		w.session.attach.end(endGone) // its reader sees the same
		return false
	}
	if s.controls.Load() {
		w.session.flush()
	}
	return written
}

// leaveInline takes a client that could not be written to off the inline path, or ends its attach where the settings say so for a
// client that is slow.
func (r *routine) leaveInline(w *inlineWrite) {
	a := w.session.attach
	c := a.client
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case c.attach != a || c.hot().mode != inline || w.session.stream.turn != w.turn:
	case r.b.DisconnectSlow && w.session.stream.stalled.Load():
		r.endLocked(a, endSlow)
	default:
		r.pullOutLocked(c)
	}
}

// pullOutLocked lets a goroutine carry the client on from where it has been written to, until it has caught up.
func (r *routine) pullOutLocked(c *Client) {
	a := c.attach
	cursor := r.inlineCursorLocked(c)
	a.socket.stream.turn++
	a.cursor, a.verified = cursor, true
	c.hot().mode = reading
	r.b.spawn(a.socket.pump)
}

// inlineCursorLocked returns how far a client on the inline path has been written to.
func (r *routine) inlineCursorLocked(c *Client) Position {
	h := c.hot()
	if h.collected == r.round && c.attach.socket.stream.wrote.Load() != r.round {
		return maxPosition(r.before, h.from)
	}
	return maxPosition(r.at, h.from)
}

func maxPosition(p Position, seq uint64) Position {
	p.Seq = max(p.Seq, seq)
	return p
}
