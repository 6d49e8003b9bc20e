//go:build unix

package gpoll

import (
	"io"
	"net"
	"syscall"
)

// rawConn returns what lets a write be tried on conn without waiting, or nil.
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

// A rawWriter tries one write(2) at a time. It keeps its closure, so that a write allocates nothing.
type rawWriter struct {
	p   []byte
	n   int
	err error
	f   func(fd uintptr) bool
}

// write writes as much of p as the socket takes at once: 0 when it is full.
func (w *rawWriter) write(raw syscall.RawConn, p []byte) (int, error) {
	if w.f == nil {
		w.f = func(fd uintptr) bool {
			for {
				w.n, w.err = writeOnce(fd, w.p)
				if w.err != syscall.EINTR {
					return true // never wait
				}
			}
		}
	}
	w.p = p
	err := raw.Write(w.f)
	w.p = nil
	if err != nil {
		return 0, err
	}
	if w.err == syscall.EAGAIN {
		return 0, nil
	}
	return max(w.n, 0), w.err
}
