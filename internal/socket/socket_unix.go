//go:build unix

package socket

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// Raw returns conn's socket, or nil where there is none, or conn is more than its socket: a type of somebody's own that
// has net.TCPConn's methods may carry something else than what is written to it.
func Raw(conn net.Conn) syscall.RawConn {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// An attempt is one system call that does not wait.
type attempt struct {
	p   []byte
	n   int
	err error

	// Made once, since they would be allocated at every call.
	write, read func(fd uintptr)
}

var attempts = sync.Pool{New: func() any {
	a := new(attempt)
	a.write = func(fd uintptr) { a.n, a.err = writeOnce(int(fd), a.p) }
	a.read = func(fd uintptr) { a.n, a.err = readOnce(int(fd), a.p) }
	return a
}}

// end gives the attempt back and returns what came of it. err is that of the RawConn.
func (a *attempt) end(err error) (int, error) {
	n := a.n
	if err == nil {
		err = a.err
	}
	if err != nil {
		n = 0
	}
	a.p, a.err = nil, nil
	attempts.Put(a)
	return n, err
}

// TryWrite writes as much of p as the socket takes at once, and returns how many bytes: 0 when it is full. It does not
// keep p.
func TryWrite(raw syscall.RawConn, p []byte) (n int, err error) {
	a := attempts.Get().(*attempt)
	a.p = p
	err = raw.Control(a.write)
	return a.end(err)
}

// Write writes p and waits for the socket, until the connection's write deadline. It calls took with the number of
// bytes whenever the socket has taken some. It does not keep p.
func Write(raw syscall.RawConn, p []byte, took func(n int)) error {
	var failed error
	err := raw.Write(func(fd uintptr) (done bool) {
		for len(p) > 0 {
			n, err := writeOnce(int(fd), p)
			if err != nil {
				failed = err
				return true
			}
			if n == 0 {
				return false
			}
			took(n)
			p = p[n:]
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return err
}

// TryRead reads what has arrived, at most len(p) bytes, which is not 0, and returns how many: 0 when nothing has. The
// error is io.EOF when the peer sends no more.
func TryRead(raw syscall.RawConn, p []byte) (n int, err error) {
	a := attempts.Get().(*attempt)
	a.p = p
	err = raw.Control(a.read)
	switch n, err = a.end(err); {
	case err == syscall.EAGAIN:
		return 0, nil
	case err == nil && n == 0:
		return 0, io.EOF
	}
	return n, err
}

// Discard reads what has arrived, up to 256 KB, and forgets it. It reports whether more may come.
func Discard(raw syscall.RawConn) (open bool) {
	_ = raw.Control(func(fd uintptr) { // it may be closed already
		buf := Take()
		defer Return(buf)
		for range 64 { // a peer that sends on and on is not listened to for ever
			n, err := readOnce(int(fd), buf)
			if open = err == syscall.EAGAIN || err == nil && n > 0; !open || err != nil {
				return
			}
		}
	})
	return open
}

// A Reader waits for something to read on a socket. While it waits it holds no buffer and little stack. A connection
// that is read from again and again keeps one: its function would be allocated at every read. One goroutine uses it at
// a time.
type Reader struct {
	limit int
	buf   *[BufferSize]byte
	n     int
	err   error
	try   func(fd uintptr) (done bool)
}

// NewReader returns a Reader that reads up to limit bytes at a time, at most BufferSize.
func NewReader(limit int) *Reader {
	r := &Reader{limit: limit}
	r.try = func(fd uintptr) bool {
		buf := buffers.Get().(*[BufferSize]byte)
		n, err := readOnce(int(fd), buf[:r.limit])
		switch {
		case err == syscall.EAGAIN:
			buffers.Put(buf)
			return false
		case err == nil && n > 0:
			r.buf, r.n = buf, n
			return true
		case err == nil:
			err = io.EOF
		}
		r.err = err
		buffers.Put(buf)
		return true
	}
	return r
}

// ReadSome waits until there is something to read and returns it, in a buffer that the caller gives to Return. With an
// error there is none. The error is io.EOF when the peer sends no more, os.ErrDeadlineExceeded after the connection's
// read deadline, and net.ErrClosed after its Close.
func (r *Reader) ReadSome(raw syscall.RawConn) ([]byte, error) {
	r.buf, r.err = nil, nil
	if err := raw.Read(r.try); err != nil {
		return nil, err
	}
	buf := r.buf
	if r.buf = nil; buf == nil {
		return nil, r.err
	}
	return buf[:r.n], nil
}
