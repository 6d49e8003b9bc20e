//go:build !unix

package gpoll

import (
	"errors"
	"net"
	"syscall"
)

// rawConn returns nil: on this system every stream is written by a goroutine.
func rawConn(net.Conn) syscall.RawConn { return nil }

func readEach(syscall.RawConn, func() []byte, func(int, error) bool) error {
	return errors.ErrUnsupported
}

func readSome(syscall.RawConn, func() []byte, func([]byte)) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

func writeOnce(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func discardRead(syscall.RawConn) (open bool) { return false }
