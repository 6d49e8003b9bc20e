//go:build linux

package load_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/freeport"
	"github.com/corvuscrypto/gpoll/internal/load"
)

const run = 0x1234abcd

func address(s *httptest.Server) string { return s.Listener.Addr().String() }

func newEngine(t *testing.T, cfg load.Config) *load.Engine {
	t.Helper()
	cfg.Run = run
	e, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func connect(t *testing.T, e *load.Engine) {
	t.Helper()
	if err := e.Connect(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

// publish runs f beside the engine, as a publisher does, and lets what it published arrive.
func publish(t *testing.T, e *load.Engine, last []uint64, f func() error) *load.Tally {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	var published error
	err := e.Run(func() bool {
		select {
		case published = <-done:
			return true
		default:
			return false
		}
	})
	if err := errors.Join(err, published); err != nil {
		t.Fatal(err)
	}
	if _, err := e.DrainEach(last, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	return e.Take(last)
}

func newGpoll(t *testing.T) (*gpoll.Broadcaster, string) {
	t.Helper()
	b := gpoll.NewBroadcaster()
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = b.Shutdown(ctx) // clients are cut off by then
	})
	return b, address(s)
}

var transports = []string{"websocket", "gpoll.v1", "sse", "sse-json", "long-poll", "long-poll-json"}

// Against a server that loses nothing, every client of every transport gets everything.
func TestGpoll(t *testing.T) {
	const clients, messages = 20, 100
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			b, addr := newGpoll(t)
			p, err := load.Gpoll{Host: addr, Path: "/poll"}.NewProtocol(transport)
			if err != nil {
				t.Fatal(err)
			}
			e := newEngine(t, load.Config{Addr: addr, Clients: clients, Protocol: p})
			connect(t, e)
			tally := publish(t, e, []uint64{messages}, func() error {
				for seq := uint64(1); seq <= messages; seq++ {
					m := gpoll.Message{Data: load.Payload(nil, run, seq, load.Now(), 128)}
					if _, err := b.Publish(context.Background(), m); err != nil {
						return err
					}
				}
				return nil
			})
			if tally.Deliveries != clients*messages || !tally.Clean() || tally.Foreign != 0 || tally.Gaps != 0 {
				t.Errorf("%d clients, %d messages: %+v", clients, messages, tally)
			}
			if tally.Rate() <= 0 || tally.Quantile(99) <= 0 || tally.Quantile(50) > tally.Quantile(99) {
				t.Errorf("rate %v, p50 %v, p99 %v", tally.Rate(), tally.Quantile(50), tally.Quantile(99))
			}
		})
	}
}

// Each topic is a sequence of its own, and the transports share its clients.
func TestGpollTopics(t *testing.T) {
	b, addr := newGpoll(t)
	g := load.Gpoll{Host: addr, Path: "/poll", Topics: []string{"a", "b", "c"}}
	var all load.Mixed
	for _, transport := range transports {
		p, err := g.NewProtocol(transport)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	e := newEngine(t, load.Config{Addr: addr, Clients: 36, Protocol: all, Streams: 3})
	connect(t, e)
	last := []uint64{5, 0, 7}
	tally := publish(t, e, last, func() error {
		for topic, n := range last {
			for seq := uint64(1); seq <= n; seq++ {
				m := gpoll.Message{Topic: g.Topics[topic], Data: load.Payload(nil, run+uint32(topic), seq, load.Now(), 128)}
				if _, err := b.Publish(context.Background(), m); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if tally.Deliveries != 12*(5+7) || !tally.Clean() || tally.Foreign != 0 {
		t.Errorf("%+v", tally)
	}
}

// A server that misbehaves is found out.
func TestFaults(t *testing.T) {
	const clients = 3
	tests := []struct {
		name string
		send []uint64
		want func(*load.Tally) bool
	}{
		{"lost", []uint64{1, 2, 4}, func(t *load.Tally) bool { return t.Lost == clients && t.Deliveries == 3*clients }},
		{"lost at the end", []uint64{1, 2, 3}, func(t *load.Tally) bool { return t.Lost == clients }},
		{"repeated", []uint64{1, 2, 2, 3, 4}, func(t *load.Tally) bool { return t.Repeated == clients && t.Lost == 0 }},
		{"swapped", []uint64{1, 3, 2, 4}, func(t *load.Tally) bool { return t.Disordered == clients && t.Lost == 0 }},
		{"altered", []uint64{1, 2, 0, 3, 4}, func(t *load.Tally) bool { return t.Damaged == clients && t.Lost == 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			begin := make(chan struct{})
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, err := websocket.Accept(w, r, nil)
				if err != nil {
					return
				}
				defer conn.CloseNow()
				<-begin
				for _, seq := range tt.send {
					p := load.Payload(nil, run, seq, load.Now(), 128)
					if seq == 0 {
						p[100] ^= 1
					}
					if err := conn.Write(r.Context(), websocket.MessageText, p); err != nil {
						return
					}
				}
				<-conn.CloseRead(context.Background()).Done()
			}))
			defer s.Close()
			e := newEngine(t, load.Config{Addr: address(s), Clients: clients,
				Protocol: &load.WebSocket{Host: address(s), Path: "/"}})
			connect(t, e)
			close(begin)
			if _, err := e.Drain(4, 300*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if tally := e.Take([]uint64{4}); !tt.want(tally) || tally.Clean() {
				t.Errorf("%+v", tally)
			}
			e.Close()
		})
	}
}

// A connection that the server cuts is counted with its reason, and does not hold up the others.
func TestClosedByServer(t *testing.T) {
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		if n.Add(1) == 1 {
			_ = conn.Close(4008, "slow")
			return
		}
		defer conn.CloseNow()
		_ = conn.Write(r.Context(), websocket.MessageText, load.Payload(nil, run, 1, load.Now(), 128))
		<-conn.CloseRead(context.Background()).Done()
	}))
	defer s.Close()
	e := newEngine(t, load.Config{Addr: address(s), Clients: 3, Protocol: &load.WebSocket{Host: address(s), Path: "/"}})
	defer e.Close()
	if err := e.Connect(t.Context(), 5*time.Second); err != nil && !strings.Contains(err.Error(), "4008 slow") {
		t.Fatal(err)
	}
	all, err := e.Drain(1, 5*time.Second)
	if err != nil || !all {
		t.Fatalf("the two that are left did not get the message: %v, %v", all, err)
	}
	tally := e.Take([]uint64{1})
	if tally.Closed != 1 || tally.Deliveries != 2 || tally.Reasons["closed by the server: 4008 slow"] != 1 ||
		tally.Clean() {
		t.Errorf("%+v", tally)
	}
}

// A poll that the server ends between two answers is taken up on a new connection.
func TestPollRedial(t *testing.T) {
	var n atomic.Uint64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		seq := n.Add(1)
		w.Header().Set("Connection", "close")
		w.Header().Set("Gpoll-Position", "0000000000000001-1")
		if seq == 1 {
			_, _ = io.WriteString(w, `{"client-id":"0$x"}`)
			return
		}
		_, _ = w.Write(load.Payload(nil, run, seq-1, load.Now(), 128))
	}))
	defer s.Close()
	p, err := load.Gpoll{Host: address(s), Path: "/poll"}.NewProtocol("long-poll")
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, load.Config{Addr: address(s), Clients: 1, Protocol: p})
	connect(t, e)
	if all, err := e.Drain(10, 5*time.Second); err != nil || !all {
		t.Fatalf("not everything arrived: %v, %v", all, err)
	}
	if tally := e.Take(nil); tally.Redials < 9 || tally.Lost != 0 || tally.Closed != 0 {
		t.Errorf("%+v", tally)
	}
	e.Close()
}

func TestOnDone(t *testing.T) {
	b, addr := newGpoll(t)
	p, err := load.Gpoll{Host: addr, Path: "/poll"}.NewProtocol("websocket")
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, load.Config{Addr: addr, Clients: 5, Protocol: p})
	connect(t, e)
	acks := make(chan uint64, 100)
	e.OnDone(func(seq uint64) { acks <- seq })
	publish(t, e, []uint64{10}, func() error {
		for seq := uint64(1); seq <= 10; seq++ {
			m := gpoll.Message{Data: load.Payload(nil, run, seq, load.Now(), 128)}
			if _, err := b.Publish(context.Background(), m); err != nil {
				return err
			}
			for <-acks < seq { // the next one only when everybody has this one
			}
		}
		return nil
	})
}

func TestConnectErrors(t *testing.T) {
	quiet, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.Close()
	notFound := httptest.NewServer(http.NotFoundHandler())
	defer notFound.Close()
	tests := []struct {
		name, addr, want string
	}{
		{"nobody listens", freeport.Address(t), "connection refused"},
		{"nobody answers", quiet.Addr().String(), load.ErrStalled.Error()},
		{"another server", address(notFound), "404 Not Found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEngine(t, load.Config{Addr: tt.addr, Clients: 2, Protocol: &load.WebSocket{Host: tt.addr, Path: "/"}})
			defer e.Close()
			err := e.Connect(t.Context(), 200*time.Millisecond)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	for _, cfg := range []load.Config{
		{Addr: "127.0.0.1:1", Protocol: &load.WebSocket{}},
		{Addr: "127.0.0.1:1", Clients: 1},
		{Addr: "127.0.0.1:1", Clients: 1, Protocol: &load.WebSocket{}, Streams: 2},
		{Addr: "nowhere", Clients: 1, Protocol: &load.WebSocket{}},
	} {
		if e, err := load.New(cfg); err == nil {
			e.Close()
			t.Errorf("%+v was taken", cfg)
		}
	}
	_, err := load.New(load.Config{Addr: "127.0.0.1:1", Clients: 1 << 30, Protocol: &load.WebSocket{}})
	if !errors.Is(err, load.ErrDescriptors) {
		t.Errorf("a thousand million clients: %v, want ErrDescriptors", err)
	}
}

// The processor time of a process is exact: a step of 10 ms would be most of what a short run costs.
func TestProcessUsage(t *testing.T) {
	u, err := load.ProcessUsage(os.Getpid())
	if err != nil || u.CPU <= 0 || u.CPU%(10*time.Millisecond) == 0 || u.RSS <= 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := load.ProcessUsage(-1); err == nil {
		t.Error("there is a process -1")
	}
}
