//go:build unix

package strangers

import (
	"fmt"
	"slices"
	"sort"
)

// socket judges a plain WebSocket as a whole: its messages are a run of those that the client is owed.
func (tr *track) socket(end *item) {
	q, j := tr.q, tr.j
	defer func() { tr.frames = nil }()
	if tr.startAt.IsZero() {
		return
	}
	n := 0
	for _, sp := range j.r.spans {
		if !sp.to.After(q.opened) {
			n++
		}
	}
	why := ""
	for _, n := range []int{n, n + 1} { // a restart may have been over before it was noted
		if n >= len(j.epochs) || !j.mayBeUp(n, tr.startAt) {
			break
		}
		why = tr.matchSocket(j.epochs[n], end)
		if why == "" {
			return
		}
	}
	if why != "" {
		tr.violate("socket", "%s", why)
	}
}

func (tr *track) matchSocket(e *epochLog, end *item) string {
	q := tr.q
	var owed []*message
	for _, m := range e.known {
		if tr.addressed(m) {
			owed = append(owed, m)
		}
	}
	index := func(seq uint64) int { return sort.Search(len(owed), func(i int) bool { return owed[i].pos.seq > seq }) }
	// The first message is between low and high.
	low, high := 0, len(owed)
	switch {
	case !q.after.none() && q.after.epoch != e.name:
		if len(tr.frames) > 0 {
			return fmt.Sprintf("%d messages of a new epoch without the gap that closes", len(tr.frames))
		}
		if end.kind == ended && end.code == "gap" && end.gap.reason != "epoch" {
			return "a gap of another reason than epoch: " + end.gap.String()
		}
		return ""
	case !q.after.none():
		low = index(q.after.seq)
		high = low
	case q.id == "":
		for low < len(owed) && owed[low].done.Before(q.opened) {
			low++
		}
		for i, m := range owed {
			if m.began.After(tr.startAt) {
				high = i
				break
			}
		}
	case tr.resumeAt.epoch == e.name:
		low = index(tr.resumeAt.seq)
		high = low
	default:
		// What the write carried that the end of the connection cut may come again, but nothing from before that
		// connection.
		if tr.runFrom.epoch == e.name {
			low = index(tr.runFrom.seq)
		}
	}
	if len(tr.frames) > 0 {
		tr.resumeAt = position{}
	}
	likely := low // of several runs that fit, the one that goes on
	if low < high && tr.matched.epoch == e.name && q.id != "" {
		likely = max(low, index(tr.matched.seq))
	}
	found, best, at := -1, 0, uint64(0)
	earliest, latest := -1, -1 // ends of runs that fit: messages without data look alike
	for try := 0; try <= high-low; try++ {
		s := likely + try
		if s > high {
			s = low + s - high - 1
		}
		i, k := s, 0
		for ; k < len(tr.frames); k++ {
			f := &tr.frames[k]
			if i < len(owed) && owed[i].sum == f.sum {
				i++
				continue
			}
			if !slices.ContainsFunc(tr.j.unknown, func(m *message) bool { return m.sum == f.sum }) {
				break
			}
		}
		if k == len(tr.frames) {
			if found < 0 {
				found, earliest = i, i
			}
			earliest, latest = min(earliest, i), max(latest, i)
		}
		best = max(best, k)
	}
	unsure := len(tr.frames) > 0 && earliest != latest
	if found < 0 {
		for s := range owed {
			k := 0
			for k < len(tr.frames) && s+k < len(owed) && owed[s+k].sum == tr.frames[k].sum {
				k++
			}
			if k > best {
				best, at = k, owed[s].pos.seq
			}
		}
		return fmt.Sprintf("%d messages are no run of what is owed; %d of them are, from %d on"+
			" (owed are %d from between %d and %d of epoch %s; the last before was %v, to resume at %v)",
			len(tr.frames), best, at, len(owed), low, high, e.name, tr.matched, tr.resumeAt)
	}
	if len(tr.frames) > 0 {
		first := found
		for i := len(tr.frames) - 1; i >= 0 && first > 0; i-- {
			m, f := owed[first-1], &tr.frames[i]
			if m.sum != f.sum {
				continue // one whose Publish had no answer
			}
			first--
			tr.content(&item{pos: m.pos, sum: f.sum, size: f.size, text: f.text}, m)
			tr.rights(f, m)
		}
		if first < found {
			if tr.matched.epoch == e.name && q.after.none() && q.id != "" {
				tr.j.counts["repeated on a plain WebSocket"] += max(0, index(tr.matched.seq)-first)
			}
			tr.matched, tr.runFrom = owed[found-1].pos, position{e.name, owed[first].pos.seq - 1}
			if unsure {
				tr.matched = owed[earliest-1].pos
				tr.runFrom = position{e.name, owed[max(0, earliest-len(tr.frames))].pos.seq - 1}
				tr.j.counts["runs on a plain WebSocket that may be others"]++
			}
		}
	}
	switch {
	case end.detail == "drained":
		if unsure {
			found = latest
		}
		if len(tr.frames) == 0 {
			for found < len(owed) && owed[found].began.Before(tr.startAt.Add(slack)) {
				found++
			}
		}
		if found < len(owed) {
			since := tr.startAt
			if n := len(tr.frames); n > 0 {
				since = tr.frames[n-1].at
			}
			m := owed[found]
			return fmt.Sprintf("at the end %d messages from %v on did not come"+
				" (%d bytes, published %v after the last that came and %v before the end)",
				len(owed)-found, m.pos, m.size, m.began.Sub(since), end.at.Sub(m.began))
		}
	case end.kind == ended && end.code == "gap":
		tr.j.counts["gaps ws "+end.gap.reason]++
		if end.gap.reason == "epoch" {
			tr.resumeAt = position{}
			break
		}
		if end.gap.from.epoch != e.name {
			return "a gap of another epoch: " + end.gap.String()
		}
		if len(tr.frames) > 0 && end.gap.from.seq <= tr.matched.seq {
			return fmt.Sprintf("%v covers %v, which was delivered", end.gap, tr.matched)
		}
		exact := !unsure && (len(tr.frames) > 0 || !q.after.none())
		if exact && found < len(owed) && owed[found].pos.seq < end.gap.from.seq && tr.required(owed[found]) {
			return fmt.Sprintf("%v did not come before %v", owed[found].pos, end.gap)
		}
		tr.honest(e, end.gap, end.at)
		tr.resumeAt = end.gap.to
	default:
		tr.resumeAt = position{}
	}
	return ""
}
