package gpoll

import (
	"container/heap"
	"time"
)

// Limits bound a window of the log. A message leaves the window by the first bound that it passes. The newest message
// stays, whatever its size, until Age removes it.
type Limits struct {
	Count int           // messages; 0 means the default
	Bytes int           // of memory: data, topic, Except, and about 200 more for each message; 0 means the default
	Age   time.Duration // since the message was accepted; 0 means no bound
}

// or fills the zero bounds of own from those of History.
func (own Limits) or(history Limits) Limits {
	if own.Count == 0 {
		own.Count = history.Count
	}
	if own.Bytes == 0 {
		own.Bytes = history.Bytes
	}
	return own
}

// All windows of topics together hold at most ownedCount times History.Count messages.
const ownedCount = 16

// A window holds the messages of all lanes that share bounds.
type window struct {
	limits Limits
	order  ring[slot] // oldest first
	count  int
	bytes  int
}

// A slot is the place of a message in its window's order. It does not hold the message. When the message has left
// before its turn, by the limits of its lane, the slot is passed over.
type slot struct {
	lane *lane
	seq  uint64
}

// heldBy reports whether the message of p is still in w.
func (p slot) heldBy(w *window) bool {
	s := p.lane
	return s.window == w && s.recs.len > 0 && s.recs.at(0).pos.Seq <= p.seq
}

// oldest returns the lane that begins with w's oldest message. There is one.
func (w *window) oldest() *lane {
	for !w.order.at(0).heldBy(w) {
		w.order.pop()
	}
	return w.order.at(0).lane
}

// compact drops the slots whose messages have left, when most have.
func (w *window) compact() {
	if w.order.len <= 2*w.count+64 {
		return
	}
	var held ring[slot]
	for i := range w.order.len {
		if p := w.order.at(i); p.heldBy(w) {
			held.push(p)
		}
	}
	w.order = held
}

// A lane is the records of one address: what a client of a quiet topic reads instead of the whole log.
type lane struct {
	to      address
	recs    ring[*record]
	bytes   int       // of recs
	evicted uint64    // highest seq that has left; 0: none
	why     string    // why it left
	window  *window   // the shared one; the log's owned one for a topic with its own limits
	node    *laneNode // nil without an index
	found   uint64    // number of the last search that found it
	limits  Limits    // its own; zero in the shared window
	asked   bool      // the application has said its limits
	asking  bool      // is in messageLog.unasked
	fading  bool      // is in messageLog.fading
	aging   bool      // is in messageLog.aging
}

// emptyLocked makes the log one without messages.
func (l *messageLog) emptyLocked() {
	for _, s := range l.lanes {
		for i := range s.recs.len {
			l.forms.leave(s.recs.at(i))
		}
	}
	l.shared = window{limits: l.history}
	l.shared.limits.Bytes -= l.forms.limit
	l.owned = window{limits: Limits{Count: ownedCount * l.history.Count, Bytes: l.history.Bytes}}
	l.lanes = map[address]*lane{}
	if l.index != nil {
		l.index = new(laneNode)
	}
	l.fading, l.aging = ring[*lane]{}, nil
}

// laneLocked returns the lane of an address, a new one if there is none.
func (l *messageLog) laneLocked(to address) *lane {
	s := l.lanes[to]
	if s == nil {
		s = &lane{to: to, window: &l.shared, evicted: l.forgotten, why: l.why}
		l.lanes[to] = s
		if l.index != nil && to.kind == kindTopic {
			s.node = l.index.enter(s)
		}
	}
	return s
}

// keepLocked adds rec to the lane and its window.
func (l *messageLog) keepLocked(s *lane, rec *record) {
	s.recs.push(rec)
	if s.node != nil {
		s.node.rise(rec.pos.Seq)
	}
	s.window.order.push(slot{s, rec.pos.Seq})
	s.window.count++
	s.bytes += int(rec.bytes)
	s.window.bytes += int(rec.bytes)
	if s.recs.len == 1 {
		s.window.bytes += laneBytes
	}
	l.ageLocked(s)
}

// dropLocked drops the oldest message of the lane.
func (l *messageLog) dropLocked(s *lane, why string) {
	rec := s.recs.pop()
	s.window.count--
	s.bytes -= int(rec.bytes)
	s.window.bytes -= int(rec.bytes)
	s.evicted, s.why = rec.pos.Seq, why
	l.forms.leave(rec)
	if s.recs.len == 0 {
		if len(s.recs.buf) > 4 {
			s.recs = ring[*record]{} // pop frees only a large buffer
		}
		s.window.bytes -= laneBytes
		l.fadeLocked(s)
	}
}

// boundLocked drops the messages that exceed the bounds of the lane and of its window.
func (l *messageLog) boundLocked(s *lane, now time.Time) {
	w := s.window
	if w == &l.owned {
		l.evictLaneLocked(s, now)
	}
	l.evictLocked(w, now)
	w.compact()
}

func (l *messageLog) evictLocked(w *window, now time.Time) {
	for w.count > 0 {
		switch { // call oldest only where something may leave: it has a cost
		case w.count > 1 && (w.count > w.limits.Count || w.bytes > w.limits.Bytes):
			l.dropLocked(w.oldest(), gapEvicted)
		case w.limits.Age > 0 && now.Sub(w.oldest().recs.at(0).at) > w.limits.Age:
			l.dropLocked(w.oldest(), gapExpired)
		default:
			return
		}
	}
}

// evictLaneLocked is evictLocked for the limits of one topic.
func (l *messageLog) evictLaneLocked(s *lane, now time.Time) {
	for s.recs.len > 0 {
		switch {
		case s.recs.len > 1 && (s.recs.len > s.limits.Count || s.bytes > s.limits.Bytes):
			l.dropLocked(s, gapEvicted)
		case s.limits.Age > 0 && now.Sub(s.recs.at(0).at) > s.limits.Age:
			l.dropLocked(s, gapExpired)
		default:
			return
		}
	}
}

// fadeLocked remembers a lane without messages. When there are too many it forgets the oldest.
func (l *messageLog) fadeLocked(s *lane) {
	if s.fading {
		return
	}
	s.fading = true
	l.fading.push(s)
	for l.fading.len > l.maxFading {
		s := l.fading.pop()
		s.fading = false
		if s.recs.len > 0 {
			continue
		}
		delete(l.lanes, s.to)
		if s.node != nil {
			s.node.leave()
		}
		if s.evicted > l.forgotten {
			l.forgotten, l.why = s.evicted, s.why
		}
	}
}

// askFirst asks for the limits of a topic that has none yet, before its message is given to the broker. Only the
// publisher of that message waits for the application. A publisher that comes meanwhile, perhaps called by TopicLimits
// itself, does not: its message is in the shared window until the limits are known.
func (l *messageLog) askFirst(topic string) {
	if l.topicLimits != nil {
		l.ask(address{kindTopic, topic})
	}
}

// maxInquiries is how many topics askFirst asks for at a time: TopicLimits may publish to other topics.
const maxInquiries = 256

// ask asks for the limits of a topic, unless they are known or somebody asks.
func (l *messageLog) ask(to address) {
	if !l.beginInquiry(to) {
		return
	}
	defer l.endInquiry(to)
	l.limit(to, l.topicLimits(to.name))
}

func (l *messageLog) beginInquiry(to address) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.lanes[to]
	if _, asks := l.inquiries[to]; asks || s != nil && s.asked || len(l.inquiries) >= maxInquiries {
		return false
	}
	if l.inquiries == nil {
		l.inquiries = map[address]struct{}{}
	}
	l.inquiries[to] = struct{}{}
	return true
}

func (l *messageLog) endInquiry(to address) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.inquiries, to)
}

// askLaterLocked has askAll ask for the limits of a topic whose message has come from another server. Until then the
// topic is in the shared window.
func (l *messageLog) askLaterLocked(s *lane) {
	_, asks := l.inquiries[s.to]
	if asks || s.asking || l.unasked.len >= l.maxFading { // the topic's next message tries again
		return
	}
	s.asking = true
	l.unasked.push(s.to.name)
	if !l.asking {
		l.asking = true
		l.spawn(l.askAll)
	}
}

// askAll is a goroutine that ends when there is nothing to ask.
func (l *messageLog) askAll() {
	for {
		l.mu.Lock()
		if l.unasked.len == 0 || l.closed {
			l.asking = false
			l.mu.Unlock()
			return
		}
		to := address{kindTopic, l.unasked.pop()}
		s := l.lanes[to]
		if s != nil {
			s.asking = false // should this time fail, the topic's next message tries again
		}
		l.mu.Unlock()
		if s != nil { // else the topic is forgotten
			l.ask(to)
		}
	}
}

// limit sets the limits of a topic. The messages that it has move to the owned window.
func (l *messageLog) limit(to address, own Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.laneLocked(to)
	if s.asked {
		return
	}
	s.asked, s.asking = true, false
	if s.recs.len == 0 {
		l.fadeLocked(s)
	}
	if own == (Limits{}) {
		return
	}
	s.limits = own.or(l.history)
	size := s.bytes
	if s.recs.len > 0 {
		size += laneBytes
	}
	l.shared.count -= s.recs.len
	l.shared.bytes -= size
	l.owned.count += s.recs.len
	l.owned.bytes += size
	s.window = &l.owned
	for i := range s.recs.len {
		l.owned.order.push(slot{s, s.recs.at(i).pos.Seq})
	}
	l.shared.compact()
	l.ageLocked(s)
	l.boundLocked(s, time.Now())
}

// agingLanes is a heap of the lanes that have messages and an age of their own: the lane whose oldest message expires
// first comes first.
type agingLanes []agingLane

type agingLane struct {
	lane *lane
	due  time.Time // or later
}

func (h agingLanes) Len() int           { return len(h) }
func (h agingLanes) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h agingLanes) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *agingLanes) Push(v any)        { *h = append(*h, v.(agingLane)) }
func (h *agingLanes) Pop() any {
	last := len(*h) - 1
	v := (*h)[last]
	(*h)[last] = agingLane{}
	*h = (*h)[:last]
	return v
}

// ageLocked enters a lane in aging.
func (l *messageLog) ageLocked(s *lane) {
	if s.limits.Age > 0 && s.recs.len > 0 && !s.aging {
		s.aging = true
		heap.Push(&l.aging, agingLane{s, s.recs.at(0).at.Add(s.limits.Age)})
	}
}

// expire drops messages that have become too old, also where nothing is published.
func (l *messageLog) expire(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked(now)
}

func (l *messageLog) expireLocked(now time.Time) {
	l.evictLocked(&l.shared, now)
	for len(l.aging) > 0 && l.aging[0].due.Before(now) {
		s := heap.Pop(&l.aging).(agingLane).lane
		s.aging = false
		l.evictLaneLocked(s, now)
		l.ageLocked(s)
	}
	l.owned.compact()
}

// expireSometimes drops old messages once in a second, from whichever routine comes first.
func (l *messageLog) expireSometimes(now time.Time) {
	last, elapsed := l.expired.Load(), int64(now.Sub(l.began))
	if elapsed-last >= int64(time.Second) && l.expired.CompareAndSwap(last, elapsed) {
		l.expire(now)
	}
}

// windowStats reports the bounds of the shared window and what all windows hold.
func (l *messageLog) windowStats() (epoch, lo, hi uint64, messages, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lo = l.hi + 1
	if l.shared.count > 0 {
		lo = l.shared.oldest().recs.at(0).pos.Seq
	}
	return l.epoch, lo, l.hi, l.shared.count + l.owned.count, l.shared.bytes + l.owned.bytes + l.forms.held()
}
