package gpoll

import (
	"syscall"
	"unsafe"
)

// writeOnce tries write(2) on a socket that does not block: 0 bytes when it is full. The scheduler is not told: it would take the
// processor away and give it back for every one of a routine's writes, at a third of their cost.
func writeOnce(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EAGAIN:
			return 0, nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
