//go:build linux

package serve_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll/internal/load"
	"github.com/corvuscrypto/gpoll/internal/load/serve"
)

// TestMain is also the server that the tests start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "server" {
		os.Exit(serve.Run(serve.Peer{Start: start}, "server", os.Args[2:]))
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // or each server that is stopped sleeps for a second under -race
	os.Exit(m.Run())
}

// start serves one client, to whom it writes from the publisher.
func start(ln net.Listener) (func([]byte) error, error) {
	conns := make(chan *websocket.Conn, 1)
	go func() {
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			ctx := conn.CloseRead(r.Context())
			conns <- conn
			<-ctx.Done()
		}))
	}()
	var conn *websocket.Conn
	return func(p []byte) error {
		if conn == nil {
			conn = <-conns
		}
		if strings.Contains(string(p), "-0000000000000063-") {
			return errors.New("message 99 cannot be published")
		}
		w, err := conn.Writer(context.Background(), websocket.MessageText)
		if err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		return w.Close()
	}, nil
}

func startProcess(t *testing.T, args ...string) (*serve.Process, error) {
	t.Helper()
	p, err := serve.Start(exec.Command(os.Args[0], append([]string{"server"}, args...)...), -1, 1)
	if err == nil {
		t.Cleanup(p.Stop)
	}
	return p, err
}

func connect(t *testing.T, p *serve.Process) *load.Engine {
	t.Helper()
	e, err := load.New(load.Config{Addr: p.Addr, Clients: 1, Run: 1, Protocol: &load.WebSocket{Host: p.Addr, Path: "/"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	if err := e.Connect(t.Context(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestPublish(t *testing.T) {
	p, err := startProcess(t)
	if err != nil {
		t.Fatal(err)
	}
	e := connect(t, p)
	tally, err := p.Publish(e, serve.Command{Do: "paced", Count: 5, Every: 2 * time.Millisecond})
	if err != nil || tally.Deliveries != 5 || !tally.Clean() {
		t.Fatalf("paced: %+v, %v", tally, err)
	}
	// With a window of one no message leaves before the one before has arrived.
	before, err := p.Stats(true)
	if err != nil || before.RSS <= 0 {
		t.Fatalf("stats: %+v, %v", before, err)
	}
	tally, err = p.Publish(e, serve.Command{Do: "saturated", For: time.Millisecond, Window: 1, Greedy: true})
	if err != nil && !strings.Contains(err.Error(), "message 99") {
		t.Fatalf("saturated: %v", err)
	}
	if tally.Deliveries < 1 || tally.Lost > 1 {
		t.Errorf("saturated: %+v", tally)
	}
	after, err := p.Stats(false)
	if err != nil || after.CPU < before.CPU {
		t.Errorf("processor time went from %v to %v, %v", before.CPU, after.CPU, err)
	}
}

// What a server cannot do is said with what it did.
func TestPublishError(t *testing.T) {
	p, err := startProcess(t)
	if err != nil {
		t.Fatal(err)
	}
	e := connect(t, p)
	tally, err := p.Publish(e, serve.Command{Do: "paced", Count: 120, Every: 10 * time.Microsecond})
	if err == nil || !strings.Contains(err.Error(), "message 99 cannot be published") {
		t.Errorf("error %v", err)
	}
	if tally != nil && tally.Deliveries > 98 {
		t.Errorf("%d deliveries", tally.Deliveries)
	}
}

func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := startProcess(t, "-addr", ln.Addr().String()); err == nil ||
		!strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error %v", err)
	}
}

func TestServerDies(t *testing.T) {
	if _, err := serve.Start(exec.Command("false"), -1, 1); err == nil ||
		!strings.Contains(err.Error(), "the server ended") {
		t.Errorf("error %v", err)
	}
	if _, err := serve.Start(exec.Command("/nonexistent"), -1, 1); err == nil {
		t.Error("a program that is not there was started")
	}
}
