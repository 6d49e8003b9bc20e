package gpoll

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A MemoryBroker keeps its records in this process: its epoch ends with the process. It serves one or several
// Broadcasters of the process until it is closed. A Broadcaster without a Broker makes one.
//
// Publish returns when every Broadcaster has the message, or ctx ends. It does not wait for other Subscribers.
type MemoryBroker struct {
	mu     sync.Mutex // guards the fields below, and those of subs
	newest Position
	kept   ring[keptRecord] // of the present epoch, up to newest
	bytes  int              // of kept
	subs   []*memorySubscription
	ids    map[string]publishID
	order  ring[string] // of ids, oldest first
	closed bool
}

// A keptRecord is a Record without its Position, which its place in the ring says. It is small: every message is
// copied into one.
type keptRecord struct {
	kind    RecordKind
	decoded bool
	id      string
	bytes   []byte
	to      address
	except  []string
	chain   *chain // nil: zero
}

// A chain is the nonce and the link by which a reader checks another broker.
type chain struct {
	nonce uint64
	prev  Link
}

// A memorySubscription is how far a Subscriber has got. A Broadcaster that keeps up needs no goroutine: Publish hands
// it the record.
type memorySubscription struct {
	to    Subscriber
	quick *follower // to, where it is a Broadcaster's: it takes a record at once, unless it would have to wait
	at    Position  // everything up to here was delivered, or is not kept
	ended bool
	idle  chan struct{} // while a goroutine delivers: closed when it ends
	moved chan struct{} // closed when at or ended change; nil when nobody waits
}

type publishID struct {
	at  time.Time
	pos Position
}

// How long a publish id is remembered.
const (
	publishIDAge   = 2 * time.Minute
	publishIDCount = 100_000
)

// What a MemoryBroker keeps for History. The log of each Broadcaster keeps its own window beside it. Payloads are
// shared with the logs.
const (
	memoryHistoryCount = 1000
	memoryHistoryBytes = 1 << 20
)

// memoryPage is how many records a Subscriber that is behind gets in one call.
const memoryPage = 256

// NewMemoryBroker returns a broker with a new random epoch. It keeps up to 1,000 records or 1 MiB for History, and
// the newest.
func NewMemoryBroker() *MemoryBroker {
	return &MemoryBroker{newest: Position{Epoch: randomEpoch()}}
}

// randomEpoch returns 64 random bits that are not all zero.
func randomEpoch() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
		if epoch := binary.BigEndian.Uint64(b[:]); epoch != 0 {
			return epoch
		}
	}
}

// Publish implements Broker. Its error is ErrClosed or wraps ErrConflict: after either, r was not added.
func (br *MemoryBroker) Publish(ctx context.Context, r Record) (Position, error) {
	if err := br.publish(ctx, &r); err != nil {
		return Position{}, err
	}
	return r.Position, nil
}

// publish is Publish. It sets r.Position.
func (br *MemoryBroker) publish(ctx context.Context, r *Record) error {
	late, err := br.add(r)
	if late {
		br.await(ctx, r.Position)
	}
	return err
}

// add gives r its Position, or that of the first with its ID, and hands it out. late says that some Broadcaster could
// not take it yet.
func (br *MemoryBroker) add(r *Record) (late bool, err error) {
	br.mu.Lock()
	defer br.mu.Unlock()
	if br.closed {
		return false, ErrClosed
	}
	now := time.Time{}
	if r.ID != "" {
		now = time.Now()
		br.forgetIDsLocked(now)
		if first, ok := br.ids[r.ID]; ok {
			r.Position = first.pos
			return false, nil
		}
	}
	if r.Kind == RecordEpoch {
		if r.Prev.Position != br.newest {
			return false, fmt.Errorf("%w: it names %v, the newest is %v", ErrConflict, r.Prev.Position, br.newest)
		}
		br.newest = Position{Epoch: randomEpoch()}
		br.kept, br.bytes = ring[keptRecord]{}, 0
	}
	br.newest.Seq++
	r.Position = br.newest
	if r.ID != "" {
		if br.ids == nil {
			br.ids = map[string]publishID{}
		}
		br.ids[r.ID] = publishID{now, r.Position}
		br.order.push(r.ID)
	}
	br.keepLocked(r)
	return br.deliverLocked(r), nil
}

// keepLocked keeps r for History.
func (br *MemoryBroker) keepLocked(r *Record) {
	k := keptRecord{kind: r.Kind, decoded: r.decoded, id: r.ID, bytes: r.Bytes, to: r.to, except: r.except}
	if r.Nonce != 0 || r.Prev != (Link{}) {
		k.chain = &chain{r.Nonce, r.Prev}
	}
	br.kept.push(k)
	br.bytes += len(r.Bytes)
	for br.kept.len > 1 && (br.kept.len > memoryHistoryCount || br.bytes > memoryHistoryBytes) {
		br.bytes -= len(br.kept.first().bytes)
		br.kept.drop()
	}
}

// keptLocked returns what is kept at index i.
func (br *MemoryBroker) keptLocked(i int) Record {
	k := br.kept.at(i)
	pos := Position{br.newest.Epoch, br.newest.Seq - uint64(br.kept.len-1-i)}
	r := Record{Position: pos, Kind: k.kind, decoded: k.decoded, ID: k.id, Bytes: k.bytes, to: k.to, except: k.except}
	if k.chain != nil {
		r.Nonce, r.Prev = k.chain.nonce, k.chain.prev
	}
	return r
}

// deliverLocked hands r, which is kept, to the Broadcasters that keep up. A goroutine brings it to the others; late
// says that Broadcasters are among those.
func (br *MemoryBroker) deliverLocked(r *Record) (late bool) {
	for _, s := range br.subs {
		if s.quick != nil && s.idle == nil && s.quick.take(r) {
			s.at = r.Position
			continue
		}
		late = late || s.quick != nil
		br.bringLocked(s)
	}
	return late
}

// forgetIDsLocked drops the publish ids that are too old or too many.
func (br *MemoryBroker) forgetIDsLocked(now time.Time) {
	for br.order.len > 0 {
		id := br.order.at(0)
		if br.order.len < publishIDCount && now.Sub(br.ids[id].at) <= publishIDAge {
			return
		}
		br.order.pop()
		delete(br.ids, id)
	}
}

// await returns when every Broadcaster has come to pos, or ctx has ended.
func (br *MemoryBroker) await(ctx context.Context, pos Position) {
	for {
		moved := br.behind(pos)
		if moved == nil {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// behind returns a channel that is closed when a Broadcaster that has not come to pos moves; nil when all have.
func (br *MemoryBroker) behind(pos Position) <-chan struct{} {
	br.mu.Lock()
	defer br.mu.Unlock()
	for _, s := range br.subs {
		if s.quick == nil || s.at.Epoch == pos.Epoch && s.at.Seq >= pos.Seq || pos.Epoch != br.newest.Epoch {
			continue
		}
		if s.moved == nil {
			s.moved = make(chan struct{})
		}
		return s.moved
	}
	return nil
}

// Subscribe implements Broker. It hands a Broadcaster the kept records before it returns.
func (br *MemoryBroker) Subscribe(ctx context.Context, after Position, to Subscriber) (stop func(), err error) {
	br.mu.Lock()
	defer br.mu.Unlock()
	switch {
	case br.closed:
		return nil, ErrClosed
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	s := &memorySubscription{to: to, at: after}
	s.quick, _ = to.(*follower)
	br.subs = append(br.subs, s)
	for i := br.keptAfter(after); s.quick != nil && after.Epoch == br.newest.Epoch && i < br.kept.len; i++ {
		r := br.keptLocked(i)
		if !s.quick.take(&r) {
			break
		}
		s.at = r.Position
	}
	br.bringLocked(s)
	forget := context.AfterFunc(ctx, func() { br.end(s) })
	return func() {
		forget()
		if idle := br.end(s); idle != nil {
			<-idle
		}
	}, nil
}

// end ends a subscription. It returns a channel that is closed when the delivery under way has ended; nil when none is.
func (br *MemoryBroker) end(s *memorySubscription) (idle <-chan struct{}) {
	br.mu.Lock()
	defer br.mu.Unlock()
	return br.endLocked(s)
}

func (br *MemoryBroker) endLocked(s *memorySubscription) (idle <-chan struct{}) {
	br.subs = slices.DeleteFunc(br.subs, func(other *memorySubscription) bool { return other == s })
	s.ended = true
	s.movedLocked()
	return s.idle
}

// movedLocked wakes the goroutines that wait for s.
func (s *memorySubscription) movedLocked() {
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}

// bringLocked starts a goroutine that brings s the records that it has not had, if there are any and no goroutine does.
func (br *MemoryBroker) bringLocked(s *memorySubscription) {
	behind := s.at.Epoch != br.newest.Epoch || s.at.Seq < br.newest.Seq
	if s.idle == nil && behind {
		s.idle = make(chan struct{})
		go br.bring(s) // ends when s has everything, or has ended: stop and Close wait for it
	}
}

// bring hands s everything that it has not had.
func (br *MemoryBroker) bring(s *memorySubscription) {
	var had Position
	for {
		epoch, records, last := br.next(s, had)
		switch {
		case epoch != Position{}:
			s.to.Epoch(epoch)
		case len(records) > 0:
			s.to.Deliver(records)
		default:
			return
		}
		had = last
	}
}

// next returns a new epoch or the next records for one call of s, which has had everything up to had. last is where
// they end. Where next returns neither, s has everything or has ended, and next has noted that nothing is under way.
func (br *MemoryBroker) next(s *memorySubscription, had Position) (epoch Position, records []Record, last Position) {
	br.mu.Lock()
	defer br.mu.Unlock()
	if !had.IsZero() {
		s.at = had
		s.movedLocked()
	}
	switch {
	case s.ended || s.at.Epoch == br.newest.Epoch && s.at.Seq >= br.newest.Seq:
		close(s.idle)
		s.idle = nil
		return Position{}, nil, Position{}
	case s.at.Epoch != br.newest.Epoch:
		epoch = br.newest
		epoch.Seq -= uint64(br.kept.len)
		return epoch, nil, epoch
	}
	for i := br.keptAfter(s.at); i < br.kept.len && len(records) < memoryPage; i++ {
		r := br.keptLocked(i)
		if s.quick == nil {
			r = r.sealed()
		}
		records = append(records, r)
	}
	return Position{}, records, records[len(records)-1].Position
}

// keptAfter returns the index in kept of the first record after a Position: the oldest, if that is of another epoch.
func (br *MemoryBroker) keptAfter(after Position) int {
	first := br.newest.Seq - uint64(br.kept.len)
	if after.Epoch != br.newest.Epoch || after.Seq <= first {
		return 0
	}
	return int(min(after.Seq-first, uint64(br.kept.len)))
}

// History implements Broker.
func (br *MemoryBroker) History(_ context.Context, after Position, limit int) ([]Record, error) {
	br.mu.Lock()
	defer br.mu.Unlock()
	return br.pageLocked(after, limit), nil
}

// pageLocked returns copies of the records after a Position, at most limit.
func (br *MemoryBroker) pageLocked(after Position, limit int) []Record {
	first := br.keptAfter(after)
	records := make([]Record, 0, max(min(limit, br.kept.len-first), 0))
	for i := first; i < br.kept.len && len(records) < limit; i++ {
		r := br.keptLocked(i)
		records = append(records, r.sealed())
	}
	return records
}

// Window implements Broker.
func (br *MemoryBroker) Window(context.Context) (before, newest Position, err error) {
	br.mu.Lock()
	defer br.mu.Unlock()
	before = br.newest
	before.Seq -= uint64(br.kept.len)
	return before, br.newest, nil
}

// Close implements Broker. It forgets the records.
func (br *MemoryBroker) Close(ctx context.Context) error {
	for _, idle := range br.endAll() {
		select {
		case <-idle:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// endAll closes the broker and ends every subscription at once: one that went on would look for records that are
// forgotten. It returns a channel for each delivery under way, as end does.
func (br *MemoryBroker) endAll() (idle []<-chan struct{}) {
	br.mu.Lock()
	defer br.mu.Unlock()
	br.closed = true
	br.ids, br.order = nil, ring[string]{}
	br.kept, br.bytes = ring[keptRecord]{}, 0
	for _, s := range slices.Clone(br.subs) {
		if under := br.endLocked(s); under != nil {
			idle = append(idle, under)
		}
	}
	return idle
}
