//go:build !js

package eventloop_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/eventloop"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// A witness is a handler that calls functions, and notes whether it is ever entered twice at once.
type witness struct {
	accepted, closed func(l *eventloop.Loop, id uint64)
	received         func(l *eventloop.Loop, id uint64, message []byte)
	timeout          func(l *eventloop.Loop)

	inside atomic.Int32
	twice  atomic.Bool
	calls  atomic.Int64
}

func (w *witness) enter() (leave func()) {
	if w.inside.Add(1) > 1 {
		w.twice.Store(true)
	}
	w.calls.Add(1)
	return func() { w.inside.Add(-1) }
}

func (w *witness) ConnAccepted(l *eventloop.Loop, id uint64) {
	defer w.enter()()
	if w.accepted != nil {
		w.accepted(l, id)
	}
}

func (w *witness) ConnClosed(l *eventloop.Loop, id uint64) {
	defer w.enter()()
	if w.closed != nil {
		w.closed(l, id)
	}
}

func (w *witness) MessageReceived(l *eventloop.Loop, id uint64, message []byte) {
	defer w.enter()()
	if w.received != nil {
		w.received(l, id, message)
	}
}

func (w *witness) EventLoopTimeout(l *eventloop.Loop) {
	defer w.enter()()
	if w.timeout != nil {
		w.timeout(l)
	}
}

// echo answers each message with itself.
func echo(l *eventloop.Loop, id uint64, message []byte) { _ = l.Write(id, message) } // the connection may have ended

// A place is a loop that runs, on a network in memory.
type place struct {
	*testing.T
	*eventloop.Loop
	ln  *gpolltest.Listener
	hc  *http.Client
	ran chan error
}

// run runs a loop until the test ends.
func run(t *testing.T, w *witness) *place {
	p := &place{t, eventloop.New(w), gpolltest.NewListener(), nil, make(chan error, 1)}
	p.Broadcaster().Logger = slog.New(slog.DiscardHandler)
	p.Broadcaster().RegisterRate = -1
	if err := p.Serve(p.ln); err != nil {
		t.Fatal(err)
	}
	p.hc = p.ln.Client()
	go func() { p.ran <- p.Loop.Run(context.Background()) }() // ends with Shutdown
	t.Cleanup(func() {
		p.end()
		if w.twice.Load() {
			t.Error("the handler was entered twice at once")
		}
	})
	return p
}

// end shuts the loop down, once.
func (p *place) end() {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil {
		p.Error(err)
	}
	select {
	case err := <-p.ran:
		if err != nil {
			p.Error(err)
		}
		p.ran <- nil
	case <-ctx.Done():
		p.Error("Run does not return")
	}
	p.hc.CloseIdleConnections()
}

// dial connects a plain WebSocket.
func (p *place) dial() *websocket.Conn {
	p.Helper()
	ws, _, err := websocket.Dial(p.Context(), "ws://gpoll.test/", &websocket.DialOptions{HTTPClient: p.hc})
	if err != nil {
		p.Fatal(err)
	}
	return ws
}

func say(t *testing.T, ws *websocket.Conn, message string) {
	t.Helper()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	_, message, err := ws.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(message)
}

// A connection's events come in order, ids are new each time, and the handler is never entered twice at once.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const conns, messages = 100, 50
		next := map[uint64]int{} // needs no lock
		known := map[uint64]bool{}
		w := &witness{}
		w.accepted = func(_ *eventloop.Loop, id uint64) {
			if known[id] {
				t.Errorf("id %d is there twice", id)
			}
			known[id] = true
		}
		w.received = func(l *eventloop.Loop, id uint64, message []byte) {
			if want := fmt.Sprint(next[id]); !known[id] || string(message) != want {
				t.Errorf("connection %d says %s, not %s", id, message, want)
			}
			next[id]++
			echo(l, id, message)
		}
		w.closed = func(_ *eventloop.Loop, id uint64) {
			if next[id] != messages {
				t.Errorf("connection %d ends after %d messages", id, next[id])
			}
			next[id] = -1
		}
		p := run(t, w)
		var all sync.WaitGroup
		for range conns {
			ws := p.dial()
			all.Go(func() {
				for i := range messages {
					say(t, ws, fmt.Sprint(i))
				}
				for i := range messages {
					if got := hear(t, ws); got != fmt.Sprint(i) {
						t.Errorf("the echo of %d is %s", i, got)
					}
				}
				if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		synctest.Wait()
		if len(next) != conns || p.Conns() != 0 {
			t.Errorf("%d connections were heard, and %d are left", len(next), p.Conns())
		}
	})
}

// EventLoopTimeout comes when nothing has happened for the timeout, and only then.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		begun := time.Now()
		w := &witness{timeout: func(l *eventloop.Loop) {
			if at = append(at, time.Since(begun)); len(at) == 3 {
				l.SetTimeout(0)
			}
		}}
		w.received = func(l *eventloop.Loop, _ uint64, _ []byte) { l.SetTimeout(2 * time.Second) }
		p := run(t, w)
		ws := p.dial()
		defer ws.CloseNow()
		synctest.Wait()
		begun = time.Now()
		say(t, ws, "begin")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(at); got != "[2s 4s 6s]" {
			t.Errorf("the timeouts come at %s", got)
		}
		if p.GetTimeout() != 0 {
			t.Errorf("the timeout is %v", p.GetTimeout())
		}
	})
}

// A peer that takes nothing is closed with "slow"; Write does not wait for it, and the others hear everything.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns := map[uint64]bool{}
		w := &witness{accepted: func(_ *eventloop.Loop, id uint64) { conns[id] = true }}
		w.closed = func(_ *eventloop.Loop, id uint64) { delete(conns, id) }
		w.received = func(l *eventloop.Loop, from uint64, message []byte) {
			begun := time.Now()
			for id := range conns {
				if err := l.Write(id, message); err != nil && !errors.Is(err, eventloop.ErrNoConn) { // it ends
					t.Error(err)
				}
			}
			if time.Since(begun) > 0 {
				t.Errorf("Write has waited %v", time.Since(begun))
			}
		}
		p := run(t, w)
		slow, quick := p.dial(), p.dial()
		defer slow.CloseNow()
		defer quick.CloseNow()
		quick.SetReadLimit(-1)
		big := strings.Repeat("x", 60_000)
		for range 100 {
			say(t, quick, big)
			if got := hear(t, quick); got != big {
				t.Fatalf("%d bytes came", len(got))
			}
		}
		slow.SetReadLimit(-1)
		for {
			if _, _, err := slow.Read(t.Context()); err != nil {
				if websocket.CloseStatus(err) != 4008 || !strings.Contains(err.Error(), "slow") {
					t.Errorf("the slow one ends with %v", err)
				}
				break
			}
		}
		synctest.Wait()
		if p.Conns() != 1 {
			t.Errorf("%d connections are left", p.Conns())
		}
	})
}

// One step is one call of the handler.
func TestStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &witness{received: echo}
		l := eventloop.New(w)
		ln := gpolltest.NewListener()
		if err := l.Serve(ln); err != nil {
			t.Fatal(err)
		}
		p := &place{T: t, Loop: l, hc: ln.Client()}
		ws := p.dial()
		defer ws.CloseNow()
		say(t, ws, "hi")
		for want := range int64(2) {
			if err := l.Step(t.Context()); err != nil || w.calls.Load() != want+1 {
				t.Errorf("%d calls, %v", w.calls.Load(), err)
			}
		}
		if got := hear(t, ws); got != "hi" {
			t.Error(got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Step(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without an event: %v", err)
		}
		w.timeout = func(l *eventloop.Loop) {
			if err := l.Step(t.Context()); !errors.Is(err, eventloop.ErrRunning) {
				t.Errorf("a step in a step: %v", err)
			}
		}
		l.SetTimeout(time.Second)
		if err := l.Step(t.Context()); err != nil {
			t.Error(err)
		}
		over := make(chan error)
		go func() { over <- l.Shutdown(context.Background()) }()
		_ = ws.CloseRead(t.Context()) // answers the close frame
		for err := error(nil); !errors.Is(err, eventloop.ErrClosed); {
			if err = l.Step(t.Context()); err != nil && !errors.Is(err, eventloop.ErrClosed) {
				t.Fatal(err)
			}
		}
		if err := <-over; err != nil {
			t.Error(err)
		}
		if err := l.Step(t.Context()); !errors.Is(err, eventloop.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
		p.hc.CloseIdleConnections()
	})
}

// Shutdown tells every connection, and the handler of each end. What follows is refused.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := 0
		w := &witness{closed: func(*eventloop.Loop, uint64) { closed++ }}
		p := run(t, w)
		var all sync.WaitGroup
		for range 20 {
			ws := p.dial()
			all.Go(func() {
				_, _, err := ws.Read(t.Context())
				if websocket.CloseStatus(err) != websocket.StatusGoingAway || !strings.Contains(err.Error(), "shutdown") {
					t.Errorf("a connection ends with %v", err)
				}
			})
		}
		synctest.Wait()
		p.end()
		all.Wait()
		if closed != 20 {
			t.Errorf("the handler was told of %d ends", closed)
		}
		if err := p.Write(1, nil); !errors.Is(err, eventloop.ErrNoConn) {
			t.Errorf("Write: %v", err)
		}
		if err := p.Serve(gpolltest.NewListener()); !errors.Is(err, eventloop.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}

// A dialed WebSocket is a connection like the others.
func TestAddConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := run(t, &witness{received: echo})
		got := make(chan string, 1)
		var w witness
		w.received = func(l *eventloop.Loop, id uint64, message []byte) {
			got <- fmt.Sprint(id, " ", string(message))
			l.Close(id)
		}
		near := run(t, &w)
		id := near.AddConn(far.dial())
		if err := near.Write(id, []byte("hi")); err != nil {
			t.Fatal(err)
		}
		if said := <-got; said != fmt.Sprint(id, " hi") {
			t.Error(said)
		}
		synctest.Wait()
		if near.Conns() != 0 || far.Conns() != 0 {
			t.Errorf("%d and %d connections are left", near.Conns(), far.Conns())
		}
		if err := near.Write(id, nil); !errors.Is(err, eventloop.ErrNoConn) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A session of gpoll is a connection, by whatever transport.
func TestSessions(t *testing.T) {
	for _, by := range []client.Transport{client.WebSocket, client.SSE, client.LongPoll} {
		t.Run(string(by), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				closed := make(chan uint64, 1)
				w := &witness{received: echo, closed: func(_ *eventloop.Loop, id uint64) { closed <- id }}
				var session uint64
				w.accepted = func(_ *eventloop.Loop, id uint64) { session = id }
				p := run(t, w)
				c, err := client.Dial(t.Context(), "http://gpoll.test/poll", client.Options{HTTPClient: p.hc,
					Transports: []client.Transport{by}})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for i := range 10 {
					if err := c.Send(t.Context(), fmt.Append(nil, "message ", i)); err != nil {
						t.Fatal(err)
					}
				}
				i := 0
				for m, err := range c.Messages(t.Context()) {
					if err != nil || string(m.Data) != fmt.Sprint("message ", i) {
						t.Fatalf("%q %v", m.Data, err)
					}
					if i++; i == 10 {
						break
					}
				}
				p.Close(session)
				if id := <-closed; id != session {
					t.Errorf("connection %d ends, and not %d", id, session)
				}
			})
		})
	}
}

// Several listeners, one of them with TLS, are in one loop.
func TestListeners(t *testing.T) {
	w := &witness{received: echo}
	l := eventloop.New(w)
	l.Broadcaster().Logger = slog.New(slog.DiscardHandler)
	ran := make(chan error, 1)
	go func() { ran <- l.Run(context.Background()) }()
	cert, pool := certificate(t)
	for _, config := range []struct{ secure bool }{{false}, {false}, {true}} {
		var addr net.Addr
		var err error
		scheme, hc := "ws", http.DefaultClient
		if config.secure {
			addr, err = l.Listen("127.0.0.1:0", serverConfig(cert))
			scheme, hc = "wss", clientWith(t, pool)
		} else {
			addr, err = l.Listen("127.0.0.1:0", nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		ws, _, err := websocket.Dial(t.Context(), scheme+"://"+addr.String()+"/chat", &websocket.DialOptions{HTTPClient: hc})
		if err != nil {
			t.Fatal(err)
		}
		say(t, ws, "hi")
		if got := hear(t, ws); got != "hi" {
			t.Error(got)
		}
		defer ws.CloseNow()
		go func() { _, _, _ = ws.Read(context.Background()) }() // answers the close frame
	}
	if err := l.ListenAndServe("127.0.0.1:99999"); err == nil {
		t.Error("it listens on a port that there is not")
	}
	if err := l.ListenAndServeTLS("127.0.0.1:0", "no such file", "no such file"); err == nil {
		t.Error("it listens without a certificate")
	}
	if err := l.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// A page of another origin gets no connection.
func TestOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := run(t, &witness{})
		_, res, err := websocket.Dial(t.Context(), "ws://gpoll.test/", &websocket.DialOptions{HTTPClient: p.hc,
			HTTPHeader: http.Header{"Origin": {"https://elsewhere.test"}}})
		if err == nil || res.StatusCode != http.StatusForbidden || p.Conns() != 0 {
			t.Errorf("another origin: %v", err)
		}
	})
}
