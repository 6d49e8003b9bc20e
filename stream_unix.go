//go:build unix

package gpoll

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// rawConn returns what watches conn's socket, or nil where there is none, or conn is more than its socket: a type of somebody's own that
// has net.TCPConn's methods may carry something else than what is written to it.
func rawConn(conn net.Conn) syscall.RawConn {
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

// A someReader waits for something to read on a socket. While it waits it holds no buffer and little stack. There is one for each connection,
// since its function would be allocated at every read.
type someReader struct {
	p   []byte
	err error
	try func(fd uintptr) (done bool)
}

func newSomeReader() *someReader {
	r := new(someReader)
	r.try = func(fd uintptr) bool {
		buf := takeReadBuffer()
		n, err := readOnce(int(fd), buf)
		switch {
		case err == syscall.EAGAIN:
			returnReadBuffer(buf)
			return false
		case err == nil && n > 0:
			r.p = buf[:n]
			return true
		case err == nil:
			err = io.EOF
		}
		r.err = err
		returnReadBuffer(buf)
		return true
	}
	return r
}

// read waits until there is something to read and reads up to quickSize bytes of it, into a buffer that the caller gives back.
func (r *someReader) read(raw syscall.RawConn) ([]byte, error) {
	r.p, r.err = nil, nil
	if err := raw.Read(r.try); err != nil {
		return nil, err
	}
	p := r.p
	r.p = nil
	return p, r.err
}

// discardRead reads what has arrived and forgets it, without waiting. It reports whether more may come.
func discardRead(raw syscall.RawConn) (open bool) {
	_ = raw.Control(func(fd uintptr) { // it may be closed already
		buf := takeReadBuffer()
		defer returnReadBuffer(buf)
		for range 64 { // a peer that sends on and on is not listened to for ever
			n, err := readOnce(int(fd), buf)
			if open = err == syscall.EAGAIN || err == nil && n > 0; !open || err != nil {
				return
			}
		}
	})
	return open
}

// readSome waits until there is something to read and reads up to len(buf) of it. While it waits it holds no buffer and little
// stack: buffer is asked for one when bytes may be there, and gets it back when there were none.
func readSome(raw syscall.RawConn, take func() []byte, back func([]byte)) (p []byte, err error) {
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf := take()
		n, e := readOnce(int(fd), buf)
		switch {
		case e == syscall.EAGAIN:
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

// A onceReader reads from a socket without waiting, as a onceWriter writes.
type onceReader struct {
	buf [requestBuffer]byte
	n   int
	err error
	try func(fd uintptr)
}

var onceReaders = sync.Pool{New: func() any {
	r := &onceReader{}
	r.try = func(fd uintptr) { r.n, r.err = readOnce(int(fd), r.buf[:]) }
	return r
}}

// read tries read(2) once. It returns nothing when there is nothing.
func (r *onceReader) read(raw syscall.RawConn) ([]byte, error) {
	err := raw.Control(r.try)
	switch {
	case err != nil:
		return nil, err
	case r.err == syscall.EAGAIN:
		return nil, nil
	case r.err != nil:
		return nil, r.err
	case r.n == 0:
		return nil, io.EOF
	}
	return r.buf[:r.n], nil
}
