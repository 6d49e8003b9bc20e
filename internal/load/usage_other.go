//go:build !linux

package load

import "time"

// Usage is what a process has cost so far.
type Usage struct {
	CPU time.Duration // user and system time
	RSS int64         // resident bytes
}

// ProcessUsage is not available on this system.
func ProcessUsage(int) (Usage, error) { return Usage{}, ErrPlatform }
