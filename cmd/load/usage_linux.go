package load

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"
)

// Usage is what a process has cost so far.
type Usage struct {
	CPU time.Duration // user and system time, to 10 ms
	RSS int64         // resident bytes
}

// ticks per second of the times in /proc, on every architecture that Go runs on.
const clockTick = 100

// ProcessUsage reads what the kernel says of a process on this machine.
func ProcessUsage(pid int) (Usage, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return Usage{}, fmt.Errorf("load: there is no process %d on this machine", pid)
	} else if err != nil {
		return Usage{}, fmt.Errorf("load: %w", err)
	}
	// The second field is the name in parentheses and may contain anything.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 22 {
		return Usage{}, fmt.Errorf("load: process %d cannot be read", pid)
	}
	ticks := digits(fields[11]) + digits(fields[12])
	pages := digits(fields[21])
	return Usage{time.Duration(ticks) * time.Second / clockTick, int64(pages) * int64(os.Getpagesize())}, nil
}
