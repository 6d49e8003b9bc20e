package gpoll

// A scratch is the memory of a round. A routine gets it with its turn to hand out: there is one for each processor.
type scratch struct {
	batch    []*record
	everyone []*record // the records of batch that go to every client
	merged   []*record
	touched  []*Client
	due      []dueRecord
	overfull []*Client
	sent     uint64 // to channels

	// For the inline path.
	writes []inlineWrite
	pieces []piece
	made   [formCount]int32 // 1 + index of the piece with everyone in that form; 0: not made yet
	arena  []byte           // what is joined in this round

	answers roundAnswers // of parked polls; nil: none yet
}

// reset forgets the round but keeps the memory. A quiet Broadcaster so holds no message beyond the log's window.
func (t *scratch) reset() {
	*t = scratch{
		batch:    emptied(t.batch),
		everyone: emptied(t.everyone),
		merged:   emptied(t.merged),
		touched:  emptied(t.touched),
		due:      emptied(t.due),
		overfull: emptied(t.overfull),
		writes:   emptied(t.writes),
		pieces:   emptied(t.pieces),
		arena:    t.arena[:0],
		answers:  t.answers,
	}
	if t.answers != nil {
		t.answers.reset()
	}
	if cap(t.arena) > 1<<20 {
		t.arena = nil // a burst does not keep its memory
	}
}

// A dueRecord is an element of the chain of addressed messages of one client in one round.
type dueRecord struct {
	rec    *record // nil: the message for everyone at index skip is not for this client
	skip   int32
	next   int32
	before int32 // messages for everyone that come first
}

// What a round hands out and does not put into a queue or a channel is collected with the routine's mu, and written
// without it: pieces for sockets, and the answers to parked polls.

// An inlineWrite is what one client of the mode inline gets in one round.
type inlineWrite struct {
	conn  *streamConn // and not its interface: the loop over all clients writes half as much memory more with that
	lease uint32      // hotClient.lease, when this was collected
	piece int32       // index in scratch.pieces
}

// A roundAnswers is what a round has collected to answer parked polls. Its memory is a scratch's.
type roundAnswers interface {
	write(r *routine)   // does not wait
	abandon(r *routine) // ends what was collected in a round that has failed
	reset()             // forgets the round but keeps the memory
}

// A piece is messages in one form. Clients that get the same share it.
type piece struct {
	bytes    []byte
	messages int
}

// collect notes what a client's socket gets in this round.
func (r *routine) collect(h *hotClient, piece int32) {
	h.collected = r.round
	r.writes = append(r.writes, inlineWrite{h.by.(*streamConn), h.lease, piece})
}

// pieceForEveryone returns the index of the piece with the messages for everyone in a form.
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

// manySockets: a round that writes to so many is long enough to be worth measuring.
const manySockets = 64

// writeInline writes what was collected. It does not wait for a socket.
func (r *routine) writeInline() {
	if r.wrote = 0; len(r.writes) >= manySockets {
		began := r.b.now()
		defer func() {
			r.wroteAt = r.b.now()
			r.wrote = r.wroteAt - began
		}()
	}
	delivered := 0
	for i := range r.writes {
		w := &r.writes[i]
		delivered += w.conn.writeRound(r, w.lease, &r.pieces[w.piece])
	}
	if delivered > 0 {
		r.b.delivered.Add(uint64(delivered))
	}
}

// writeAnswers writes the answers that were collected. It does not wait for a socket.
func (r *routine) writeAnswers() {
	if r.answers != nil {
		r.answers.write(r)
	}
}
