//go:build unix && !linux

package gpoll

import "syscall"

// writeOnce is write(2) on a socket that does not block.
func writeOnce(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
