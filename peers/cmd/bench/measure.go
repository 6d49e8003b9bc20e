package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/corvuscrypto/gpoll/internal/load"
	"github.com/corvuscrypto/gpoll/internal/load/serve"
)

// run marks the messages of every server.
const run = 1

// cell is a row of the comparison: a transport and a number of clients.
type cell struct {
	kind    kind
	clients int
	every   time.Duration // between two paced broadcasts
}

// each returns bytes as KB for one client.
func (c cell) each(bytes int64) float64 { return float64(bytes) / 1024 / float64(c.clients) }

func (c cell) String() string { return fmt.Sprintf("%s-%d", c.kind, c.clients) }

var cells = []cell{
	{webSocket, 1000, 100 * time.Millisecond},
	{webSocket, 10000, time.Second},
	{events, 1000, 100 * time.Millisecond},
	{events, 10000, time.Second},
	{longPoll, 1000, 100 * time.Millisecond},
	{longPoll, 5000, 500 * time.Millisecond},
	{inbound, 1000, 0},
	{trips, 1000, 100 * time.Millisecond}, // between two questions of a client
}

// sample is what one run of one system in one cell showed.
type sample struct {
	IdleKB   float64    `json:"idle_kb"`       // resident memory per idle connection, as it is
	AfterKB  float64    `json:"idle_gc_kb"`    // the same after a collection
	LaterKB  float64    `json:"idle_later_kb"` // the same after the paced messages and another collection
	PacedUS  float64    `json:"paced_us"`      // processor time per delivery
	PacedMS  float64    `json:"paced_p99_ms"`
	Steady   saturation `json:"saturated"`                    // published back to back, giving way after each message
	Burst    saturation `json:"burst"`                        // the same without giving way
	Posted   saturation `json:"posted,omitzero"`              // published by several who post over HTTP
	SendUS   float64    `json:"send_p99_us,omitempty"`        // p99 of the call that publishes
	SilentUS float64    `json:"send_silent_p99_us,omitempty"` // the same with clients that never read

	Heard    saturation `json:"heard,omitzero"`              // said back to back: no latency
	Asked    saturation `json:"asked,omitzero"`              // round trips at a pace
	AskedMax saturation `json:"askedmax,omitzero"`           // round trips, each client's next when it is answered
	RestedKB float64    `json:"idle_rested_kb,omitempty"`    // as IdleKB, some time after the last thing that was said
	SpokenKB float64    `json:"idle_rested_gc_kb,omitempty"` // the same after a collection

	Others  float64 `json:"others"`   // processors that other programs used meanwhile
	PauseMS float64 `json:"pause_ms"` // longest time for which the generator did not run
	Lost    uint64  `json:"lost"`
	Wrong   uint64  `json:"wrong"` // repeated, out of order, altered
	Closed  int     `json:"closed"`
	Reason  string  `json:"reason,omitempty"`
}

// saturation is what a run without pauses showed.
type saturation struct {
	Rate float64 `json:"per_s"`
	CPU  float64 `json:"us"` // processor time per delivery
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
}

// measure runs one system once.
func (b *bench) measure(s system, c cell) (sample, error) {
	var out sample
	p, err := b.start(s)
	if err != nil {
		return out, err
	}
	defer p.Stop()
	protocol, err := s.speaks[c.kind](p.Addr)
	if err != nil {
		return out, err
	}
	base, err := p.Stats(true)
	if err != nil {
		return out, err
	}
	e, err := load.New(load.Config{Addr: p.Addr, Clients: c.clients, Protocol: protocol, Run: run})
	if err != nil {
		return out, err
	}
	defer e.Close()
	machine, own, began := processorTime(), ownTime(), time.Now()
	m := &meter{bench: b, process: p, engine: e, out: &out}
	if err := e.Connect(context.Background(), 15*time.Second); err != nil {
		return out, fmt.Errorf("connecting: %w", err)
	}
	if err := m.idle(c, base); err != nil {
		return out, err
	}
	if c.kind.upstream() {
		if err := m.upstream(s, c, base); err != nil {
			return out, err
		}
		return out, m.others(base, machine, own, began)
	}
	if err := m.paced(c); err != nil {
		return out, fmt.Errorf("paced: %w", err)
	}
	if err := m.idleLater(c, base); err != nil {
		return out, err
	}
	if err := m.steady(c); err != nil {
		return out, fmt.Errorf("saturated: %w", err)
	}
	if err := m.burst(); err != nil {
		return out, fmt.Errorf("burst: %w", err)
	}
	if err := m.posted(c); err != nil {
		return out, fmt.Errorf("posted: %w", err)
	}
	if s.name == "gpoll" {
		if err := m.silent(c); err != nil {
			return out, fmt.Errorf("with clients that never read: %w", err)
		}
	}
	return out, m.others(base, machine, own, began)
}

// others notes how much other programs have used the processors since began.
func (m *meter) others(base serve.Stats, machine, own time.Duration, began time.Time) error {
	end, err := m.process.Stats(false)
	others := processorTime() - machine - (ownTime() - own) - (end.CPU - base.CPU)
	m.out.Others = max(0, others.Seconds()/time.Since(began).Seconds())
	return err
}

type meter struct {
	bench   *bench
	process *serve.Process
	engine  *load.Engine
	out     *sample
}

// settle lets the clients answer what arrives for d.
func (m *meter) settle(d time.Duration) error {
	end := time.Now().Add(d)
	return m.engine.Run(func() bool { return time.Now().After(end) })
}

func (m *meter) idle(c cell, base serve.Stats) error {
	if err := m.settle(m.bench.settle); err != nil {
		return err
	}
	var err error
	m.out.IdleKB, m.out.AfterKB, err = m.memory(c, base)
	return err
}

// memory measures what a client takes, as it is and after a collection.
func (m *meter) memory(c cell, base serve.Stats) (now, after float64, err error) {
	s, err := m.process.Stats(false)
	if err != nil {
		return 0, 0, err
	}
	now = c.each(s.RSS - base.RSS)
	if s, err = m.process.Stats(true); err != nil {
		return 0, 0, err
	}
	return now, c.each(s.RSS - base.RSS), nil
}

// idleLater measures the same connections when each has carried messages.
func (m *meter) idleLater(c cell, base serve.Stats) error {
	if m.bench.paced <= 0 {
		return nil
	}
	if err := m.settle(m.bench.settle); err != nil {
		return err
	}
	s, err := m.process.Stats(true)
	m.out.LaterKB = c.each(s.RSS - base.RSS)
	return err
}

func (m *meter) paced(c cell) error {
	if m.bench.paced <= 0 {
		return nil
	}
	count := max(int(m.bench.paced/c.every), 8) // the first after an idle time cost more than the others
	// Two that are not counted: buffers and stacks are made at the first delivery.
	if _, err := m.publish(serve.Command{Do: "paced", Count: 2, Every: c.every}); err != nil {
		return err
	}
	before, err := m.process.Stats(false)
	if err != nil {
		return err
	}
	pc := serve.Command{Do: "paced", Count: count, Every: c.every}
	if m.bench.profiles != "" {
		pc.Profile = filepath.Join(m.bench.profiles, fmt.Sprintf("%s-%s-paced.prof", m.bench.current, c))
	}
	t, err := m.publish(pc)
	if err != nil {
		return err
	}
	after, err := m.process.Stats(false)
	if err != nil {
		return err
	}
	m.out.PacedUS = float64((after.CPU - before.CPU).Nanoseconds()) / 1000 / float64(max(t.Deliveries, 1))
	m.out.PacedMS = t.Quantile(99).Seconds() * 1000
	return nil
}

// steady measures a publisher that gives way after each message.
func (m *meter) steady(c cell) error {
	if m.bench.saturated <= 0 {
		return nil
	}
	cmd := serve.Command{Do: "saturated", For: m.bench.saturated, Window: m.bench.window}
	if m.bench.profiles != "" {
		cmd.Profile = filepath.Join(m.bench.profiles, fmt.Sprintf("%s-%s.prof", m.bench.current, c))
	}
	return m.saturate(cmd, &m.out.Steady)
}

// burst measures a publisher that does not give way until it is bench.window messages ahead of the slowest client.
func (m *meter) burst() error {
	if m.bench.bursts <= 0 {
		return nil
	}
	return m.saturate(serve.Command{Do: "saturated", For: m.bench.bursts, Window: m.bench.window, Greedy: true},
		&m.out.Burst)
}

// publishers is how many post at a time.
const publishers = 16

// posted measures messages that handlers publish. Each of several publishers posts its next message when all clients
// have the one before.
func (m *meter) posted(c cell) error {
	if m.bench.posted <= 0 || c.kind != webSocket || c.clients > 1000 || !m.process.TakesPosts() {
		return nil
	}
	return m.saturateBy(&m.out.Posted, func() (*load.Tally, error) {
		return m.note(m.process.PublishBy(m.engine, publishers, m.bench.posted))
	})
}

func (m *meter) saturate(cmd serve.Command, out *saturation) error {
	return m.saturateBy(out, func() (*load.Tally, error) { return m.publish(cmd) })
}

func (m *meter) saturateBy(out *saturation, publish func() (*load.Tally, error)) error {
	before, err := m.process.Stats(false)
	if err != nil {
		return err
	}
	t, err := publish()
	if err != nil {
		return err
	}
	after, err := m.process.Stats(false)
	if err != nil {
		return err
	}
	out.CPU = float64((after.CPU - before.CPU).Nanoseconds()) / 1000 / float64(max(t.Deliveries, 1))
	out.Rate = t.Rate()
	out.P50 = t.Quantile(50).Seconds() * 1000
	out.P99 = t.Quantile(99).Seconds() * 1000
	return nil
}

// publish has the server publish and notes what went wrong.
func (m *meter) publish(cmd serve.Command) (*load.Tally, error) {
	return m.note(m.process.Publish(m.engine, cmd))
}

func (m *meter) note(t *load.Tally, err error) (*load.Tally, error) {
	if t == nil {
		return nil, err
	}
	m.out.PauseMS = max(m.out.PauseMS, t.Pause.Seconds()*1000)
	m.out.Lost += t.Lost
	m.out.Wrong += t.Repeated + t.Disordered + t.Damaged
	m.out.Closed = t.Closed
	for reason := range t.Reasons {
		m.out.Reason = reason
	}
	return t, err
}
