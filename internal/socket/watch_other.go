//go:build !linux

package socket

import (
	"net"
	"syscall"
)

// A Watch is nothing here: each connection has a goroutine that waits for it.
type Watch[C Watched] struct{}

// Add reports false.
func (*Watch[C]) Add(C, net.Conn, syscall.RawConn) (at int32, ok bool) { return 0, false }

// Remove does nothing.
func (*Watch[C]) Remove(C, syscall.RawConn, int32) {}

// Close does nothing.
func (*Watch[C]) Close() {}
