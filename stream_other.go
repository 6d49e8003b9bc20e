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

type someReader struct{}

func newSomeReader() *someReader { return nil }

func (*someReader) read(syscall.RawConn) ([]byte, error) { return nil, errors.ErrUnsupported }

func writeOnce(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func discardRead(syscall.RawConn) (open bool) { return false }
