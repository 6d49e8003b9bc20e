//go:build !linux

package socket

import "syscall"

// Unsent returns 0: this system does not say how many bytes that were written have not been received.
func Unsent(syscall.RawConn) int { return 0 }
