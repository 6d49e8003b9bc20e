package gpoll

import (
	"testing"
	"testing/synctest"
	"time"
)

// A busy routine gathers messages for a quarter of its last round, and one that has rested does not.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBroadcaster()
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		defer b.Shutdown(t.Context())
		for _, tt := range []struct{ wrote, rested, delay, want time.Duration }{
			{0, 0, 0, 0}, // to few sockets
			{400 * time.Microsecond, 0, 0, 100 * time.Microsecond},
			{400 * time.Microsecond, 200 * time.Microsecond, 0, 100 * time.Microsecond},
			{400 * time.Microsecond, 201 * time.Microsecond, 0, 0},
			{time.Second, 0, 0, time.Millisecond},
			{0, time.Second, 20 * time.Millisecond, 20 * time.Millisecond},
			{time.Second, 0, 20 * time.Millisecond, 20 * time.Millisecond},
		} {
			b.set.syncDelay = tt.delay
			r := &routine{b: b, wrote: moment(tt.wrote), wroteAt: b.now()}
			time.Sleep(tt.rested)
			if got := r.pause(); got != tt.want {
				t.Errorf("after a round of %v and a rest of %v: %v, want %v", tt.wrote, tt.rested, got, tt.want)
			}
		}
	})
}
