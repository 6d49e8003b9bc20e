//go:build unix

package socket

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A network makes connections over loopback.
type network struct {
	t  *testing.T
	ln net.Listener
}

func newNetwork(t *testing.T) *network {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &network{t, ln}
}

func (n *network) pair() (near, far net.Conn) {
	n.t.Helper()
	near, err := net.Dial("tcp", n.ln.Addr().String())
	if err != nil {
		n.t.Fatal(err)
	}
	if far, err = n.ln.Accept(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}

func TestRaw(t *testing.T) {
	near, _ := newNetwork(t).pair()
	type wrapped struct{ *net.TCPConn } // may write something else than what it is given
	if Raw(wrapped{near.(*net.TCPConn)}) != nil {
		t.Error("a connection that is more than its socket has a socket")
	}
	if Raw(tls.Client(near, nil)) != nil || Below(tls.Client(near, nil)) == nil {
		t.Error("TLS has a socket of its own, or none below it")
	}
	in, out := net.Pipe()
	defer in.Close()
	defer out.Close()
	if Raw(in) != nil || Below(in) != nil {
		t.Error("a pipe has a socket")
	}
}

// A full socket takes 0 bytes and is not broken; what it took arrives.
func TestTryWrite(t *testing.T) {
	near, far := newNetwork(t).pair()
	raw := Raw(near)
	p := []byte(strings.Repeat("x", 64<<10))
	sent := 0
	for {
		n, err := TryWrite(raw, p)
		if err != nil {
			t.Fatal(err)
		}
		if sent += n; n == 0 {
			break
		}
	}
	if Unsent(raw) == 0 && Unsent(Raw(far)) != 0 {
		t.Error("a socket that is full has nothing to send, and one that has written nothing has")
	}
	near.Close()
	if got, err := io.Copy(io.Discard, far); err != nil || int(got) != sent {
		t.Errorf("%d bytes arrived, %v; %d were written", got, err, sent)
	}
	if n, err := TryWrite(raw, p); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %d, %v", n, err)
	}
}

// A descriptor that somebody closed is another connection's at once: nothing of the old one's is written to it.
func TestClosedMeanwhile(t *testing.T) {
	n := newNetwork(t)
	conn, _ := n.pair()
	raw := Raw(conn)
	if _, err := TryWrite(raw, []byte("before")); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	var bystanders []net.Conn
	for range 4 { // they take the numbers that are free
		near, far := n.pair()
		bystanders = append(bystanders, near, far)
	}
	if _, err := TryWrite(raw, []byte("after")); err == nil {
		t.Error("a write to a closed connection succeeds")
	}
	for _, c := range bystanders {
		c.(*net.TCPConn).CloseWrite()
	}
	for _, c := range bystanders {
		if got, _ := io.ReadAll(c); len(got) > 0 {
			t.Errorf("a bystander was sent %q", got)
		}
	}
}

func TestTryRead(t *testing.T) {
	near, far := newNetwork(t).pair()
	raw := Raw(near)
	buf := Take()
	defer Return(buf)
	if n, err := TryRead(raw, buf); n != 0 || err != nil {
		t.Fatalf("nothing was sent: %d, %v", n, err)
	}
	wrote(t, far, "hello")
	arrived(t, near)
	if n, err := TryRead(raw, buf[:3]); err != nil || string(buf[:n]) != "hel" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if n, err := TryRead(raw, buf); err != nil || string(buf[:n]) != "lo" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	far.Close()
	arrived(t, near)
	if n, err := TryRead(raw, buf); n != 0 || err != io.EOF {
		t.Fatalf("the peer has gone: %d, %v", n, err)
	}
	near.Close()
	if n, err := TryRead(raw, buf); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Fatalf("after Close: %d, %v", n, err)
	}
}

func TestReader(t *testing.T) {
	near, far := newNetwork(t).pair()
	raw, r := Raw(near), NewReader(4)
	wrote(t, far, "hello")
	arrived(t, near)
	for _, want := range []string{"hell", "o"} {
		p, err := r.ReadSome(raw)
		if err != nil || string(p) != want {
			t.Fatalf("%q, %v; want %q", p, err, want)
		}
		Return(p)
	}
	if err := near.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if p, err := r.ReadSome(raw); p != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after the deadline: %q, %v", p, err)
	}
	if err := near.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go far.Close()
	if p, err := r.ReadSome(raw); p != nil || err != io.EOF {
		t.Fatalf("the peer has gone: %q, %v", p, err)
	}
	near.Close()
	if p, err := r.ReadSome(raw); p != nil || !errors.Is(err, net.ErrClosed) {
		t.Fatalf("after Close: %q, %v", p, err)
	}
}

func TestDiscard(t *testing.T) {
	near, far := newNetwork(t).pair()
	raw := Raw(near)
	if !Discard(raw) {
		t.Error("an idle connection is over")
	}
	wrote(t, far, strings.Repeat("x", 3*BufferSize))
	arrived(t, near)
	if !Discard(raw) {
		t.Error("a connection on which something has arrived is over")
	}
	far.Close()
	arrived(t, near)
	for Discard(raw) { // the end may arrive after what came before it
		arrived(t, near)
	}
	near.Close()
	if Discard(raw) {
		t.Error("a closed connection is not over")
	}
}

func wrote(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// arrived waits until something can be read, or the end.
func arrived(t *testing.T, conn net.Conn) {
	t.Helper()
	err := Raw(conn).Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	})
	if err != nil {
		t.Fatal(err)
	}
}
