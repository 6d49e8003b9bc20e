package step

import (
	"net"
	"sync"
	"syscall"
)

// InMemory is a connection whose syscall.RawConn hands out the numbers of Open.
type InMemory interface {
	net.Conn
	syscall.Conn
	InMemory()
}

// A Socket is a connection in memory that can be written to and read from without waiting, as a descriptor can.
type Socket interface {
	TryWrite(p []byte) (int, error)
	// TryRead reports again when there is nothing to read yet.
	TryRead(p []byte) (n int, again bool, err error)
}

var (
	socketsMu sync.Mutex // guards sockets; never held across a wait
	sockets   = map[uintptr]Socket{}
	next      uintptr
)

// Open gives s a number in the place of a descriptor, until Close.
func Open(s Socket) uintptr {
	socketsMu.Lock()
	defer socketsMu.Unlock()
	next++
	sockets[next] = s
	return next
}

// Close forgets a number.
func Close(fd uintptr) {
	socketsMu.Lock()
	defer socketsMu.Unlock()
	delete(sockets, fd)
}

// SocketOf returns what Open was given.
func SocketOf(fd uintptr) Socket {
	socketsMu.Lock()
	defer socketsMu.Unlock()
	return sockets[fd]
}
