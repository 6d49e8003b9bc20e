package gpoll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
	"unsafe"
)

const (
	holePatience = 5 * time.Second // for History to bring the next part of a hole
	holePage     = 512             // records that are asked for at a time
	nonceCount   = 1024            // records whose nonces are remembered
)

// A follower is the Subscriber of a Broadcaster: it reads the broker's stream into the log. The broker calls its
// methods one at a time, and never while a lock of gpoll is held.
type follower struct {
	broker   Broker
	ctx      context.Context // ends with the Broadcaster
	log      *messageLog
	notify   func(address)                                        // wakes the routines that have a client for a message
	note     func(level slog.Level, message string, attrs ...any) // tells the operator
	panicked func(where string, v any)                            // likewise

	// Touched only in the broker's calls.
	at      Position      // the end of the log
	backlog Position      // where the broker's log ended when this Broadcaster began
	caught  chan struct{} // closed when the log has come to backlog; nil afterwards
	unknown [256]bool     // kinds that were passed over

	forked atomic.Uint64 // the epoch that this log and the broker's have in different versions; 0: none

	mu     sync.Mutex // guards the fields below
	newest Link       // the record that was read last, if it had a nonce
	nonces []Link     // by seq; the last nonceCount that were read
	outage string
}

// Deliver implements Subscriber. It waits while a routine is RoutineBufferSize messages behind, and for History where
// something is missing.
func (f *follower) Deliver(records []Record) {
	defer f.rescue()
	for i := range records {
		f.deliver(&records[i])
	}
}

// rescue logs a panic. What the failed call left out is a hole when the next record comes.
func (f *follower) rescue() {
	if v := recover(); v != nil {
		f.panicked("the broker's delivery", v)
	}
}

func (f *follower) deliver(r *Record) {
	if !f.placed(r) || !f.agrees(r) {
		return
	}
	if f.misses(r) {
		f.fill(r.Position)
	}
	f.add(r)
}

// take delivers a message without waiting. Where deliver would wait, since something is missing or routines are very
// far behind, take does nothing and reports false. It admits RoutineBufferSize messages more than deliver, for
// publishers that were admitted before.
func (f *follower) take(r *Record) bool {
	switch {
	case r.Kind != RecordMessage:
		return false
	case !f.placed(r) || !f.agrees(r):
		return true
	case f.misses(r):
		return false
	}
	rec := f.record(r)
	did := f.log.append(rec, 2*f.log.lag)
	if did == full {
		return false
	}
	f.added(rec, did)
	return true
}

// placed reports whether r is at a Position that a record can have.
func (f *follower) placed(r *Record) bool {
	if r.Position.assignable() {
		return true
	}
	f.note(slog.LevelError, "gpoll: the broker delivered a message at a position that none can have; it is dropped",
		"position", r.Position)
	return false
}

// misses reports whether records are missing before r.
func (f *follower) misses(r *Record) bool {
	if r.Position.Epoch == f.at.Epoch {
		return r.Position.Seq > f.at.Seq+1
	}
	return r.Kind != RecordEpoch && r.Position.Seq > 1 && !f.log.past(r.Position)
}

// add appends r, when there is room. It reports false when the log was closed meanwhile.
func (f *follower) add(r *Record) bool { return f.addRecord(f.record(r)) }

func (f *follower) addRecord(rec *record) bool {
	for {
		if did := f.log.append(rec, f.log.lag); did != full {
			f.added(rec, did)
			return true
		}
		if f.log.admit(f.ctx) != nil {
			return false
		}
	}
}

// added wakes the routines that rec is for.
func (f *follower) added(rec *record, did appendResult) {
	switch did {
	case dropped:
		return
	case appended:
		f.notify(rec.to)
	case appendedToo: // a gap or a new epoch is for everybody
		f.notify(address{})
	}
	f.moved(rec.pos)
}

// moved notes that the log ends at p.
func (f *follower) moved(p Position) {
	f.at = p
	if f.caught != nil && (p.Epoch != f.backlog.Epoch || p.Seq >= f.backlog.Seq) {
		close(f.caught)
		f.caught = nil
	}
}

// record returns what the log keeps of r. A message that cannot be read becomes a hole. A record of another kind is for
// nobody.
func (f *follower) record(r *Record) *record {
	now := f.log.now()
	switch r.Kind {
	case RecordMessage:
		if r.decoded {
			return newRecord(r.Position, r.to, r.except, r.Bytes, now)
		}
		to, except, data, err := r.message()
		if err == nil {
			return newRecord(r.Position, to, except, data, now)
		}
		f.note(slog.LevelError, "gpoll: a message of the broker cannot be read; clients are told that it is missing",
			"position", r.Position, "err", err)
	case RecordEpoch:
		return &record{pos: r.Position, to: address{kind: kindNobody}, at: now, begins: true}
	case 0:
		f.note(slog.LevelError, "gpoll: the broker cannot read a record; clients are told that it is missing",
			"position", r.Position)
	default:
		if !f.unknown[r.Kind] {
			f.unknown[r.Kind] = true
			f.note(slog.LevelWarn, "gpoll: records of a kind that this version does not know are passed over",
				"kind", r.Kind, "position", r.Position)
		}
		return &record{pos: r.Position, to: address{kind: kindNobody}, at: now}
	}
	return newHole(r.Position.Seq, r.Position, now)
}

func newRecord(pos Position, to address, except []string, data []byte, now time.Time) *record {
	text := unsafe.String(unsafe.SliceData(data), len(data)) // nobody writes to it: see Subscriber.Deliver
	return &record{
		pos:    pos,
		to:     to,
		except: exceptSet(except),
		data:   text,
		binary: !utf8.ValidString(text),
		at:     now,
	}
}

// fill asks History for the records that are missing before until, and appends those that it gets. It gives up when
// History has nothing more, or brings nothing for holePatience.
func (f *follower) fill(until Position) {
	from := f.at
	if from.Epoch != until.Epoch {
		from = Position{Epoch: until.Epoch}
	}
	for from.Seq+1 < until.Seq {
		records, err := f.history(from, int(min(until.Seq-from.Seq-1, holePage)))
		if err != nil {
			f.note(slog.LevelWarn, "gpoll: the broker's History does not bring what is missing",
				"after", from, "until", until, "err", err)
			return
		}
		before := from
		for i := range records {
			r := &records[i]
			if r.Position.Epoch != until.Epoch || r.Position.Seq >= until.Seq {
				return
			}
			if r.Position.Seq > from.Seq && f.agrees(r) {
				if !f.add(r) {
					return
				}
				from = r.Position
			}
		}
		if from == before {
			return
		}
	}
}

// history returns one part of a hole. Where the broker fails it tries again, for holePatience.
func (f *follower) history(after Position, limit int) ([]Record, error) {
	ctx, cancel := context.WithTimeout(f.ctx, holePatience)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		records, err := f.broker.History(ctx, after, limit)
		if err == nil {
			return records, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Hole implements Subscriber.
func (f *follower) Hole(until Position) {
	defer f.rescue()
	if !until.assignable() || until.Epoch != f.at.Epoch {
		f.note(slog.LevelError, "gpoll: the broker reports a hole at a position that is not of its epoch",
			"position", until)
		return
	}
	f.fill(Position{until.Epoch, until.Seq + 1})
	if f.at.Epoch == until.Epoch && f.at.Seq < until.Seq {
		f.addRecord(newHole(f.at.Seq+1, until, f.log.now()))
	}
}

// Epoch implements Subscriber.
func (f *follower) Epoch(at Position) {
	defer f.rescue()
	if at.Epoch == 0 || at.Seq > maxSeq {
		f.note(slog.LevelError, "gpoll: the broker reports an epoch that cannot be", "position", at)
		return
	}
	if at.Epoch == f.at.Epoch || f.log.past(at) {
		return
	}
	f.fill(Position{at.Epoch, at.Seq + 1})
	switch {
	case f.at.Epoch == at.Epoch && f.at.Seq < at.Seq:
		f.addRecord(newHole(f.at.Seq+1, at, f.log.now()))
	case f.at.Epoch != at.Epoch && f.log.restart(at):
		f.notify(address{})
		f.moved(at)
	}
}

// Outage implements Subscriber.
func (f *follower) Outage(err error) {
	f.mu.Lock()
	before := f.outage
	if f.outage = ""; err != nil {
		f.outage = err.Error()
	}
	f.mu.Unlock()
	switch {
	case err != nil && before == "":
		f.note(slog.LevelError, "gpoll: the broker cannot be reached", "err", err)
	case err == nil && before != "":
		f.note(slog.LevelInfo, "gpoll: the broker can be reached again")
	}
}

// trouble says why the broker cannot be reached; "" while it can.
func (f *follower) trouble() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.outage
}

var errForked = errors.New("this server and the broker have different records at one position; " +
	"nothing goes on before a new epoch")

// refuses returns an error when nothing may be published: the log and the broker's are no longer the same.
func (f *follower) refuses() error {
	if forked := f.forked.Load(); forked != 0 && forked == f.log.end().Epoch {
		return fmt.Errorf("%w: %w", ErrUnavailable, errForked)
	}
	return nil
}

// agrees reports whether r belongs to the log that was read so far: at the places of r and of r.Prev no other nonce was
// read. Otherwise the broker has lost records that this server has read, and given their places to others. Then the
// server delivers nothing more of the epoch: clients hold Positions that now name other messages.
func (f *follower) agrees(r *Record) bool {
	if forked := f.forked.Load(); forked != 0 && forked == r.Position.Epoch {
		return false
	}
	if r.Nonce == 0 && r.Prev == (Link{}) {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	own := Link{r.Position, r.Nonce}
	ahead := r.Prev.Position.Epoch == r.Position.Epoch && r.Prev.Position.Seq >= r.Position.Seq
	if ahead || f.differsLocked(own) || f.differsLocked(r.Prev) {
		f.forked.Store(r.Position.Epoch)
		f.note(slog.LevelError, "gpoll: "+errForked.Error(), "position", r.Position, "prev", r.Prev.Position)
		return false
	}
	if f.nonces == nil {
		f.nonces = make([]Link, nonceCount)
	}
	if at := &f.nonces[own.Position.Seq%nonceCount]; at.before(own) {
		*at = own
	}
	if f.newest.before(own) {
		f.newest = own
	}
	return true
}

// before reports whether other is later in the epoch, or of another one.
func (k Link) before(other Link) bool {
	return k.Position.Epoch != other.Position.Epoch || k.Position.Seq < other.Position.Seq
}

// differsLocked reports whether another nonce was read at the place of a link.
func (f *follower) differsLocked(to Link) bool {
	if to.Nonce == 0 || f.nonces == nil {
		return false
	}
	read := f.nonces[to.Position.Seq%nonceCount]
	return read.Position == to.Position && read.Nonce != 0 && read.Nonce != to.Nonce
}

// seal returns m as brokers carry it.
func (f *follower) seal(m *Message) Record {
	f.mu.Lock()
	prev := f.newest
	f.mu.Unlock()
	return Record{
		Kind:  RecordMessage,
		Nonce: newNonce(),
		Prev:  prev,
		ID:    m.ID,
		Bytes: appendMessage(nil, m.address(), m.Except, m.Data),
	}
}

func newNonce() uint64 {
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}
