package gpoll

import (
	"cmp"
	"slices"
	"time"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// A replay bounds what one read of the log returns.
type replay struct{ count, bytes int }

// read appends to dst the items that a cursor at after is owed by want: gaps and messages in order, at most what max
// allows, and at least one if there is one. A gap and the message after it come together, as if they were one. Up to
// scanned all that is owed is in items; more says that max ended the read. The cost grows with the items, with the
// addresses of want, and with the topics of its patterns to which something came after the cursor; not with what else
// the log holds.
//
// read keeps the promises about gaps. A gap stands before the next message and covers no message that is delivered. One
// gap announces another epoch; behind it the present epoch is read from its first seq on. A cursor beyond the end goes
// on from the end.
func (l *messageLog) read(after Position, want *interest, max replay, dst []item) (
	items []item, scanned Position, more bool) {

	l.mu.Lock()
	defer l.mu.Unlock()
	items = dst
	cursor := after.Seq
	switch {
	case after.Epoch != l.epoch:
		cursor = 0
		items = append(items, item{
			gap: &Gap{Epoch: after.Epoch, From: min(after.Seq+1, maxSeq), Reason: gapEpoch},
			pos: Position{l.epoch, cursor},
		})
	case cursor > l.hi:
		cursor = l.hi
		items = append(items, item{gap: &Gap{Epoch: l.epoch, Reason: gapFuture}, pos: Position{l.epoch, cursor}})
	}

	sources, lost, why := l.sourcesLocked(cursor, want)
	defer clear(sources) // the memory is the log's own
	bytes := 0
	var last *record
	for {
		next := sources.next()
		if next != nil && next == last { // it is of a topic and of a pattern
			sources.advance()
			continue
		}
		last = next
		// The highest seq before the next message that may have been owed and has left the window.
		until := lost
		if next != nil {
			until = min(lost, next.first()-1)
		}
		if next != nil && next.excepts(want.client) {
			if cursor >= until { // else the gap goes on beyond it
				cursor = next.pos.Seq
			}
			sources.advance()
			continue
		}
		count, size := 0, 0
		if cursor < until {
			count, size = 1, gapSize
		}
		if next != nil {
			count, size = count+1, size+next.size()
		}
		if count == 0 {
			return items, Position{l.epoch, l.hi}, false
		}
		if added := len(items) - len(dst); added > 0 && (added+count > max.count || bytes+size > max.bytes) {
			return items, Position{l.epoch, cursor}, true
		}
		bytes += size
		if cursor < until {
			g := &Gap{Epoch: l.epoch, From: cursor + 1, To: until, Reason: why}
			cursor = until
			items = append(items, item{gap: g, pos: Position{l.epoch, until}})
		}
		if next == nil {
			return items, Position{l.epoch, l.hi}, false
		}
		switch {
		case next.hole == nil:
			items = append(items, item{rec: next, pos: next.pos})
		case next.first() > cursor:
			items = append(items, item{gap: next.hole, pos: next.pos})
		default: // the cursor stands inside the hole
			items = append(items, item{gap: &Gap{l.epoch, cursor + 1, next.pos.Seq, gapBroker}, pos: next.pos})
		}
		cursor = next.pos.Seq
		sources.advance()
	}
}

// newest appends to dst the n newest messages of each topic, and of each topic of a pattern, in order. Where max allows
// fewer, the newest of them stay. It also returns the end of the log, from which their reader goes on.
func (l *messageLog) newest(topics []string, n int, want *interest, max replay, dst []item) (
	items []item, end Position) {

	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	collect := func(s *lane) {
		for i := s.recs.len - 1; i >= 0 && i >= s.recs.len-n; i-- {
			if rec := s.recs.at(i); !rec.excepts(want.client) {
				dst = append(dst, item{rec: rec, pos: rec.pos})
			}
		}
	}
	for _, topic := range topics {
		if s := l.liveLaneLocked(address{kindTopic, topic}, now); s != nil {
			collect(s)
		} else if topicname.IsPattern(topic) {
			l.expireLocked(now)
			found := l.matchingLocked([]string{topic}, 0)
			for _, s := range found {
				collect(s)
			}
			clear(found)
		}
	}
	slices.SortFunc(dst, func(a, b item) int { return cmp.Compare(a.pos.Seq, b.pos.Seq) })
	dst = slices.CompactFunc(dst, func(a, b item) bool { return a.rec == b.rec }) // of a topic and a pattern
	keep, bytes := 0, 0
	for keep < min(len(dst), max.count) {
		bytes += dst[len(dst)-1-keep].rec.size()
		if keep > 0 && bytes > max.bytes {
			break
		}
		keep++
	}
	return dst[len(dst)-keep:], Position{l.epoch, l.hi}
}

// liveLaneLocked returns the lane of an address without messages that are too old, or nil.
func (l *messageLog) liveLaneLocked(to address, now time.Time) *lane {
	s := l.lanes[to]
	if s != nil && (s.limits.Age > 0 || s.window.limits.Age > 0) {
		l.boundLocked(s, now)
		s = l.lanes[to] // boundLocked may forget it
	}
	return s
}

// sourcesLocked returns the lanes of want that hold messages after cursor, and the highest seq after cursor that may
// have been owed and has left, with the reason. sources is memory of the log, valid until the next call.
func (l *messageLog) sourcesLocked(cursor uint64, want *interest) (sources sources, lost uint64, why string) {
	sources = l.sources[:0]
	now := l.now()
	wild := false
	want.addresses(func(to address) {
		s := l.liveLaneLocked(to, now)
		left, reason := l.forgotten, l.why
		if s != nil {
			left, reason = s.evicted, s.why
			if s.recs.len > 0 && s.recs.at(s.recs.len-1).pos.Seq > cursor {
				sources = append(sources, source{s, s.after(cursor)})
			}
		} else if to.kind == kindTopic && topicname.IsPattern(to.name) {
			wild = true // and a topic of which the log knows nothing any more may have matched
		}
		if left > cursor && left > lost {
			lost, why = left, reason
		}
	})
	if wild {
		l.sources = sources
		if left, reason := l.wildSourcesLocked(cursor, want, now); left > max(cursor, lost) {
			lost, why = left, reason
		}
		sources = l.sources
	}
	l.sources = sources[:0]
	sources.order()
	return sources, lost, why
}

// wildSourcesLocked adds the lanes of want's patterns to sources, and returns the highest seq that has left one of
// them, with the reason. From the lanes that are in sources already nothing leaves meanwhile: sourcesLocked has just
// bounded them.
func (l *messageLog) wildSourcesLocked(cursor uint64, want *interest, now time.Time) (lost uint64, why string) {
	l.expireLocked(now)
	found := l.matchingLocked(want.topics, cursor)
	defer clear(found) // the memory is the log's own
	for _, s := range found {
		if s.recs.len > 0 {
			l.sources = append(l.sources, source{s, s.after(cursor)})
		}
		if s.evicted > lost {
			lost, why = s.evicted, s.why
		}
	}
	return lost, why
}

// after returns the index of the first record behind cursor.
func (s *lane) after(cursor uint64) int {
	lo, hi := 0, s.recs.len
	for lo < hi {
		if mid := (lo + hi) / 2; s.recs.at(mid).pos.Seq > cursor {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// A source is a lane and how far it was read. Sources are a heap: the one with the lowest next seq comes first.
type source struct {
	lane *lane
	i    int
}

type sources []source

func (h sources) seq(i int) uint64 { return h[i].lane.recs.at(h[i].i).pos.Seq }

func (h sources) next() *record {
	if len(h) == 0 {
		return nil
	}
	return h[0].lane.recs.at(h[0].i)
}

func (h *sources) advance() {
	s := *h
	s[0].i++
	if s[0].i == s[0].lane.recs.len {
		s[0] = s[len(s)-1]
		s = s[:len(s)-1]
		*h = s
	}
	s.down(0)
}

func (h sources) order() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h sources) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h.seq(child) < h.seq(least) {
				least = child
			}
		}
		if least == i {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
