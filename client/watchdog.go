package client

import (
	"sync/atomic"
	"time"
)

// A watchdog gives up a connection on which nothing has come for its limit. While the reader does not read, because the
// application does not take messages, the watchdog rests.
type watchdog struct {
	limit time.Duration
	bark  func()
	epoch time.Time
	last  atomic.Int64 // when something came, after epoch; or one of those below
	timer *time.Timer
}

const (
	rests = -1 - iota
	stopped
)

// newWatchdog returns a watchdog that begins now and calls bark in a goroutine of its own. Stop it at the end.
func newWatchdog(limit time.Duration, bark func()) *watchdog {
	w := &watchdog{limit: limit, bark: bark, epoch: time.Now()}
	w.timer = time.AfterFunc(limit, w.look)
	return w
}

// look sets the timer to the earliest moment at which the limit can have passed.
func (w *watchdog) look() {
	last := w.last.Load()
	idle := time.Since(w.epoch) - time.Duration(last)
	switch {
	case last == stopped:
	case last == rests:
		w.timer.Reset(w.limit)
	case idle < w.limit:
		w.timer.Reset(w.limit - idle)
	default:
		w.bark()
	}
}

// alive says that something has come, or that the reader reads again.
func (w *watchdog) alive() { w.last.Store(int64(time.Since(w.epoch))) }

// rest says that the reader does not read.
func (w *watchdog) rest() { w.last.Store(rests) }

func (w *watchdog) stop() {
	w.last.Store(stopped)
	w.timer.Stop()
}
