package load

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process has cost so far.
type Usage struct {
	CPU time.Duration // user and system time
	RSS int64         // resident bytes
}

// ProcessUsage reads the kernel's figures about a process on this machine.
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
	pages := digits(fields[21])
	// The clock of the process, as clock_getcpuclockid(3) makes it; the times in /proc are in steps of 10 ms.
	const cpuClockSched = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuClockSched), &t); err != nil {
		return Usage{}, fmt.Errorf("load: the processor time of process %d cannot be read: %w", pid, err)
	}
	return Usage{time.Duration(t.Nano()), int64(pages) * int64(os.Getpagesize())}, nil
}
