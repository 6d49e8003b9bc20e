//go:build unix

package gpoll

import (
	"io"
	"net"
	"syscall"
)

// rawConn returns what watches conn's socket, or nil where there is none.
func rawConn(conn net.Conn) syscall.RawConn {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readSome waits until there is something to read and reads up to len(buf) of it. While it waits it holds no buffer and little
// stack: buffer is asked for one when bytes may be there, and gets it back when there were none.
func readSome(raw syscall.RawConn, take func() []byte, back func([]byte)) (p []byte, err error) {
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf := take()
		n, e := syscall.Read(int(fd), buf)
		switch {
		case e == syscall.EAGAIN || e == syscall.EINTR:
			back(buf)
			return false
		case e != nil:
			failed = e
		case n == 0:
			failed = io.EOF
		default:
			p = buf[:n]
			return true
		}
		back(buf)
		return true
	})
	if err == nil {
		err = failed
	}
	return p, err
}
