package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/corvuscrypto/gpoll/internal/load"
	"github.com/corvuscrypto/gpoll/internal/load/serve"
)

// several is how many messages a client says in one write.
const several = 16

// spoken is how many messages a client has said before its memory is measured.
const spoken = 1000

// The figures of cells in which clients speak.
const (
	heardRate = "messages/s"
	heardCPU  = "CPU µs for a message"
	askedP50  = "round trip, paced, p50 ms"
	askedP99  = "round trip, paced, p99 ms"
	mostP50   = "round trip, most, p50 ms"
	mostP99   = "round trip, most, p99 ms"
	rested    = "idle after it spoke × before"
)

var upstreamFigures = []figure{
	{heardRate, func(s sample) float64 { return s.Heard.Rate }, "%.0f", true, false, inbound},
	{heardCPU, func(s sample) float64 { return s.Heard.CPU }, "%.3f", false, false, inbound},
	{"idle, KB", func(s sample) float64 { return s.IdleKB }, "%.1f", false, false, inbound},
	{"idle after GC, KB", func(s sample) float64 { return s.AfterKB }, "%.1f", false, false, inbound},
	{"idle after it spoke, KB", func(s sample) float64 { return s.RestedKB }, "%.1f", false, false, inbound},
	{"idle after it spoke and GC, KB", func(s sample) float64 { return s.SpokenKB }, "%.1f", false, false, inbound},
	{rested, func(s sample) float64 { return s.SpokenKB / max(s.AfterKB, 1e-3) }, "%.2f", false, false, inbound},
	{askedP50, func(s sample) float64 { return s.Asked.P50 }, "%.3f", false, false, trips},
	{askedP99, func(s sample) float64 { return s.Asked.P99 }, "%.3f", false, false, trips},
	{"round trip, paced, CPU µs", func(s sample) float64 { return s.Asked.CPU }, "%.2f", false, false, trips},
	{"round trips/s, most", func(s sample) float64 { return s.AskedMax.Rate }, "%.0f", true, false, trips},
	{mostP50, func(s sample) float64 { return s.AskedMax.P50 }, "%.1f", false, false, trips},
	{mostP99, func(s sample) float64 { return s.AskedMax.P99 }, "%.1f", false, false, trips},
	{"round trip, most, CPU µs", func(s sample) float64 { return s.AskedMax.CPU }, "%.2f", false, false, trips},
}

// upstreamAims are those of cells in which clients speak.
func upstreamAims() []aim {
	return []aim{
		{"messages/s × gws", "in-1000", heardRate, "gpoll-v1", "gws", 0.9, true},
		{"CPU for a message × gws", "in-1000", heardCPU, "gpoll-v1", "gws", 1.15, false},
		{"idle after 1,000 messages × before", "in-1000", rested, "gpoll-v1", "", 1, false},
		{"request to reply × gws echo, p50", "rt-1000", askedP50, "gpoll-v1", "gws", 1.25, false},
		{"request to reply × gws echo, p99", "rt-1000", askedP99, "gpoll-v1", "gws", 1.25, false},
		{"the same without pauses, p50", "rt-1000", mostP50, "gpoll-v1", "gws", 1.25, false},
		{"the same without pauses, p99", "rt-1000", mostP99, "gpoll-v1", "gws", 1.25, false},
	}
}

// upstream measures what clients say: messages that they say back to back to a handler that counts them, or questions
// that come back as answers.
func (m *meter) upstream(s system, c cell, base serve.Stats) error {
	say := s.says(c.kind)
	if c.kind == trips {
		if err := m.ask(say, c); err != nil {
			return fmt.Errorf("round trips: %w", err)
		}
		return nil
	}
	if err := m.hear(say, c); err != nil {
		return fmt.Errorf("inbound: %w", err)
	}
	if !s.v1 {
		return nil
	}
	return m.rest(say, c, base)
}

// hear floods the server. What counts is the time between two moments in the midst of it.
func (m *meter) hear(say load.Say, c cell) error {
	const warm = 300 * time.Millisecond
	d := m.bench.saturated
	if d <= 0 {
		return nil
	}
	before, err := m.process.Stats(false)
	if err != nil {
		return err
	}
	if m.bench.profiles != "" {
		file := filepath.Join(m.bench.profiles, fmt.Sprintf("%s-%s.prof", m.bench.current, c))
		if err := m.process.Profile(file, warm+d); err != nil {
			return err
		}
	}
	// The flood goes on while the server is asked for its cost: it has a queue of other things to do.
	var seen []serve.Stats
	var answered func() (serve.Stats, bool, error)
	var failed error
	due := time.Now().Add(warm)
	said, err := m.engine.Flood(say, m.bench.size, m.bench.several, 0, func() bool {
		switch {
		case answered != nil:
			var s serve.Stats
			var ok bool
			if s, ok, failed = answered(); ok {
				answered, seen = nil, append(seen, s)
				due = time.Now().Add(d)
			}
		case len(seen) < 2 && time.Now().After(due):
			answered, failed = m.process.AskStats()
		}
		return failed != nil || len(seen) == 2
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	first := before.Heard
	before, after := seen[0], seen[1]
	n := float64(max(after.Heard-before.Heard, 1))
	m.out.Heard = saturation{Rate: n / (float64(after.At-before.At) / 1e9),
		CPU: float64((after.CPU - before.CPU).Nanoseconds()) / 1000 / n}
	return m.awaitHeard(first + said)
}

// awaitHeard waits until everything that was said has reached the handler, and notes what has not.
func (m *meter) awaitHeard(all uint64) error {
	for end := time.Now().Add(20 * time.Second); ; {
		s, err := m.process.Stats(false)
		if err != nil {
			return err
		}
		if s.Heard >= all || time.Now().After(end) {
			if s.Heard <= all {
				m.out.Lost += all - s.Heard
			} else {
				m.out.Wrong += s.Heard - all
			}
			_, err := m.note(m.engine.Take(nil), nil)
			return err
		}
		if err := m.settle(50 * time.Millisecond); err != nil {
			return err
		}
	}
}

// rest measures connections some time after each has said a thousand messages. It takes a minute: no figure compares
// it with another system's.
func (m *meter) rest(say load.Say, c cell, base serve.Stats) error {
	if m.bench.rest <= 0 {
		return nil
	}
	before, err := m.process.Stats(false)
	if err != nil {
		return err
	}
	said, err := m.engine.Flood(say, m.bench.size, 10, spoken, func() bool { return false })
	if err != nil {
		return err
	}
	if err := m.awaitHeard(before.Heard + said); err != nil {
		return err
	}
	if err := m.settle(m.bench.rest); err != nil {
		return err
	}
	m.out.RestedKB, m.out.SpokenKB, err = m.memory(c, base)
	return err
}

// ask measures round trips, at a pace and as many as there can be.
func (m *meter) ask(say load.Say, c cell) error {
	for _, part := range []struct {
		out   *saturation
		every time.Duration
		d     time.Duration
	}{{&m.out.Asked, c.every, m.bench.paced}, {&m.out.AskedMax, 0, m.bench.saturated}} {
		if part.d <= 0 {
			continue
		}
		// Buffers and stacks are made at the first question.
		if _, err := m.engine.Ask(say, m.bench.size, c.every, 2*c.every); err != nil {
			return err
		}
		m.engine.Take(nil)
		before, err := m.process.Stats(false)
		if err != nil {
			return err
		}
		if m.bench.profiles != "" {
			file := filepath.Join(m.bench.profiles, fmt.Sprintf("%s-%s-%v.prof", m.bench.current, c, part.every))
			if err := m.process.Profile(file, part.d); err != nil {
				return err
			}
		}
		begun := time.Now()
		n, err := m.engine.Ask(say, m.bench.size, part.every, part.d)
		if err != nil {
			return err
		}
		took := time.Since(begun)
		t, err := m.note(m.engine.Take(nil), nil)
		if err != nil {
			return err
		}
		after, err := m.process.Stats(false)
		if err != nil {
			return err
		}
		*part.out = saturation{Rate: float64(n) / took.Seconds(), P50: t.Quantile(50).Seconds() * 1000,
			P99: t.Quantile(99).Seconds() * 1000,
			CPU: float64((after.CPU - before.CPU).Nanoseconds()) / 1000 / float64(max(n, 1))}
	}
	return nil
}
