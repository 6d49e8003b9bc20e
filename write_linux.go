package gpoll

import (
	"syscall"
	"unsafe"
)

// writeOnce is write(2) on a socket that does not block. The scheduler is not told: it would take the processor away and give it
// back for every one of a routine's writes, at a third of their cost.
func writeOnce(fd uintptr, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
