// Package freeport finds addresses for the servers of tests that open their port themselves, or open it again.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Address returns a loopback address on which nobody listens now. Its port is below those that systems hand out by
// themselves (32768 and up on Linux, 49152 elsewhere). So no connection of another test, and no listener on port 0,
// gets it before the server does. Until t ends no other call returns it; on Linux in no other process either.
func Address(t testing.TB) string {
	t.Helper()
	var failed error
	for range 100 {
		port := strconv.Itoa(20_000 + rand.IntN(12_000))
		address := net.JoinHostPort("127.0.0.1", port)
		release, err := reserve(port)
		if err == nil {
			t.Cleanup(release)
			if err = taken(address); err == nil {
				return address
			}
		}
		failed = err
	}
	t.Fatalf("100 ports are taken, the last one: %v", failed)
	return ""
}

// taken reports that somebody listens on address. It asks by a connection: a listener of its own would live on for a
// moment in a process that is being started, which has all descriptors of its parent until it runs its program.
func taken(address string) error {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err == nil {
		conn.Close()
		return &net.AddrError{Err: "somebody listens", Addr: address}
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return err // somebody listens, and accepts nobody
	}
	return nil
}

// reserved are the ports that this process has handed out.
var reserved sync.Map

// reserve keeps others from being given a port. On Linux an abstract socket of its name says that it is given away.
func reserve(port string) (release func(), err error) {
	if _, taken := reserved.LoadOrStore(port, true); taken {
		return nil, &net.AddrError{Err: "reserved by another test", Addr: port}
	}
	forget := func() { reserved.Delete(port) }
	if runtime.GOOS != "linux" {
		return forget, nil
	}
	mark, err := net.Listen("unix", "@gpoll-freeport-"+port)
	if err != nil {
		forget()
		return nil, err
	}
	return func() {
		mark.Close()
		forget()
	}, nil
}
