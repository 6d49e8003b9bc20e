package socket

import (
	"syscall"
	"unsafe"
)

// Unsent returns how many bytes that were written to a socket its peer's system has not acknowledged: ioctl_tty(2) and
// tcp(7), SIOCOUTQ. It is 0 where the socket does not say.
func Unsent(raw syscall.RawConn) int {
	n := int32(0)
	err := raw.Control(func(fd uintptr) {
		const outQueue = syscall.TIOCOUTQ // SIOCOUTQ
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, outQueue, uintptr(unsafe.Pointer(&n))); errno != 0 {
			n = 0
		}
	})
	if err != nil {
		return 0
	}
	return int(n)
}
