package gpoll

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// A record is a message in the log, or a hole that the broker left. It never changes once appended, except
// that each wire form is added when it is first asked for, and may be freed.
type record struct {
	pos    Position
	bytes  int32       // of memory, without the forms; see weigh
	binary bool        // data is not UTF-8
	begins bool        // is the first of its epoch
	gone   atomic.Bool // has left its window
	forms  atomic.Pointer[formSet]
	cache  *formCache // counts the forms; nil: they are not counted
	data   string
	to     address
	except []string // sorted public ids, each once
	at     time.Time
	hole   *Gap // the broker lost this range; data is empty
}

// size is how many bytes r counts in an answer, a queue or a backlog. It never changes.
func (r *record) size() int {
	if r.hole != nil {
		return gapSize
	}
	return len(r.data) + len(r.to.name)
}

// gapSize is how many bytes a gap counts: no less than its JSON takes.
const gapSize = 160

// weigh returns how much memory r takes without its forms.
func (r *record) weigh() int {
	n := recordBytes + len(r.data) + len(r.to.name)
	if r.hole != nil {
		n += int(unsafe.Sizeof(*r.hole))
	}
	for _, id := range r.except {
		n += int(unsafe.Sizeof(id)) + len(id)
	}
	return n
}

// first is the lowest seq that r stands for.
func (r *record) first() uint64 {
	if r.hole != nil {
		return r.hole.From
	}
	return r.pos.Seq
}

// excepts reports whether the client with that public id is left out.
func (r *record) excepts(publicID string) bool {
	_, found := slices.BinarySearch(r.except, publicID)
	return found
}

// interest is what a cursor is owed besides what goes to everybody.
type interest struct {
	topics []string
	client string // public id
	user   string
}

// addresses calls visit for each address of w.
func (w *interest) addresses(visit func(address)) {
	visit(address{kind: kindAll})
	for _, topic := range w.topics {
		visit(address{kindTopic, topic})
	}
	visit(address{kindClient, w.client})
	if w.user != "" {
		visit(address{kindUser, w.user})
	}
}

// An item is a message, or a gap before the next message. A cursor that has passed it stands at pos.
type item struct {
	rec *record // nil for a gap
	gap *Gap
	pos Position
}

// messageLog is the one total order of a Broadcaster's messages and the window of it that can be replayed.
// All its methods may be called concurrently.
type messageLog struct {
	topicLimits func(string) Limits // asks the application, without any lock; nil: all topics share a window
	spawn       func(func())        // runs askAll
	lag         int                 // how many messages a reader may be behind before admit waits
	maxFading   int
	began       time.Time
	ages        bool         // a window may be bounded by age
	expired     atomic.Int64 // when expire last ran, in nanoseconds since began

	mu      sync.Mutex // guards the fields below
	epoch   uint64
	hi      uint64
	left    []uint64 // the epochs before
	history Limits
	shared  window
	owned   window // all windows of topics with limits of their own, together
	forms   formCache
	lanes   map[address]*lane
	index   *laneNode // of the lanes of topics; nil: no pattern was ever read
	aging   agingLanes

	unasked   ring[string]         // topics whose limits askAll has to find out
	asking    bool                 // askAll runs
	inquiries map[address]struct{} // topics for which TopicLimits runs

	sources  sources // memory of a read
	matching []*lane // likewise
	searches uint64  // in index; the lanes know the last that found them

	// A lane without records only remembers what left it. The log forgets the oldest of those lanes. forgotten is the
	// highest seq that they remembered: of an address without a lane nothing newer has left. At first it is the seq before
	// the log's first message, since everything before that has left.
	fading    ring[*lane]
	forgotten uint64
	why       string

	// What some reader has not taken yet: the records (hi-live.len, hi].
	live    ring[*record]
	readers map[*logReader]struct{}
	slowest uint64        // at most the lowest taken of all readers
	room    chan struct{} // closed when a reader takes; nil when nobody waits
	closed  bool
}

// A logReader takes everything that is appended: a routine.
type logReader struct {
	taken  uint64        // guarded by messageLog.mu
	signal chan struct{} // something is in the log; holds one
	hurry  chan struct{} // a publisher waits; holds one
}

func newLogReader() logReader {
	return logReader{signal: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
}

// notify tells the reader that the log has grown. It does not wait.
func (r *logReader) notify() {
	select {
	case r.signal <- struct{}{}:
	default:
	}
}

// hurryUp tells the reader that a publisher waits. It does not wait.
func (r *logReader) hurryUp() {
	select {
	case r.hurry <- struct{}{}:
	default:
	}
}

// newMessageLog returns a log that begins behind at. What the epoch had up to at counts as having left.
func newMessageLog(at Position, history Limits, topicLimits func(string) Limits, lag int) *messageLog {
	l := &messageLog{
		topicLimits: topicLimits,
		ages:        history.Age > 0 || topicLimits != nil,
		lag:         lag,
		maxFading:   max(16384, 2*history.Count),
		began:       time.Now(),
		epoch:       at.Epoch,
		hi:          at.Seq,
		forgotten:   at.Seq,
		why:         gapEvicted,
		history:     history,
		lanes:       map[address]*lane{},
		readers:     map[*logReader]struct{}{},
		slowest:     at.Seq,
		forms:       formCache{limit: history.Bytes / formsShare},
	}
	l.emptyLocked()
	return l
}

// admit waits until no reader is lag messages behind.
func (l *messageLog) admit(ctx context.Context) error {
	for {
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return ErrClosed
		}
		if l.behindLocked() < l.lag {
			l.mu.Unlock()
			return nil
		}
		if l.room == nil {
			l.room = make(chan struct{})
		}
		room := l.room
		for r := range l.readers {
			if l.hi-r.taken >= uint64(l.lag) {
				r.hurryUp()
			}
		}
		l.mu.Unlock()
		if within(inRoutine) { // it would wait for itself
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// behindLocked returns by how many messages the slowest reader is behind. It visits the readers only when the answer of
// the last visit is too old. Then it drops what all readers have taken, and wakes idle ones that would otherwise block
// publishers.
func (l *messageLog) behindLocked() int {
	if behind := l.hi - l.slowest; behind < uint64(l.lag+1)/2 {
		return int(behind)
	}
	l.slowest = l.hi
	for r := range l.readers {
		l.slowest = min(l.slowest, r.taken)
		if l.hi-r.taken >= uint64(l.lag+1)/2 {
			r.notify()
		}
	}
	for l.live.len > 0 && l.live.at(0).pos.Seq <= l.slowest {
		l.live.pop()
	}
	return int(l.hi - l.slowest)
}

// What append did.
type appendResult uint8

const (
	dropped     appendResult = iota // a repeat, or late
	full                            // nothing: a reader is too far behind
	appended                        // the record
	appendedToo                     // and something for everybody: a gap, or the beginning of an epoch
)

// append adds a record that the broker has accepted, unless a reader is lag messages behind. Records come in the
// broker's order; a repeat is dropped, and a hole in the numbers becomes a gap of reason "broker".
func (l *messageLog) append(rec *record, lag int) appendResult {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.pastLocked(rec.pos) {
		return dropped
	}
	if l.hi-l.slowest >= uint64(lag) && l.behindLocked() >= lag {
		return full
	}
	did := appended
	if rec.pos.Epoch != l.epoch {
		l.restartLocked(Position{rec.pos.Epoch, rec.first() - 1}, rec.begins)
		did = appendedToo
	}
	if from := l.hi + 1; rec.first() > from {
		l.addLocked(newHole(from, Position{l.epoch, rec.first() - 1}, rec.at))
		did = appendedToo
	}
	if rec.hole != nil {
		did = appendedToo
	}
	l.addLocked(rec)
	l.behindLocked()
	return did
}

// now is the time, or zero where no window is bounded by age: asking for the time costs a tenth of a Publish.
func (l *messageLog) now() time.Time {
	if !l.ages {
		return time.Time{}
	}
	return time.Now()
}

// newHole returns the record of what the broker has lost between two seqs.
func newHole(from uint64, to Position, at time.Time) *record {
	return &record{pos: to, at: at, hole: &Gap{Epoch: to.Epoch, From: from, To: to.Seq, Reason: gapBroker}}
}

// past reports whether the log has come to p already, or p is of an epoch that is over.
func (l *messageLog) past(p Position) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pastLocked(p)
}

func (l *messageLog) pastLocked(p Position) bool {
	if p.Epoch == l.epoch {
		return p.Seq <= l.hi
	}
	return slices.Contains(l.left, p.Epoch)
}

// restart begins a new epoch behind at. Nothing of it has come yet, and what it may have had up to at never came.
// restart reports false for an epoch that is present or over.
func (l *messageLog) restart(at Position) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || at.Epoch == l.epoch || l.pastLocked(at) {
		return false
	}
	l.restartLocked(at, false)
	return true
}

// restartLocked begins a new epoch behind at. Unless begins is set, what it may have had up to at never came.
func (l *messageLog) restartLocked(at Position, begins bool) {
	if l.left = append(l.left, l.epoch); len(l.left) > 64 {
		l.left = l.left[1:]
	}
	l.epoch, l.hi = at.Epoch, at.Seq
	l.emptyLocked()
	l.forgotten, l.why = l.hi, gapEvicted
	if begins {
		l.forgotten = 0
	}
	l.live = ring[*record]{}
	for r := range l.readers {
		r.taken = l.hi
	}
	l.slowest = l.hi
}

// addLocked appends rec, which no other goroutine has seen yet.
func (l *messageLog) addLocked(rec *record) {
	if rec.to.kind == kindNobody {
		l.passLocked(rec)
		return
	}
	s := l.laneLocked(rec.to)
	rec.to = s.to // all records of a lane share its name
	rec.cache, rec.bytes = &l.forms, int32(min(rec.weigh(), math.MaxInt32))
	l.keepLocked(s, rec)
	l.passLocked(rec)
	l.boundLocked(s, rec.at)
	if rec.to.kind == kindTopic && l.topicLimits != nil && !s.asked {
		l.askLaterLocked(s)
	}
}

// passLocked moves the end of the log behind rec, and has the readers take rec.
func (l *messageLog) passLocked(rec *record) {
	l.hi = rec.pos.Seq
	if len(l.readers) > 0 {
		l.live.push(rec)
	} else {
		l.slowest = l.hi
	}
}

// full reports whether a reader is so far behind that publishers wait for it.
func (l *messageLog) full(r *logReader) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hi-r.taken >= uint64(l.lag)
}

// take hands a reader all records that it has not taken yet, appended to dst. It returns the epoch and the Seq
// up to which the reader has now taken everything.
func (l *messageLog) take(r *logReader, dst []*record) (batch []*record, hi Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.live.len
	for first > 0 && l.live.at(first-1).pos.Seq > r.taken {
		first--
	}
	for i := first; i < l.live.len; i++ {
		dst = append(dst, l.live.at(i))
	}
	r.taken = l.hi
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
	return dst, Position{l.epoch, l.hi}
}

// join lets a new reader read from the present end on, and returns that end.
func (l *messageLog) join(r *logReader) Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.readers) == 0 {
		l.live, l.slowest = ring[*record]{}, l.hi
	}
	r.taken = l.hi
	l.readers[r] = struct{}{}
	return Position{l.epoch, l.hi}
}

// leave ends what join began.
func (l *messageLog) leave(r *logReader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.readers, r)
	l.slowest = 0 // it may have been this one
	l.behindLocked()
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
}

// end returns the Position of the newest message.
func (l *messageLog) end() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Position{l.epoch, l.hi}
}

// close ends the waits of admit; nothing is appended any more.
func (l *messageLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
}
