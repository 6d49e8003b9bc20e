//go:build !linux

package socket

import (
	"syscall"
	"time"
)

// GiveUpAfter does nothing: this system has no such option, or another on each release.
func GiveUpAfter(syscall.RawConn, time.Duration) {}

// GivesUpAfter returns 0.
func GivesUpAfter(syscall.RawConn) time.Duration { return 0 }
