//go:build !linux

package gpoll

import "syscall"

// unsent returns 0: this system does not say how much of what was written has been received.
func unsent(syscall.RawConn) int { return 0 }
