// Package freeport finds addresses for the servers of tests that open their port themselves, or open it again.
package freeport

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Address returns a loopback address on which nobody listens now. Its port is below those that systems hand out by
// themselves (32768 and up on Linux, 49152 elsewhere). So no connection of another test, and no listener on port 0,
// gets it before the server does.
func Address(t testing.TB) string {
	t.Helper()
	var failed error
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+rand.IntN(12_000)))
		ln, err := net.Listen("tcp", address)
		if err == nil {
			ln.Close()
			return address
		}
		failed = err
	}
	t.Fatalf("100 ports are taken, the last one: %v", failed)
	return ""
}
