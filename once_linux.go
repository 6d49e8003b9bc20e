package gpoll

import (
	"syscall"
	"unsafe"
)

// The calls below are for sockets that do not block. The scheduler is not told of them: it would take the processor away and give it back for
// each, at a third of what they cost.

// writeOnce tries write(2): 0 bytes when the socket is full.
func writeOnce(fd int, p []byte) (int, error) {
	n, errno := once(syscall.SYS_WRITE, fd, p)
	switch errno {
	case 0:
		return n, nil
	case syscall.EAGAIN:
		return 0, nil
	}
	return 0, errno
}

// readOnce tries read(2): EAGAIN when there is nothing.
func readOnce(fd int, p []byte) (int, error) {
	n, errno := once(syscall.SYS_READ, fd, p)
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

func once(call uintptr, fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}
