package gpolltest

import (
	"slices"
	"sort"
	"strings"

	"github.com/corvuscrypto/gpoll"
)

// A walk follows one client through what it saw.
type walk struct {
	rules   Checker
	journal *journal
	report  *report
	name    string

	public, user string
	topics       map[string]bool // subscribed, patterns too

	synced    bool           // at is known
	at        gpoll.Position // everything owed up to here is accounted for
	announced bool           // an epoch gap came, nothing of the new epoch yet
	since     uint64         // the tick at which the epoch was entered
	seen      []uint64       // delivered seqs of the epoch
	gaps      [][2]uint64    // of the epoch
	tick      uint64         // of the present step
}

func (w *walk) violate(invariant, format string, args ...any) {
	w.report.add(invariant, w.name, format, args...)
}

func (w *walk) step(o observation) {
	w.tick = o.tick
	switch o.kind {
	case registered:
		w.public, w.user = o.topic, o.user
	case scanned:
		w.scan(o.pos, "position")
	case subscribed:
		if !o.pos.IsZero() {
			w.scan(o.pos, "subscription")
		}
		w.topics[o.topic] = true
	case unsubscribed:
		if !o.pos.IsZero() {
			w.scan(o.pos, "end of a subscription")
		}
		delete(w.topics, o.topic)
	case delivered:
		w.deliver(o)
	case repeated:
		w.repeat(o.pos)
	case gap:
		w.gap(gpoll.Gap{Epoch: o.pos.Epoch, From: o.pos.Seq, To: o.to, Reason: o.topic})
	case drained:
		w.drain()
	}
}

// scan moves to pos: what was owed up to there must have come.
func (w *walk) scan(pos gpoll.Position, what string) {
	if !w.synced {
		w.enter(pos)
	}
	w.meet(pos, what)
	w.advance(pos.Seq, what)
	w.notAhead(pos, what)
}

// enter begins to account at pos.
func (w *walk) enter(pos gpoll.Position) {
	if w.at.Epoch != pos.Epoch {
		w.seen, w.gaps = nil, nil
	}
	w.at, w.synced, w.announced, w.since = pos, true, false, w.tick
}

// meet verifies the change of epoch, if pos is one, and makes its epoch the present one.
func (w *walk) meet(pos gpoll.Position, what string) {
	if pos.Epoch == w.at.Epoch {
		if w.announced {
			w.violate("I8", "a gap announced a new epoch, but the %s %v is of the old one", what, pos)
			w.announced = false
		}
		return
	}
	old, next := w.journal.epoch(w.at.Epoch), w.journal.epoch(pos.Epoch)
	if !w.announced {
		w.violate("I8", "the %s %v came after %v without a gap of reason epoch", what, pos, w.at)
		if old != nil {
			w.advance(old.last(), "change of epoch")
		}
	}
	if old != nil && next != nil && next.order < old.order {
		w.violate("I8", "the %s %v is of an epoch older than that of %v", what, pos, w.at)
	}
	begin := pos.Seq
	if next != nil {
		begin = min(begin, next.first()-1)
	}
	w.enter(gpoll.Position{Epoch: pos.Epoch, Seq: begin})
}

// advance moves the account to seq: everything owed on the way that was not seen is lost silently.
func (w *walk) advance(seq uint64, what string) {
	if seq <= w.at.Seq {
		return
	}
	if lost, first := w.owed(w.at.Seq, seq); lost > 0 {
		w.violate("I5", "%d messages lost silently between %v and the %s %d, the first is %v, %s",
			lost, w.at, what, seq, first.pos, describe(*first))
	}
	w.at.Seq = seq
}

// owed counts the messages of the present epoch that the client is owed after after, up to upTo.
func (w *walk) owed(after, upTo uint64) (n int, first *publish) {
	e := w.journal.epoch(w.at.Epoch)
	if e == nil {
		return 0, nil
	}
	for i := e.after(after); i < len(e.accepted) && e.accepted[i].pos.Seq <= upTo; i++ {
		if p := &e.accepted[i]; w.isOwed(p) {
			if n++; n == 1 {
				first = p
			}
		}
	}
	return n, first
}

func (w *walk) isOwed(p *publish) bool {
	invariant, _ := w.misdirected(p)
	return invariant == ""
}

// misdirected returns the invariant that a delivery of p would break, and why, or "".
func (w *walk) misdirected(p *publish) (invariant, why string) {
	switch client, user := p.to.Client(), p.to.User(); {
	case p.topic != "" && !w.subscribes(p.topic):
		return "I6", "the client is not subscribed"
	case client != "" && client != w.public:
		return "I11", "the client is " + w.public
	case user != "" && user != w.user:
		return "I11", "the client's user is \"" + w.user + "\""
	case w.public != "" && slices.Contains(p.except, w.public):
		return "I11", "the client is excepted"
	}
	return "", ""
}

// subscribes reports whether the client has the topic, or a pattern that matches it.
func (w *walk) subscribes(topic string) bool {
	if w.topics[topic] {
		return true
	}
	for pattern := range w.topics {
		if matches(pattern, topic) {
			return true
		}
	}
	return false
}

// matches reports whether a subscription to pattern is owed topic: between dots * stands for one token, and > at the
// end for one or more.
func matches(pattern, topic string) bool {
	p, tokens := strings.Split(pattern, "."), strings.Split(topic, ".")
	if last := len(p) - 1; p[last] == ">" && len(tokens) > last {
		p, tokens = p[:last], tokens[:last]
	}
	return slices.EqualFunc(p, tokens, func(p, token string) bool { return p == "*" || p == token })
}

// notAhead verifies that the log had come as far as pos.
func (w *walk) notAhead(pos gpoll.Position, what string) {
	if e := w.journal.epoch(pos.Epoch); e != nil && e.begunAfter(pos.Seq, w.tick) {
		w.violate("I5", "the %s %v came before a message up to there was published: it would never be delivered", what, pos)
	}
}

func (w *walk) deliver(o observation) {
	pos := o.pos
	if pos.IsZero() {
		var ok bool
		if pos, ok = w.journal.resolve(o.sum, w.at); !ok {
			w.violate("I3", "a message of %d bytes was delivered that nobody published", o.size)
			return
		}
	}
	if !w.synced {
		w.enter(gpoll.Position{Epoch: pos.Epoch, Seq: pos.Seq - 1})
	}
	w.meet(pos, "message")
	switch {
	case pos.Seq > w.at.Seq:
		w.advance(pos.Seq-1, "message behind")
	case w.covered(pos.Seq):
		w.violate("I7", "%v was delivered after a gap had covered it", pos)
	case w.saw(pos.Seq):
		w.violate("I2", "%v was delivered twice", pos)
	default:
		w.violate("I2", "%v was delivered after %v", pos, w.at)
	}
	w.judge(o, pos)
	if pos.Seq > w.at.Seq {
		w.at.Seq = pos.Seq
		w.seen = append(w.seen, pos.Seq)
	}
}

// judge compares a delivered message with what was published at its Position.
func (w *walk) judge(o observation, pos gpoll.Position) {
	p := w.journal.find(pos)
	if p == nil {
		w.violate("I3", "%v was delivered, which nobody published", pos)
		return
	}
	if p.start > w.tick {
		w.violate("I3", "%v was delivered before it was published", pos)
	}
	if o.sum != p.sum {
		w.violate("I4", "%v arrived with another payload: %d bytes, published were %s", pos, o.size, describe(*p))
	}
	if o.known && o.topic != p.topic {
		w.violate("I4", "%v arrived with topic %q, published were %s", pos, o.topic, describe(*p))
	}
	if invariant, why := w.misdirected(p); invariant != "" {
		w.violate(invariant, "%v, %s, was delivered: %s", pos, describe(*p), why)
	}
}

// repeat judges what came at or before the cursor that the attach had brought.
func (w *walk) repeat(pos gpoll.Position) {
	switch {
	case pos.Epoch == w.at.Epoch && w.covered(pos.Seq):
		w.violate("I7", "%v was sent after a gap had covered it", pos)
	case !w.rules.AllowRepeats:
		w.violate("I2", "%v was sent although the client stood at %v", pos, w.at)
	}
}

func (w *walk) gap(g gpoll.Gap) {
	if w.rules.NoGaps {
		w.violate("I9", "a gap in a run without fault: %v", &g)
	}
	switch g.Reason {
	case "future":
		w.future()
		return
	case "epoch", "evicted", "expired", "broker":
	default:
		w.violate("I7", "a gap of unknown reason %q", g.Reason)
	}
	from := gpoll.Position{Epoch: g.Epoch, Seq: g.From}
	if !w.synced {
		w.enter(gpoll.Position{Epoch: g.Epoch, Seq: max(g.From, 1) - 1})
	}
	if g.Reason == "epoch" && (w.announced || g.Epoch != w.at.Epoch) {
		w.violate("I8", "the gap %v announces the end of an epoch that has been announced, or in which the client "+
			"does not stand: it is at %v", &g, w.at)
		return
	}
	w.meet(from, "gap from")
	w.advance(max(g.From, 1)-1, "gap behind")
	to := g.To
	switch {
	case g.Reason == "epoch":
		if to != 0 {
			w.violate("I8", "the gap %v announces an epoch, but not that the rest of the old one is missing", &g)
		}
		to, w.announced = 1<<64-1, true
	case to == 0:
		w.violate("I8", "the gap %v covers the rest of an epoch, but announces no new one", &g)
		to = 1<<64 - 1
	case to < g.From:
		w.violate("I7", "the gap %v covers nothing", &g)
		return
	default:
		w.notAhead(gpoll.Position{Epoch: g.Epoch, Seq: to}, "gap up to")
	}
	if i := sort.Search(len(w.seen), func(i int) bool { return w.seen[i] >= g.From }); i < len(w.seen) && w.seen[i] <= to {
		w.violate("I7", "the gap %v covers seq %d, which was delivered", &g, w.seen[i])
	}
	if e := w.journal.epoch(g.Epoch); e != nil && w.rules.Window > 0 && g.Reason == "evicted" {
		if highest := e.highestAt(w.tick); to+uint64(w.rules.Window) > highest {
			w.violate("I7", "the gap %v reaches into the window of %d messages: the newest was seq %d at most", &g,
				w.rules.Window, highest)
		}
	}
	w.gaps = append(w.gaps, [2]uint64{g.From, to})
	if !w.announced {
		w.at.Seq = max(w.at.Seq, to)
	}
}

// future judges the gap that says: the client's cursor was beyond the end of the log. The account begins anew at the
// next Position.
func (w *walk) future() {
	if e := w.journal.epoch(w.at.Epoch); w.synced && e != nil {
		for i := e.after(max(w.at.Seq, 1) - 1); i < len(e.accepted); i++ {
			if p := e.accepted[i]; p.end < w.tick {
				w.violate("I7", "a gap of reason future, but the client stood at %v and %v had been accepted", w.at, p.pos)
				break
			}
		}
	}
	w.synced = false
}

// drain verifies that nothing is owed any more.
func (w *walk) drain() {
	if len(w.journal.epochs) == 0 {
		return
	}
	if !w.synced {
		w.violate("I13", "drained, but the client never had a Position")
		return
	}
	newest := w.journal.epochs[len(w.journal.epochs)-1]
	stood := w.at
	missing := 0
	for _, e := range w.journal.epochs {
		// An epoch in which nothing was accepted has its place by the time it was seen.
		if own := w.journal.epoch(w.at.Epoch); own != nil && e.order < own.order || own == nil && e.starts[0] < w.since {
			continue
		}
		if e.epoch != w.at.Epoch {
			if e != newest && w.announced {
				continue
			}
			w.enter(gpoll.Position{Epoch: e.epoch, Seq: e.first() - 1})
		} else if w.announced {
			continue
		}
		n, _ := w.owed(w.at.Seq, e.last())
		missing += n
		w.advance(e.last(), "end of the run")
	}
	if missing > 0 {
		w.violate("I13", "drained at %v, but %d messages up to %v are owed", stood, missing,
			gpoll.Position{Epoch: newest.epoch, Seq: newest.last()})
	}
}

func (w *walk) saw(seq uint64) bool {
	_, found := slices.BinarySearch(w.seen, seq)
	return found
}

func (w *walk) covered(seq uint64) bool {
	return slices.ContainsFunc(w.gaps, func(g [2]uint64) bool { return g[0] <= seq && seq <= g[1] })
}
