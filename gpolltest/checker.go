package gpolltest

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/corvuscrypto/gpoll"
)

// A Checker reads a [History] and reports every breach of the promises that gpoll makes (docs/protocol.md, section 9).
// The zero Checker verifies these invariants:
//
//	I1   accepted seqs are contiguous inside an epoch, unique, and in real-time order
//	I2   a client's messages strictly increase: no duplicate, no step back
//	I3   nothing is delivered that was not published
//	I4   payload and topic arrive unaltered
//	I5   everything owed was delivered or is covered by a gap, at each message, gap, scanned Position and at the end
//	I6   nothing arrives of a topic that the client is not subscribed to
//	I7   a gap covers nothing that was delivered, or is delivered afterwards
//	I8   a change of epoch is announced once, before anything of the new epoch
//	I11  nothing arrives that is addressed to somebody else, or that excepts this client
//	I13  a drained client stands at or behind the last message it was owed
//
// Other numbers: I9 says that there are no gaps; NoGaps turns it on. I10 says that a broker has exactly the accepted
// messages; [Checker.CheckBroker] verifies it. I12 says that goroutines and descriptors return to the baseline;
// [Resources.Await] verifies it.
type Checker struct {
	// NoGaps makes every gap a violation of I9. It suits a run without faults in which no client stays away for longer
	// than the window.
	NoGaps bool

	// Window is how many of the newest messages are certainly in the window, 0 if that is not known. A gap of reason
	// "evicted" that reaches into them violates I7.
	Window int

	// AllowRepeats accepts messages on the wire at or before the cursor that the attach brought. The protocol promises
	// only delivery at least once there. But gpoll's log answers a cursor with exactly the messages after it, so a
	// repeat is a fault (I2) unless a broker or proxy explains it.
	AllowRepeats bool

	// Limit is how many violations are reported; 0 means 100. One more says how many there were beyond.
	Limit int
}

// A Violation is one breach of one invariant.
type Violation struct {
	Invariant string // "I1" to "I13"
	Client    string // the Trace's name, empty when no single client is concerned
	Fact      string // a sentence
}

// String returns the invariant, the client and the fact.
func (v Violation) String() string {
	if v.Client == "" {
		return v.Invariant + ": " + v.Fact
	}
	return v.Invariant + ": " + v.Client + ": " + v.Fact
}

// Check returns the violations in h, nil if there are none. The publishers and clients should have stopped: Check
// judges events that are under way only as far as they are recorded.
func (c Checker) Check(h *History) []Violation {
	h.mu.Lock()
	published, traces := slices.Clone(h.published), slices.Clone(h.traces)
	h.mu.Unlock()
	r := &report{limit: cmp.Or(c.Limit, 100)}
	sights := make([][]observation, len(traces))
	for i, t := range traces {
		t.mu.Lock()
		sights[i] = slices.Clone(t.events)
		t.mu.Unlock()
	}
	j := newJournal(published, sights, r)
	for i, t := range traces {
		w := walk{rules: c, journal: j, report: r, name: t.name, topics: map[string]bool{}}
		for _, o := range sights[i] {
			w.step(o)
		}
	}
	return r.violations()
}

// CheckBroker verifies I10: content is exactly what was accepted. content is a broker's own record of an epoch, from
// its first message or from any later one on. CheckBroker passes over records that are no messages. It returns the
// violations, nil if there are none.
func (c Checker) CheckBroker(h *History, content []gpoll.Record) []Violation {
	h.mu.Lock()
	published := slices.Clone(h.published)
	h.mu.Unlock()
	r := &report{limit: cmp.Or(c.Limit, 100)}
	j := newJournal(published, nil, &report{})
	var last gpoll.Position
	for i, record := range content {
		if i > 0 && (record.Position.Epoch != last.Epoch || record.Position.Seq != last.Seq+1) {
			r.add("I10", "", "the broker holds %v directly after %v", record.Position, last)
		}
		last = record.Position
		if record.Kind > gpoll.RecordMessage {
			continue
		}
		m, err := record.Message()
		if err != nil {
			r.add("I10", "", "the broker holds %v altered: %v", record.Position, err)
			continue
		}
		p := j.find(m.Position)
		switch {
		case p == nil && !j.claim(m.Position, sumOf(m.Data)):
			r.add("I10", "", "the broker holds %v, which nobody published", m.Position)
		case p != nil && (p.sum != sumOf(m.Data) || p.topic != m.Topic || p.to != m.To):
			r.add("I10", "", "the broker holds %v altered: %s there, %s published", m.Position, describe(newPublish(m)),
				describe(*p))
		}
	}
	if len(content) == 0 {
		if len(published) > 0 {
			r.add("I10", "", "the broker holds nothing of %d messages", len(published))
		}
		return r.violations()
	}
	if e := j.epoch(last.Epoch); e != nil && e.last() > last.Seq {
		r.add("I10", "", "the broker's record ends at %v, but %v was accepted", last,
			gpoll.Position{Epoch: e.epoch, Seq: e.last()})
	}
	return r.violations()
}

// describe says what a message is, in a sentence.
func describe(p publish) string {
	s := fmt.Sprintf("%d bytes", p.size)
	switch {
	case p.topic != "":
		s += fmt.Sprintf(" to topic %q", p.topic)
	case p.to.Client() != "":
		s += " to client " + p.to.Client()
	case p.to.User() != "":
		s += fmt.Sprintf(" to user %q", p.to.User())
	default:
		s += " to everybody"
	}
	if len(p.except) > 0 {
		s += fmt.Sprintf(" except %d clients", len(p.except))
	}
	return s
}

// A report gathers violations up to its limit.
type report struct {
	limit  int
	all    []Violation
	beyond int
}

func (r *report) add(invariant, client, format string, args ...any) {
	if len(r.all) >= r.limit {
		r.beyond++
		return
	}
	r.all = append(r.all, Violation{invariant, client, fmt.Sprintf(format, args...)})
}

func (r *report) violations() []Violation {
	if r.beyond > 0 {
		last := r.all[len(r.all)-1]
		r.all = append(r.all, Violation{last.Invariant, "",
			fmt.Sprintf("and %d more violations of this and other invariants", r.beyond)})
		r.beyond = 0
	}
	return r.all
}
