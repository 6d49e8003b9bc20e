package client

import (
	"math/rand/v2"
	"time"
)

const (
	leastSpread = 100 * time.Millisecond // where no server has announced another one
	mostBackoff = 30 * time.Second
	stable      = 10 * time.Second // without a fault for that long, the waits begin anew
)

// A backoff is how long a client waits before it comes back: a random time of up to what the server has announced, and
// then of up to twice as much each time.
type backoff struct {
	spread time.Duration // 0: leastSpread
	most   time.Duration // of the last wait
}

// next returns the next wait.
func (b *backoff) next() time.Duration {
	if b.most == 0 {
		b.most = max(b.spread, leastSpread)
	} else {
		b.most = min(2*b.most, mostBackoff)
	}
	return rand.N(b.most)
}

// reset makes the next wait a short one.
func (b *backoff) reset() { b.most = 0 }
