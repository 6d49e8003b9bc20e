package gpolltest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

// Resources counts what a leak would add to a process (invariant I12 of [Checker]).
type Resources struct {
	Goroutines  int
	Descriptors int // -1 where the system has neither /proc/self/fd nor /dev/fd
}

// MeasureResources returns what the process holds now. Take it as the baseline before the first server and client
// start.
func MeasureResources() Resources {
	r := Resources{Goroutines: runtime.NumGoroutine(), Descriptors: -1}
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		if d, err := os.Open(dir); err == nil {
			names, err := d.Readdirnames(-1)
			d.Close()
			if err == nil {
				r.Descriptors = len(names) - 1 // without d
				break
			}
		}
	}
	return r
}

// Await waits until the process holds no more than r, plus slack of each kind. Nothing announces the end of a goroutine
// or the close of a socket, so Await looks every few milliseconds. If ctx ends first, the error says what is left and,
// for goroutines, where they stand.
func (r Resources) Await(ctx context.Context, slack int) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		now := MeasureResources()
		goroutines, descriptors := now.Goroutines > r.Goroutines+slack, now.Descriptors > r.Descriptors+slack
		if !goroutines && !descriptors {
			return nil
		}
		select {
		case <-ticker.C:
			continue
		case <-ctx.Done():
		}
		if !goroutines {
			return fmt.Errorf("I12: %d descriptors, the baseline is %d", now.Descriptors, r.Descriptors)
		}
		var stacks bytes.Buffer
		pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		return fmt.Errorf("I12: %d goroutines and %d descriptors, the baseline is %d and %d\n%s",
			now.Goroutines, now.Descriptors, r.Goroutines, r.Descriptors, stacks.Bytes())
	}
}
