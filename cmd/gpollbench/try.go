//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll/internal/load"
	"github.com/corvuscrypto/gpoll/internal/load/serve"
)

// tuneRun marks the messages of tune's servers.
const tuneRun = 2

// try measures one setting: at the rate that is needed, then back to back.
func (n *need) try(ctx context.Context, s sizes) (trial, error) {
	r := trial{Sizes: s, Tries: 1}
	p, err := n.startServer(ctx, s)
	if err != nil {
		return r, err
	}
	defer p.Stop()
	protocol, err := n.protocol(p.Addr)
	if err != nil {
		return r, err
	}
	base, err := p.Stats(true)
	if err != nil {
		return r, err
	}
	e, err := load.New(load.Config{Addr: p.Addr, Clients: n.Clients, Protocol: protocol, Run: tuneRun})
	if err != nil {
		return r, err
	}
	defer e.Close()
	if err := e.Connect(ctx, 10*time.Second); err != nil {
		return r, err
	}
	idle, err := p.Stats(true)
	if err != nil {
		return r, err
	}
	r.Idle = float64(idle.RSS-base.RSS) / 1024 / float64(n.Clients)

	half := n.Time / 2
	count := max(int(n.Rate*half.Seconds()), 3)
	every := half / time.Duration(count) // what is rarer than three in the time comes faster than it was asked for
	// One that is not counted: buffers and stacks are made at the first delivery.
	if t, err := p.Publish(e, serve.Command{Do: "paced", Count: 1, Every: every}); t == nil {
		return r, err
	}
	before, err := p.Stats(false)
	if err != nil {
		return r, err
	}
	t, err := p.Publish(e, serve.Command{Do: "paced", Count: count, Every: every})
	if t == nil {
		return r, err
	}
	after, err := p.Stats(false)
	if err != nil {
		return r, err
	}
	r.note(t)
	r.CPU = float64((after.CPU - before.CPU).Nanoseconds()) / 1000 / float64(max(t.Deliveries, 1))
	r.Missed = max(0, 1-float64(t.Deliveries+t.Lost)/float64(count*n.Clients))
	r.P50, r.P99 = t.Quantile(50).Seconds()*1000, t.Quantile(99).Seconds()*1000

	t, err = p.Publish(e, serve.Command{Do: "saturated", For: half, Window: n.window(), Greedy: true})
	if t == nil {
		return r, fmt.Errorf("back to back: %w", err)
	}
	r.note(t)
	r.Most = t.Rate()
	r.FloodP50, r.FloodP99 = t.Quantile(50).Seconds()*1000, t.Quantile(99).Seconds()*1000
	return r, nil
}

func (r *trial) note(t *load.Tally) {
	r.Lost += t.Lost
	r.Closed = t.Closed
}

// window is how many messages may be on their way: with polls among the transports, which take one at a time, only one.
func (n *need) window() uint64 {
	if n.flood {
		return floodAhead
	}
	if slices.ContainsFunc(n.Transports, func(s string) bool { return strings.Contains(s, "long-poll") }) {
		return 1
	}
	return burstAhead
}
