package gpoll_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// What becomes of a connection of Listener that net/http is made to believe has ended.

// everywhere runs f on connections in memory and on sockets, with and without Authorize.
func everywhere(t *testing.T, f func(t *testing.T, how setup)) {
	for _, asked := range []bool{false, true} {
		configure := func(b *gpoll.Broadcaster) {
			if asked {
				b.Authorize = func(*http.Request) (gpoll.Grant, error) { return gpoll.Grant{}, nil }
			}
		}
		name := fmt.Sprintf("Authorize %v", asked)
		inBubble(t, "memory, "+name, func(t *testing.T) { f(t, listening(configure)) })
		t.Run("sockets, "+name, func(t *testing.T) { f(t, setup{listener: true, broadcaster: configure}) })
	}
}

// While a poll is parked the server has no connection; with the next other request it has a new one.
func TestKeptStates(t *testing.T) {
	everywhere(t, func(t *testing.T, how setup) {
		var begun, open atomic.Int64
		how.server = func(s *http.Server) {
			s.ConnContext = func(ctx context.Context, c net.Conn) context.Context { begun.Add(1); return ctx }
			s.ConnState = counting(&open)
		}
		s := start(t, how)
		w := s.armed(t)
		w.parked()
		await(t, "no connection at the server", func() bool { return open.Load() == 0 })
		before := begun.Load()
		s.Send("m")
		w.expect("m")
		w.get("/nothing")
		if a := w.answer(); a.status != 404 {
			t.Errorf("%d", a.status)
		}
		if begun.Load() != before+1 || open.Load() != 1 {
			t.Errorf("%d connections were begun and %d are open", begun.Load()-before, open.Load())
		}
		w.arm()
		w.parked()
		s.Send("again")
		w.expect("again")
	})
}

// What arrives behind a poll that waits reaches the server whole and in order, in whatever pieces.
func TestKeptNothingLost(t *testing.T) {
	everywhere(t, func(t *testing.T, how setup) {
		how.wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/echo" {
					h.ServeHTTP(w, r)
					return
				}
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				fmt.Fprintf(w, "%d %v", len(body), slices.Max(body) == 'x' && slices.Min(body) == 'x')
			})
		}
		s := start(t, how)
		for _, size := range []int{1, 3000, 4096, 200_000} {
			w := s.armed(t)
			w.parked()
			head := fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: gpoll.test\r\nContent-Length: %d\r\n\r\n", size)
			go io.WriteString(w.conn, head+strings.Repeat("x", size)) // ends when all has been read
			if s.settle != nil {
				s.settle()
			}
			s.Send("m")
			w.expect("m")
			w.expect(fmt.Sprintf("%d true", size))
		}
	})
}

// A listener that is closed without its server ends the polls that wait on its connections, and the connections that
// are kept. Those that the server has go on, and are kept no more.
func TestKeptListenerClosed(t *testing.T) {
	closed := func(t *testing.T, below net.Listener, dial func() (net.Conn, error), rest func()) {
		b := gpoll.NewBroadcaster()
		mux := http.NewServeMux()
		b.ListenAndBroadcast("/poll", mux)
		ln := b.Listener(below)
		var atServer atomic.Int64
		hs := &http.Server{Handler: mux, ConnState: counting(&atServer)}
		served := make(chan error, 1)
		go func() { served <- hs.Serve(ln) }() // ends with ln.Close
		s := &server{Broadcaster: b, settle: rest, dial: func(context.Context) (net.Conn, error) { return dial() }}
		idle := s.armed(t)
		idle.parked()
		s.Send("m")
		idle.expect("m")
		parked, open := s.armed(t), s.wire(t)
		parked.parked()
		open.register()
		await(t, "the server has one of three connections", func() bool { return atServer.Load() == 1 })
		before := b.Stats().Repeats
		ln.Close()
		if a := parked.answer(); a.status != 503 || a.code(t) != "shutdown" {
			t.Errorf("%d %s", a.status, a.body)
		}
		for _, w := range []*wire{parked, idle} {
			if a, err := w.read(); err == nil {
				t.Errorf("the connection goes on: %d", a.status)
			}
		}
		if err := <-served; err == nil {
			t.Error("Serve returned nil")
		}
		for range 3 {
			open.arm()
		}
		if n := b.Stats().Repeats; n > before {
			t.Errorf("%d repeats after Close", n-before)
		}
		hs.Close()
		shutdown(t, b)
	}
	inBubble(t, "memory", func(t *testing.T) {
		ln := gpolltest.NewListener()
		closed(t, ln, func() (net.Conn, error) { return ln.DialContext(t.Context(), "", "") }, synctest.Wait)
	})
	t.Run("sockets", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		closed(t, ln, func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }, nil)
	})
}

// A scriptedListener accepts what it is told.
type scriptedListener struct {
	net.Listener
	script chan any // a net.Conn or an error
	asked  atomic.Int64
	done   chan struct{}
}

func (l *scriptedListener) Accept() (net.Conn, error) {
	l.asked.Add(1)
	select {
	case next := <-l.script:
		if conn, ok := next.(net.Conn); ok {
			return conn, nil
		}
		return nil, next.(error)
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *scriptedListener) Close() error { close(l.done); return errors.New("of Close") }

// Accept returns what the listener below returns, in the same order. At most one connection is accepted before somebody
// asks for it, and it is closed if nobody does.
func TestKeptAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gpoll.NewBroadcaster()
		defer shutdown(t, b)
		below := &scriptedListener{script: make(chan any, 10), done: make(chan struct{})}
		ln := b.Listener(below)
		temporary := errors.New("temporary")
		first, _ := gpolltest.Pipe(0)
		second, other := gpolltest.Pipe(0)
		third, _ := gpolltest.Pipe(0)
		for _, next := range []any{temporary, first, temporary, second, third} {
			below.script <- next
		}
		for i, want := range []any{temporary, first, temporary} {
			conn, err := ln.Accept()
			if conn == nil && err != want || conn != nil && conn.(interface{ NetConn() net.Conn }).NetConn() != want {
				t.Errorf("Accept %d: %v, %v", i, conn, err)
			}
			synctest.Wait()
			if n := below.asked.Load(); n != int64(i+2) {
				t.Errorf("%d were accepted when %d were asked for", n, i+1)
			}
		}
		if err := ln.Close(); err == nil || err.Error() != "of Close" {
			t.Errorf("Close: %v", err)
		}
		synctest.Wait()
		if _, err := other.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection that nobody has accepted: %v", err)
		}
		if n := below.asked.Load(); n > 5 {
			t.Errorf("%d were accepted", n)
		}
	})
}

// The server's time for an idle connection is kept on sockets too: it runs between two polls, and not during one.
func TestKeptIdle(t *testing.T) {
	const idle = 300 * time.Millisecond
	s := start(t, setup{listener: true, server: func(hs *http.Server) { hs.IdleTimeout = idle },
		broadcaster: func(b *gpoll.Broadcaster) { b.PollWait = time.Second }})
	for range 2 {
		w := s.armed(t)
		for range 2 {
			w.parked()
			if a := w.answer(); a.status != 204 {
				t.Fatalf("a poll of a second: %d", a.status)
			}
		}
		began := time.Now()
		if _, err := w.r.ReadByte(); err != io.EOF {
			t.Errorf("an idle connection: %v, want the end", err)
		}
		if d := time.Since(began); d < idle-50*time.Millisecond {
			t.Errorf("closed after %v", d)
		}
	}
}

// A client that stops sending right behind its poll is answered at once, though both arrive together.
func TestKeptEndBehindPoll(t *testing.T) {
	s := start(t, setup{listener: true})
	for range 50 {
		w := s.armed(t)
		w.parked()
		s.Send("m")
		w.expect("m")
		w.poll()
		w.conn.(*net.TCPConn).CloseWrite()
		began := time.Now()
		if a := w.answer(); a.status != 204 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if d := time.Since(began); d > patience/2 {
			t.Fatalf("it took %v", d)
		}
		if _, err := w.read(); err == nil {
			t.Fatal("the connection goes on")
		}
	}
}

// SetKeepAlivesEnabled(false) reaches a connection that is kept when its poll passes through net/http again.
func TestKeptKeepAlives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hs *http.Server
		how := listening(nil)
		how.server = func(s *http.Server) { hs = s }
		s := start(t, how)
		w := s.armed(t)
		w.parked()
		hs.SetKeepAlivesEnabled(false)
		began := time.Now()
		for {
			s.Send("m")
			w.expect("m")
			advance(time.Second)
			w.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := w.r.Peek(1); err == io.EOF {
				break
			}
			w.conn.SetReadDeadline(time.Time{})
			w.poll()
		}
		if d := time.Since(began); d > 33*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// A panic while a connection that is kept is read ends its poll with "internal", and the connection.
func TestKeptPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ln, logged := trapped(t, true)
		id, _ := s.register(t)
		near, far := parkedOn(t, s, ln, id)
		far.read.Store(true)
		io.WriteString(near, "GET / HTTP/1.1\r\n")
		p, err := io.ReadAll(near)
		if err != nil || !strings.HasPrefix(string(p), "HTTP/1.1 500 ") || !strings.Contains(string(p), `"internal"`) {
			t.Errorf("%q %v", p, err)
		}
		synctest.Wait()
		if logged.Load() == 0 {
			t.Error("the panic was not logged")
		}
		if held := s.LocksHeld(); len(held) > 0 {
			t.Errorf("held: %v", held)
		}
		if st := s.Stats(); st.Attached["long-poll"] != 0 {
			t.Errorf("attached: %v", st.Attached)
		}
		s.Send("m")
		if a := s.get(t, "/poll"+query("client-id", id)); a.body != "m" {
			t.Errorf("the next poll: %d %q", a.status, a.body)
		}
	})
}

// A poll that waits on a socket has no goroutine.
func TestKeptGoroutines(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere each has one")
	}
	var open atomic.Int64
	s := start(t, setup{listener: true, server: func(hs *http.Server) { hs.ConnState = counting(&open) }})
	const n = 100
	before := runtime.NumGoroutine()
	var wires [n]*wire
	for i := range wires {
		wires[i] = s.armed(t)
	}
	newest := s.mustPublish(t, "", "newest").String()
	for open.Load() > 0 { // who polls before the handler of the last poll has returned is not remembered
		before := newest
		newest = s.mustPublish(t, "", "newest").String()
		for _, w := range wires {
			w.at = before
			w.poll()
			w.expect("newest")
		}
	}
	for _, w := range wires {
		w.at = newest
		w.poll()
	}
	s.awaitAttached(t, "long-poll", n)
	await(t, "few goroutines", func() bool { return runtime.NumGoroutine() < before+n/4 })
	if got := s.Stats().Attached["long-poll"]; got != n {
		t.Errorf("%d polls wait, want %d", got, n)
	}
	s.Send("m")
	for _, w := range wires {
		w.expect("m")
	}
}

// counting returns a hook that counts the connections that a server has.
func counting(open *atomic.Int64) func(net.Conn, http.ConnState) {
	return func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
}

// Clients that poll, send more than a poll, break off and come back get everything in order. The race detector is half
// of this test.
func TestKeptRestless(t *testing.T) {
	for _, asked := range []bool{false, true} {
		t.Run(fmt.Sprintf("Authorize %v", asked), func(t *testing.T) {
			how := setup{listener: true, server: func(hs *http.Server) { hs.IdleTimeout = 100 * time.Millisecond }}
			how.broadcaster = func(b *gpoll.Broadcaster) {
				b.PollWait = 50 * time.Millisecond
				if asked {
					b.Authorize = func(*http.Request) (gpoll.Grant, error) {
						runtime.Gosched()
						return gpoll.Grant{}, nil
					}
				}
			}
			s := start(t, how)
			const clients, messages = 20, 300
			wires := make([]*wire, clients)
			for i := range wires {
				wires[i] = s.wire(t)
				wires[i].register()
			}
			var all sync.WaitGroup
			for i, w := range wires {
				all.Go(func() {
					if err := w.restless(rand.New(rand.NewPCG(uint64(i), 1)), messages); err != nil {
						t.Errorf("client %d: %v", i, err)
					}
				})
			}
			for i := range messages {
				s.mustPublish(t, "", fmt.Sprint(i))
				if i%3 == 0 {
					time.Sleep(time.Millisecond) // a pace, no order
				}
			}
			all.Wait()
			if n := s.Stats().Repeats; n < clients {
				t.Errorf("%d repeats", n)
			}
		})
	}
}

// restless receives messages 0 to n-1, in the plain form, in a way that varies.
func (w *wire) restless(rnd *rand.Rand, n int) error {
	say := func(text string) { _, _ = io.WriteString(w.conn, text) } // the server may have closed: reading says so
	for next := 0; next < n; {
		poll := "GET /poll?client-id=" + w.id + "&after=" + w.at + " HTTP/1.1\r\nHost: gpoll.test\r\n\r\n"
		answers := 1
		switch rnd.IntN(12) {
		case 0:
			say(poll[:10])
			runtime.Gosched()
			say(poll[10:])
		case 1:
			say(poll + "GET /nothing HTTP/1.1\r\nHost: gpoll.test\r\n\r\n")
			answers = 2
		case 2:
			say(poll)
			runtime.Gosched()
			say("GET /nothing HTTP/1.1\r\nHost: gpoll.test\r\n\r\n")
			answers = 2
		case 3:
			say(poll)
			w.conn.Close()
		default:
			say(poll)
		}
		for range answers {
			a, err := w.read()
			if err != nil {
				w.conn.Close()
				conn, err := w.s.dial(context.Background())
				if err != nil {
					return err
				}
				w.conn, w.r = conn, bufio.NewReader(conn)
				break
			}
			switch a.status {
			case 200:
				if a.body != fmt.Sprint(next) {
					return fmt.Errorf("got %q, want %d", a.body, next)
				}
				next++
			case 204, 404:
			case 409: // the poll that broke off was answered later than the one that followed
			default:
				return fmt.Errorf("%d %s", a.status, a.body)
			}
		}
	}
	return w.conn.Close()
}
