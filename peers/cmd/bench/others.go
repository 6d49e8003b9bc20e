package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// processorTime is the time that the whole machine has spent on processes so far.
func processorTime() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	var user, nice, system int64
	if _, err := fmt.Fscanf(strings.NewReader(string(b)), "cpu %d %d %d", &user, &nice, &system); err != nil {
		return 0
	}
	return time.Duration(user+nice+system) * 10 * time.Millisecond
}

// ownTime is what this process, the generator, has spent.
func ownTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// disturbed is how many processors other programs may use before a measurement counts as disturbed.
const disturbed = 0.15

// awaitQuiet waits until other programs leave the processors alone, at most for d.
func awaitQuiet(d time.Duration) {
	const look = 250 * time.Millisecond
	for end := time.Now().Add(d); time.Now().Before(end); {
		before, own := processorTime(), ownTime()
		time.Sleep(look)
		if others := processorTime() - before - (ownTime() - own); others.Seconds() < disturbed*look.Seconds() {
			return
		}
	}
}
