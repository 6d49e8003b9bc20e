package gpoll_test

import (
	"net"
	"syscall"
	"unsafe"
)

// hasTaken reports whether the owner of a socket has read all that has arrived, or has closed it. What is written to
// the other end over loopback has almost always arrived when the write returns.
func hasTaken(conn net.Conn) bool {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return true
	}
	unread := int32(0)
	err = raw.Control(func(fd uintptr) {
		syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&unread)))
	})
	return err != nil || unread == 0
}
