package gpoll

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A client's machine vanishes: nothing reaches it, and nobody says so. Its SSE stream is given up. The test runs in a
// network of its own, where it can drop what goes to the client.
func TestMachineVanishes(t *testing.T) {
	const inside = "GPOLL_TEST_VANISH"
	if os.Getenv(inside) == "" {
		again := exec.Command(os.Args[0], "-test.run=^TestMachineVanishes$", "-test.v", "-test.timeout=1m")
		again.Env = append(os.Environ(), inside+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := again.CombinedOutput()
		switch {
		case strings.Contains(string(out), "--- SKIP"), err != nil && len(out) == 0:
			t.Skipf("this test needs root, and the command ip: %v %s", err, out)
		case err != nil:
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	ip := func(args ...string) {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %v: %v %s", args, err, out)
		}
	}
	ip("link", "set", "lo", "up")
	b := NewBroadcaster()
	b.Heartbeat = 500 * time.Millisecond
	if err := b.prepare(); err != nil {
		t.Fatal(err)
	}
	b.set.gone = time.Second
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Handler: b}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(b.Listener(ln)) }() // ends with hs.Close
	defer func() {
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		hs.Close()
		<-served
	}()
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := from.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /poll HTTP/1.1\r\nHost: gpoll.test\r\nAccept: text/event-stream\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}
	for b.Stats().Attached["sse"] != 1 {
		time.Sleep(time.Millisecond)
	}
	ip("route", "add", "blackhole", "127.0.0.2/32", "table", "local")
	began := time.Now()
	for b.Stats().Attached["sse"] != 0 && time.Since(began) < 20*time.Second {
		time.Sleep(time.Millisecond)
	}
	if took := time.Since(began); took < time.Second || took > 10*time.Second {
		t.Errorf("given up after %v", took)
	}
	t.Logf("given up after %v", time.Since(began))
}
