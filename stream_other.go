//go:build !unix

package gpoll

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// rawConn returns nil: on this system every stream is written by a goroutine.
func rawConn(net.Conn) syscall.RawConn { return nil }

type onceReader struct{}

var onceReaders sync.Pool // nobody asks for one: there is no watch

func (*onceReader) read(syscall.RawConn) ([]byte, error) { return nil, errors.ErrUnsupported }

type someReader struct{}

func newSomeReader() *someReader { return nil }

func (*someReader) read(syscall.RawConn) ([]byte, error) { return nil, errors.ErrUnsupported }

func writeOnce(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func discardRead(syscall.RawConn) (open bool) { return false }

func readSome(syscall.RawConn, func() []byte, func([]byte)) ([]byte, error) {
	return nil, errors.ErrUnsupported
}
