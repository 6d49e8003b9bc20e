package gpoll

import (
	"context"
	"sync"
)

// A group is the goroutines of a Broadcaster. Unlike a sync.WaitGroup it may start goroutines while wait waits.
type group struct {
	failed func(v any) // is told of a panic, which goes no further

	mu    sync.Mutex
	n     int
	empty chan struct{} // closed when n falls to 0; nil when nobody waits
}

// start runs f in a goroutine of the group.
func (g *group) start(f func()) {
	g.mu.Lock()
	g.n++
	g.mu.Unlock()
	go func() { // ends with f
		defer g.done()
		defer g.recover()
		f()
	}()
}

func (g *group) recover() {
	if v := recover(); v != nil {
		g.failed(v)
	}
}

func (g *group) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	if g.n == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// wait returns when the group is empty, or with the cause of ctx.
func (g *group) wait(ctx context.Context) error {
	g.mu.Lock()
	if g.n == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	g.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
