// Package socket does with a socket what net.Conn does not: it writes to it and reads from it without waiting, and
// waits for one socket, or for many, with no buffer held.
//
// It takes a socket as the syscall.RawConn that Raw returns. Each call holds the socket's descriptor: when somebody
// closes the connection meanwhile, the descriptor is not given to another one before the call has returned.
//
// Any goroutine may make any call at any time, but for what a Reader and a Watch say.
package socket

import (
	"net"
	"sync"
	"syscall"
)

// Below is Raw of what carries conn, through TLS and through whatever else has a method NetConn.
func Below(conn net.Conn) syscall.RawConn {
	for {
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return Raw(conn)
		}
		conn = over.NetConn()
	}
}

// BufferSize is how many bytes a buffer of Take has.
const BufferSize = 4096

var buffers = sync.Pool{New: func() any { return new([BufferSize]byte) }}

// Take returns a buffer of BufferSize bytes, which hold anything. It is the caller's until Return.
func Take() []byte { return buffers.Get().(*[BufferSize]byte)[:] }

// Return gives back a buffer of Take or of Reader.ReadSome. p is its beginning, of any length.
func Return(p []byte) { buffers.Put((*[BufferSize]byte)(p[:BufferSize])) }
