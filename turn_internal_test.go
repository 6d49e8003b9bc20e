package gpoll

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// A turn goes to those that wait in the order in which they came; whoever gives up is passed over, also when the turn
// comes at the same moment.
func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u turn
		if !u.try() || u.try() {
			t.Fatal("one has the turn at a time")
		}
		var had []int
		gaveUp := errors.New("gave up")
		ctx, cancel := context.WithCancelCause(t.Context())
		other, down := context.WithCancelCause(t.Context())
		defer down(nil)
		outcomes := make([]error, 5)
		for i := range 5 {
			mine := t.Context()
			if i == 0 || i == 2 {
				mine = ctx
			}
			go func() {
				room, err := u.take(6, mine, other)
				if outcomes[i] = err; !room {
					t.Errorf("there is no room for %d", i)
				} else if err == nil {
					had = append(had, i)
					u.pass()
				}
			}()
			synctest.Wait()
		}
		if room, err := u.take(6, t.Context(), other); room || err != nil {
			t.Errorf("the seventh waits too: %v, %v", room, err)
		}
		cancel(gaveUp)
		u.pass() // to the first one, which has given up, or is about to
		synctest.Wait()
		for i, err := range outcomes {
			if got := slices.Contains(had, i); got != (err == nil) || !got && i%2 == 1 || !got && err != gaveUp {
				t.Errorf("%d had the turn: %v, and the error %v", i, got, err)
			}
		}
		if !slices.IsSorted(had) {
			t.Errorf("%v had the turn", had)
		}
		if !u.try() {
			t.Fatal("the turn is lost")
		}
		go func() { _, outcomes[1] = u.take(6, t.Context(), other) }()
		synctest.Wait()
		down(gaveUp)
		synctest.Wait()
		if outcomes[1] != gaveUp {
			t.Errorf("with the other context over: %v", outcomes[1])
		}
		if u.pass(); u.taken || u.waiting != nil {
			t.Errorf("at the end: %+v", &u)
		}
	})
}
