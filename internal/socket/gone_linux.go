package socket

import (
	"syscall"
	"time"
)

// GiveUpAfter has the system give up a connection when nothing that was written has been acknowledged for so long, or
// nothing could be sent for so long because the peer does not read, or keep-alive got no answer for so long: tcp(7),
// TCP_USER_TIMEOUT. 0 is what the system does by itself: for data under way a quarter of an hour. It does nothing to a
// socket that is not TCP.
func GiveUpAfter(raw syscall.RawConn, d time.Duration) {
	_ = raw.Control(func(fd uintptr) { // it may be closed already
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout, int(d.Milliseconds()))
	})
}

// GivesUpAfter returns what GiveUpAfter has set.
func GivesUpAfter(raw syscall.RawConn) (d time.Duration) {
	_ = raw.Control(func(fd uintptr) {
		ms, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout)
		if err == nil {
			d = time.Duration(ms) * time.Millisecond
		}
	})
	return d
}

const userTimeout = 0x12 // TCP_USER_TIMEOUT, which syscall does not name everywhere
