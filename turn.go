package gpoll

import (
	"context"
	"slices"
	"sync"
)

// A turn is had by one at a time. Those that wait get it in the order in which they came, and may give up. The zero
// turn is nobody's.
type turn struct {
	mu      sync.Mutex      // guards the fields below
	taken   bool            // somebody has it
	waiting []chan struct{} // closed when it is theirs
}

// take waits for the turn. It reports false at once where most want it already, the one that has it included. The error
// is the cause of the context that ended the wait.
func (t *turn) take(most int, ctx, other context.Context) (room bool, err error) {
	t.mu.Lock()
	if !t.taken {
		t.taken = true
		t.mu.Unlock()
		return true, nil
	}
	if len(t.waiting)+1 >= most {
		t.mu.Unlock()
		return false, nil
	}
	mine := make(chan struct{})
	t.waiting = append(t.waiting, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return true, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-other.Done():
		err = context.Cause(other)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting, mine); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
	} else {
		t.passLocked() // it has become theirs meanwhile
	}
	return true, err
}

// try takes the turn if nobody has it.
func (t *turn) try() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken {
		return false
	}
	t.taken = true
	return true
}

// pass gives the turn to the next one.
func (t *turn) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.passLocked()
}

func (t *turn) passLocked() {
	if t.taken = len(t.waiting) > 0; !t.taken {
		t.waiting = nil
		return
	}
	close(t.waiting[0])
	t.waiting = slices.Delete(t.waiting, 0, 1)
}
