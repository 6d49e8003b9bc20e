package gpoll

import (
	"context"
	"sync"
)

// A group is the goroutines of a Broadcaster. Unlike a sync.WaitGroup it may start goroutines while wait waits.
type group struct {
	failed func(v any) // is told of a panic, which goes no further

	mu      sync.Mutex
	n       int
	inside  int           // goroutines of the group that wait for the others
	changed chan struct{} // closed when n falls to inside, or to 0; nil when nobody waits
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
	g.changedLocked()
}

// changedLocked wakes those who wait when some of them may go on.
func (g *group) changedLocked() {
	if g.n <= g.inside && g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// wait returns when the group is empty, or with the cause of ctx. inside says that a goroutine of the group calls it,
// or one for which a goroutine of the group waits: then only those are left that wait. member says that the caller is
// one of the group.
func (g *group) wait(ctx context.Context, inside, member bool) error {
	if member {
		g.enter(1)
		defer g.enter(-1)
	}
	for {
		changed := g.waits(inside)
		if changed == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (g *group) enter(by int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside += by
	g.changedLocked()
}

// waits returns a channel that is closed when it is time to look again; nil when the wait is over.
func (g *group) waits(inside bool) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n == 0 || inside && g.n <= g.inside {
		return nil
	}
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.changed
}
