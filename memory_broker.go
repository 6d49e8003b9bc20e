package gpoll

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// A MemoryBroker keeps its messages in this process: its epoch ends with it. It serves one Broadcaster, or several
// in one process, and lives until it is closed. It is the Broker of a Broadcaster that has none.
type MemoryBroker struct {
	mu      sync.Mutex // guards the fields below, and orders the calls of deliver
	newest  Position
	kept    ring[Message]
	bytes   int // of kept
	deliver []func(Message)
	names   []uint64 // of deliver, by which a subscriber stops
	named   uint64   // the last one that was given
	ids     map[string]publishID
	order   ring[string] // of ids, oldest first
	closed  bool
}

type publishID struct {
	at  time.Time
	pos Position
}

// How long a publish id is remembered (contract P3).
const (
	publishIDAge   = 2 * time.Minute
	publishIDCount = 100_000
)

// What a MemoryBroker keeps for History. The log of each Broadcaster keeps its own window beside it. Payloads are shared with the log of
// the only subscriber; where there are several, each has its own copy.
const (
	memoryHistoryCount = 1000
	memoryHistoryBytes = 1 << 20
)

// NewMemoryBroker returns a broker with a new random epoch. It keeps up to 1,000 messages or 1 MiB for History.
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

// Publish implements Broker.
func (br *MemoryBroker) Publish(_ context.Context, m Message) (Position, error) {
	br.mu.Lock()
	defer br.mu.Unlock()
	if br.closed {
		return Position{}, ErrClosed
	}
	if m.ID != "" {
		now := time.Now()
		br.forgetIDsLocked(now)
		if first, ok := br.ids[m.ID]; ok {
			return first.pos, nil
		}
		br.newest.Seq++
		if br.ids == nil {
			br.ids = map[string]publishID{}
		}
		br.ids[m.ID] = publishID{now, br.newest}
		br.order.push(m.ID)
	} else {
		br.newest.Seq++
	}
	m.Position = br.newest
	br.kept.push(m)
	br.bytes += len(m.Data)
	for br.kept.len > memoryHistoryCount || br.bytes > memoryHistoryBytes {
		br.bytes -= len(br.kept.pop().Data)
	}
	br.deliverLocked(m)
	return m.Position, nil
}

// deliverLocked hands m, which is kept, to the subscribers.
func (br *MemoryBroker) deliverLocked(m Message) {
	if len(br.deliver) == 1 {
		br.deliver[0](m)
		return
	}
	for _, deliver := range br.deliver {
		deliver(m.clone())
	}
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

// Subscribe implements Broker.
func (br *MemoryBroker) Subscribe(after Position, deliver func(Message)) (stop func(), err error) {
	br.mu.Lock()
	defer br.mu.Unlock()
	if br.closed {
		return nil, ErrClosed
	}
	for _, m := range br.historyLocked(after, br.kept.len) {
		deliver(m)
	}
	br.named++
	name := br.named
	br.deliver, br.names = append(br.deliver, deliver), append(br.names, name)
	return func() { br.unsubscribe(name) }, nil
}

func (br *MemoryBroker) unsubscribe(name uint64) {
	br.mu.Lock()
	defer br.mu.Unlock()
	if i := slices.Index(br.names, name); i >= 0 {
		br.deliver, br.names = slices.Delete(br.deliver, i, i+1), slices.Delete(br.names, i, i+1)
	}
}

// History implements Broker.
func (br *MemoryBroker) History(_ context.Context, after Position, limit int) ([]Message, error) {
	br.mu.Lock()
	defer br.mu.Unlock()
	return br.historyLocked(after, limit), nil
}

// historyLocked returns copies.
func (br *MemoryBroker) historyLocked(after Position, limit int) []Message {
	skip := 0
	if first := br.newest.Seq - uint64(br.kept.len); after.Epoch == br.newest.Epoch && after.Seq > first {
		skip = int(min(after.Seq-first, uint64(br.kept.len)))
	}
	messages := make([]Message, 0, min(limit, br.kept.len-skip))
	for i := skip; i < br.kept.len && len(messages) < limit; i++ {
		messages = append(messages, br.kept.at(i).clone())
	}
	return messages
}

// Window implements Broker.
func (br *MemoryBroker) Window(context.Context) (before, newest Position, err error) {
	br.mu.Lock()
	defer br.mu.Unlock()
	before = br.newest
	before.Seq -= uint64(br.kept.len)
	return before, br.newest, nil
}

// Close implements Broker. It forgets the messages.
func (br *MemoryBroker) Close(context.Context) error {
	br.mu.Lock()
	defer br.mu.Unlock()
	br.closed = true
	br.deliver, br.names, br.ids = nil, nil, nil
	br.kept, br.order = ring[Message]{}, ring[string]{}
	return nil
}
