package socket

import (
	"syscall"
	"unsafe"
)

// The calls below are for sockets that do not block. The scheduler is not told of them: it would take the processor
// away and give it back for each, at a third of what they cost.

// writeOnce tries send(2): 0 bytes when the socket is full.
func writeOnce(fd int, p []byte) (int, error) {
	n, errno := once(sysSend, fd, p)
	switch errno {
	case 0:
		return n, nil
	case syscall.EAGAIN:
		return 0, nil
	}
	return 0, errno
}

// readOnce tries recv(2): EAGAIN when there is nothing.
func readOnce(fd int, p []byte) (int, error) {
	n, errno := once(sysReceive, fd, p)
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

// once makes a system call whose arguments beyond the third are 0 or not looked at.
func once(call uintptr, fd int, p []byte) (int, syscall.Errno) {
	for {
		at := unsafe.Pointer(unsafe.SliceData(p))
		n, _, errno := syscall.RawSyscall6(call, uintptr(fd), uintptr(at), uintptr(len(p)), 0, 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}
