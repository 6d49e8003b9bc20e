package gpoll

import (
	"io"
	"net"
	"testing"
	"time"
)

// A descriptor that somebody closed behind gpoll's back is another connection's at once: nothing of the old one's is written to it.
func TestClosedBehindTheBack(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pair := func() (near, far net.Conn) {
		t.Helper()
		near, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if far, err = ln.Accept(); err != nil {
			t.Fatal(err)
		}
		return near, far
	}
	client, conn := pair()
	defer client.Close()
	var s stream
	s.init(conn, nil, time.Second)
	if s.raw == nil {
		t.Skip("on this system no socket is written to without waiting")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.tryWriteLocked([]byte("before")); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	var bystanders []net.Conn
	for range 4 { // they take the numbers that are free
		near, far := pair()
		bystanders = append(bystanders, near, far)
	}
	if err := s.tryWriteLocked([]byte("after")); err == nil {
		t.Error("a write to a closed connection succeeds")
	}
	for _, c := range bystanders {
		c.(*net.TCPConn).CloseWrite()
	}
	for _, c := range bystanders {
		if got, _ := io.ReadAll(c); len(got) > 0 {
			t.Errorf("a bystander was sent %q", got)
		}
		c.Close()
	}
}
