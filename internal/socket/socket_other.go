//go:build !unix

package socket

import (
	"errors"
	"net"
	"syscall"
)

// Raw returns nil: on this system nothing is done with a socket that net.Conn does not do, and nobody calls what is
// below.
func Raw(net.Conn) syscall.RawConn { return nil }

// TryWrite returns errors.ErrUnsupported.
func TryWrite(syscall.RawConn, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Write returns errors.ErrUnsupported.
func Write(syscall.RawConn, []byte, func(int)) error { return errors.ErrUnsupported }

// TryRead returns errors.ErrUnsupported.
func TryRead(syscall.RawConn, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Discard returns false.
func Discard(syscall.RawConn) (open bool) { return false }

// A Reader is nothing here.
type Reader struct{}

// NewReader returns nil.
func NewReader(int) *Reader { return nil }

// ReadSome returns errors.ErrUnsupported.
func (*Reader) ReadSome(syscall.RawConn) ([]byte, error) { return nil, errors.ErrUnsupported }
