package gpolltest

import (
	"cmp"
	"slices"
	"sort"

	"github.com/corvuscrypto/gpoll"
)

// A journal holds the accepted messages by Position: the log as the publishers saw it.
type journal struct {
	epochs  []*epochJournal // in the order in which they began
	unknown []publish       // possibly accepted, at a Position that nobody said
	bySum   map[uint64][]gpoll.Position
}

// An epochJournal is the accepted messages of one epoch by seq.
type epochJournal struct {
	epoch    uint64
	order    int
	accepted []publish
	// For each message, the latest beginning of a publish among those up to it.
	latestStart []uint64
	// The beginnings of all publishes in time order, and the highest seq among those up to each.
	starts  []uint64
	highest []uint64
}

// newJournal orders the published messages and verifies I1. A message whose outcome is unknown has the place at which a
// client saw it.
func newJournal(published []publish, sights [][]observation, r *report) *journal {
	j := &journal{bySum: map[uint64][]gpoll.Position{}}
	epochs := map[uint64]*epochJournal{}
	add := func(p publish) {
		e := epochs[p.pos.Epoch]
		if e == nil {
			e = &epochJournal{epoch: p.pos.Epoch}
			epochs[p.pos.Epoch] = e
			j.epochs = append(j.epochs, e)
		}
		e.accepted = append(e.accepted, p)
	}
	slices.SortFunc(published, func(a, b publish) int { return cmp.Compare(a.start, b.start) })
	byID := map[string]publish{}
	for _, p := range published {
		if p.pos.IsZero() {
			j.unknown = append(j.unknown, p)
			continue
		}
		if first, repeat := byID[p.id]; repeat && p.id != "" {
			if first.pos != p.pos {
				r.add("I1", "", "publish id %q was given %v first and %v later", p.id, first.pos, p.pos)
			}
			continue
		}
		byID[p.id] = p
		add(p)
	}
	j.index(nil)
	for _, seen := range sights {
		for _, o := range seen {
			if o.kind == delivered && !o.pos.IsZero() && j.find(o.pos) == nil && j.claim(o.pos, o.sum) {
				p := j.unknown[len(j.unknown)-1]
				j.unknown = j.unknown[:len(j.unknown)-1]
				p.pos = o.pos
				add(p)
				j.index(nil)
			}
		}
	}
	j.index(r)
	verifyRealTime(j, r)
	return j
}

// claim finds an unknown message with that payload and moves it to the end of j.unknown.
func (j *journal) claim(_ gpoll.Position, sum uint64) bool {
	for i, p := range j.unknown {
		if p.sum == sum {
			last := len(j.unknown) - 1
			j.unknown[i], j.unknown[last] = j.unknown[last], p
			return true
		}
	}
	return false
}

// index sorts every epoch. With r it also verifies uniqueness and contiguity and builds what the walks look up.
func (j *journal) index(r *report) {
	holes := len(j.unknown)
	for order, e := range j.epochs {
		e.order = order
		slices.SortStableFunc(e.accepted, func(a, b publish) int { return cmp.Compare(a.pos.Seq, b.pos.Seq) })
		if r == nil {
			continue
		}
		var latest uint64
		for i, p := range e.accepted {
			latest = max(latest, p.start)
			e.latestStart = append(e.latestStart, latest)
			j.bySum[p.sum] = append(j.bySum[p.sum], p.pos)
			if i == 0 {
				continue
			}
			switch before := e.accepted[i-1].pos.Seq; {
			case before == p.pos.Seq:
				r.add("I1", "", "two messages were accepted at %v: %s and %s", p.pos, describe(e.accepted[i-1]), describe(p))
			case p.pos.Seq-before-1 > uint64(holes):
				r.add("I1", "", "nothing was accepted between seq %d and %v, and %d publishes have an unknown outcome",
					before, p.pos, holes)
			default:
				holes -= int(p.pos.Seq - before - 1)
			}
		}
		byStart := slices.Clone(e.accepted)
		slices.SortFunc(byStart, func(a, b publish) int { return cmp.Compare(a.start, b.start) })
		var highest uint64
		for _, p := range byStart {
			highest = max(highest, p.pos.Seq)
			e.starts = append(e.starts, p.start)
			e.highest = append(e.highest, highest)
		}
	}
}

// verifyRealTime reports a publish that began after another had returned and yet got a lower Position.
func verifyRealTime(j *journal, r *report) {
	type placed struct {
		publish
		order int
	}
	var byStart []placed
	for _, e := range j.epochs {
		for _, p := range e.accepted {
			byStart = append(byStart, placed{p, e.order})
		}
	}
	byEnd := slices.Clone(byStart)
	slices.SortFunc(byStart, func(a, b placed) int { return cmp.Compare(a.start, b.start) })
	slices.SortFunc(byEnd, func(a, b placed) int { return cmp.Compare(a.end, b.end) })
	after := func(a, b placed) bool { return a.order > b.order || a.order == b.order && a.pos.Seq > b.pos.Seq }
	var newest placed // of those that had returned
	returned := 0
	for _, p := range byStart {
		for returned < len(byEnd) && byEnd[returned].end < p.start {
			if returned == 0 || after(byEnd[returned], newest) {
				newest = byEnd[returned]
			}
			returned++
		}
		if returned > 0 && after(newest, p) {
			r.add("I1", "", "%v was given to a publish that began after %v had been returned to another", p.pos, newest.pos)
		}
	}
}

// epoch returns the accepted messages of an epoch, nil if there are none.
func (j *journal) epoch(epoch uint64) *epochJournal {
	for _, e := range j.epochs {
		if e.epoch == epoch {
			return e
		}
	}
	return nil
}

// find returns the message that was accepted at pos, or nil.
func (j *journal) find(pos gpoll.Position) *publish {
	e := j.epoch(pos.Epoch)
	if e == nil {
		return nil
	}
	if i := e.after(pos.Seq - 1); i < len(e.accepted) && e.accepted[i].pos.Seq == pos.Seq {
		return &e.accepted[i]
	}
	return nil
}

// resolve returns the message with that payload which a client at cursor may see next, else the last one with it.
func (j *journal) resolve(sum uint64, cursor gpoll.Position) (gpoll.Position, bool) {
	found := j.bySum[sum]
	for _, pos := range found {
		if pos.Epoch != cursor.Epoch || pos.Seq > cursor.Seq {
			return pos, true
		}
	}
	if len(found) > 0 {
		return found[len(found)-1], true
	}
	return gpoll.Position{}, false
}

// after returns the index of the first message behind seq.
func (e *epochJournal) after(seq uint64) int {
	return sort.Search(len(e.accepted), func(i int) bool { return e.accepted[i].pos.Seq > seq })
}

func (e *epochJournal) first() uint64 { return e.accepted[0].pos.Seq }
func (e *epochJournal) last() uint64  { return e.accepted[len(e.accepted)-1].pos.Seq }

// begunAfter reports whether a message up to seq was published after tick. Then nobody could know at tick that the log
// comes that far.
func (e *epochJournal) begunAfter(seq, tick uint64) bool {
	i := e.after(seq)
	return i > 0 && e.latestStart[i-1] > tick
}

// highestAt returns the highest seq whose publish had begun by tick, 0 if none had.
func (e *epochJournal) highestAt(tick uint64) uint64 {
	i := sort.Search(len(e.starts), func(i int) bool { return e.starts[i] > tick })
	if i == 0 {
		return 0
	}
	return e.highest[i-1]
}
