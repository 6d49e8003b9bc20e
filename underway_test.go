package gpoll_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// An answer is under way while the client's socket has not taken all of it.

// narrow is listening with connections that hold 4 KiB.
func narrow(configure func(*gpoll.Broadcaster)) setup {
	how := listening(configure)
	how.buffer = 4096
	return how
}

// on serves a Broadcaster on its Listener over ln, until the test ends.
func on(t testing.TB, b *gpoll.Broadcaster, ln net.Listener, dial func() (net.Conn, error)) *server {
	t.Helper()
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	hs := &http.Server{Handler: mux}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(b.Listener(ln)) }() // ends with hs.Close
	t.Cleanup(func() {
		shutdown(t, b)
		hs.Close()
		<-served
	})
	return &server{Broadcaster: b, dial: func(context.Context) (net.Conn, error) { return dial() }}
}

// A shortListener accepts TCP connections whose socket takes less than an answer.
type shortListener struct{ net.Listener }

func (l shortListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn, conn.(*net.TCPConn).SetWriteBuffer(32 << 10)
}

// short is a server on such connections.
func short(t testing.TB, b *gpoll.Broadcaster) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return on(t, b, shortListener{ln}, func() (net.Conn, error) {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(32 << 10)
		}
		return conn, err
	})
}

// Repeats that are sent behind an answer which nobody reads cost no more than that answer.
func TestUnderWayMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const conns, repeats = 20, 6
		s := start(t, narrow(nil))
		var wires []*wire
		for range conns {
			w := s.wire(t).as("JSON")
			w.register()
			wires = append(wires, w)
		}
		s.Send("first")
		for _, w := range wires {
			from := w.at
			w.poll()
			w.answer()
			w.at = from
		}
		for range 16 {
			s.Send(strings.Repeat("x", 60_000))
		}
		heap := func() int {
			synctest.Wait()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int(m.HeapAlloc)
		}
		wires[0].poll() // what all answers have in common is made
		before := heap()
		for range repeats {
			for _, w := range wires {
				w.poll()
			}
		}
		if n := s.Stats().Repeats; n < conns {
			t.Fatalf("%d repeats", n)
		}
		if grown := heap() - before; grown > conns*3/2<<20 {
			t.Errorf("%d connections hold %d KiB each, for answers of 940 KiB", conns, grown>>10/conns)
		}
		for _, w := range wires {
			w.conn.Close()
		}
	})
}

// remembered publishes "first" and polls for it until the connection answers by itself. It returns the cursor of that.
func (w *wire) remembered() (from string) {
	w.t.Helper()
	from = w.at
	w.s.mustPublish(w.t, "", "first")
	for before := w.s.Stats().Repeats; w.s.Stats().Repeats == before; {
		w.at = from
		w.poll()
		w.answer()
	}
	return from
}

// What is sent behind an answer that is under way is answered after it, in order.
func TestUnderWayPipelined(t *testing.T) {
	const size, count = 60_000, 10
	script := func(t *testing.T, s *server) {
		w := s.wire(t).as("JSON")
		w.register()
		from := w.remembered()
		for range count {
			s.mustPublish(t, "", strings.Repeat("x", size))
		}
		for i := range 3 {
			before := s.Stats().Repeats
			w.at = from
			w.poll()
			if i == 0 {
				await(t, "a repeat", func() bool { return s.Stats().Repeats == before+1 })
			}
		}
		w.get("/nothing")
		for i := range 3 {
			if got := w.payloads(w.answer()); len(got) != 1+count || len(strings.Join(got, "")) != len("first")+count*size {
				t.Errorf("answer %d: %d messages", i, len(got))
			}
		}
		if a := w.answer(); a.status != 404 {
			t.Errorf("what follows: %d", a.status)
		}
	}
	inBubble(t, "memory", func(t *testing.T) { script(t, start(t, narrow(nil))) })
	t.Run("tcp", func(t *testing.T) { script(t, short(t, gpoll.NewBroadcaster())) })
	t.Run("tcp, Authorize", func(t *testing.T) {
		everybody := func(*http.Request) (gpoll.Grant, error) { return gpoll.Grant{}, nil }
		script(t, short(t, &gpoll.Broadcaster{Authorize: everybody}))
	})
}

// An answer that its client does not take, with more requests behind it, ends the connection after WriteTimeout.
func TestUnderWayNeverRead(t *testing.T) {
	s := short(t, &gpoll.Broadcaster{WriteTimeout: 100 * time.Millisecond})
	w := s.wire(t).as("JSON")
	w.register()
	w.at = w.remembered()
	for range 16 {
		s.mustPublish(t, "", strings.Repeat("x", 60_000))
	}
	before := s.Stats().Repeats
	w.poll() // alone: two requests that are read at once are none that is repeated
	await(t, "a repeat", func() bool { return s.Stats().Repeats > before })
	await(t, "the connection ends", func() bool {
		path := "/poll?client-id=" + w.id + "&after=" + w.at + "&format=json"
		_, err := io.WriteString(w.conn, "GET "+path+" HTTP/1.1\r\nHost: gpoll.test\r\n\r\n")
		return err != nil
	})
}

// begun returns a wire of a server of narrow connections with an answer of 60,000 bytes under way: to a poll that was
// parked, or to one that did not have to wait.
func begun(t *testing.T, s *server, form string, waits bool) *wire {
	t.Helper()
	w := s.armedAs(t, form)
	big := strings.Repeat("x", 60_000)
	before := s.Stats().Repeats
	synctest.Wait()
	if waits {
		w.poll()
		synctest.Wait()
	}
	s.mustPublish(t, "", big)
	if !waits {
		w.poll()
	}
	synctest.Wait()
	if s.Stats().Repeats != before+1 {
		t.Fatal("no repeat")
	}
	return w
}

// eachUnderWay runs a test for each form of a poll that waits and one that does not.
func eachUnderWay(t *testing.T, test func(t *testing.T, form string, waits bool)) {
	for _, form := range pollForms {
		for _, waits := range []bool{true, false} {
			inBubble(t, fmt.Sprintf("%s, waits %v", form, waits), func(t *testing.T) { test(t, form, waits) })
		}
	}
}

func isBig(got []string) bool { return len(got) == 1 && len(got[0]) == 60_000 }

// An answer that did not arrive is sent again, to a poll without cursor too; one that did arrive is not.
func TestUnderWayAcknowledged(t *testing.T) {
	eachUnderWay(t, func(t *testing.T, form string, waits bool) {
		s := start(t, narrow(nil))
		w := begun(t, s, form, waits)
		w.conn.Close()
		synctest.Wait()
		back := s.wire(t).as(form)
		back.id, back.at = w.id, w.at
		back.poll()
		if got := back.payloads(back.answer()); !isBig(got) {
			t.Errorf("after an answer that was cut: %.20q", got)
		}
		w = begun(t, s, form, waits)
		w.payloads(w.answer())
		synctest.Wait()
		s.Send("next")
		elsewhere := s.wire(t).as(form)
		elsewhere.id, elsewhere.at = w.id, w.at
		elsewhere.poll()
		if got := elsewhere.payloads(elsewhere.answer()); fmt.Sprint(got) != "[next]" {
			t.Errorf("after an answer that arrived: %.20q", got)
		}
	})
}

// Whichever of the two servers is shut down, an answer that is under way goes out first, for at most WriteTimeout.
func TestUnderWayShutdown(t *testing.T) {
	for _, first := range []string{"Broadcaster", "http.Server", "http.Server's Close"} {
		for _, reads := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, reads %v", first, reads), func(t *testing.T) {
				eachUnderWay(t, func(t *testing.T, form string, waits bool) {
					how := narrow(func(b *gpoll.Broadcaster) { b.WriteTimeout = 5 * time.Second })
					var hs *http.Server
					how.server = func(s *http.Server) { hs = s }
					s := start(t, how)
					w := begun(t, s, form, waits)
					began := time.Now()
					closed := shutBy(first, s, hs)
					advance(time.Second)
					if reads {
						if got := w.payloads(w.answer()); !isBig(got) {
							t.Errorf("%.20q", got)
						}
						if first != "Broadcaster" {
							if _, err := w.read(); err == nil {
								t.Error("the connection goes on")
							}
						}
					}
					if err := <-closed; err != nil {
						t.Error(err)
					}
					if err := s.Shutdown(t.Context()); err != nil {
						t.Error(err)
					}
					if d := time.Since(began); reads && d > 2*time.Second || d > 6*time.Second {
						t.Errorf("it took %v", d)
					}
				})
			})
		}
	}
}

// The server's IdleTimeout runs from the end of an answer, however long that took.
func TestUnderWayIdle(t *testing.T) {
	eachUnderWay(t, func(t *testing.T, form string, waits bool) {
		how := narrow(func(b *gpoll.Broadcaster) { b.WriteTimeout = 20 * time.Second })
		how.server = func(s *http.Server) { s.IdleTimeout = 5 * time.Second }
		s := start(t, how)
		advance(time.Second)
		w := begun(t, s, form, waits)
		advance(8 * time.Second)
		if got := w.payloads(w.answer()); !isBig(got) {
			t.Fatalf("%.20q", got)
		}
		advance(4 * time.Second)
		s.Send("next")
		w.poll()
		if got := w.payloads(w.answer()); fmt.Sprint(got) != "[next]" {
			t.Errorf("%.20q", got)
		}
		began := time.Now()
		if _, err := w.read(); err == nil || time.Since(began) != 5*time.Second {
			t.Errorf("the idle connection ends after %v: %v", time.Since(began), err)
		}
	})
}

// A client that has sent its last request reads the answer that is under way to its end.
func TestUnderWayHalfClosed(t *testing.T) {
	eachUnderWay(t, func(t *testing.T, form string, waits bool) {
		s := start(t, narrow(nil))
		w := begun(t, s, form, waits)
		w.conn.(*gpolltest.Conn).CloseWrite()
		advance(time.Second)
		if got := w.payloads(w.answer()); !isBig(got) {
			t.Errorf("%.20q", got)
		}
		if _, err := w.read(); err == nil {
			t.Error("the connection goes on")
		}
	})
}

// A handler that takes the connection from net/http gets it when the answer that is under way has gone out.
func TestUnderWayHijacked(t *testing.T) {
	eachUnderWay(t, func(t *testing.T, form string, waits bool) {
		how := narrow(nil)
		taken := make(chan struct{})
		how.wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/take" {
					h.ServeHTTP(w, r)
					return
				}
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				close(taken)
				fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken")
			})
		}
		s := start(t, how)
		w := begun(t, s, form, waits)
		w.get("/take")
		advance(time.Second)
		select {
		case <-taken:
			t.Error("the connection was taken while an answer was under way")
		default:
		}
		if got := w.payloads(w.answer()); !isBig(got) {
			t.Errorf("%.20q", got)
		}
		w.expect("taken")
	})
}

// A deafConn refuses every write without waiting, and is open otherwise, as when a system is short of memory.
type deafConn struct{ *gpolltest.Conn }

func (deafConn) TryWrite([]byte) (int, error) { return 0, errors.New("no buffer space available") }

type deafListener struct{ net.Listener }

func (l deafListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return deafConn{conn.(*gpolltest.Conn)}, nil
}

// A connection that a parked poll cannot be answered on is closed: its client hears of it, and asks again.
func TestParkedUnanswerable(t *testing.T) {
	for _, form := range pollForms {
		inBubble(t, form, func(t *testing.T) {
			ln := gpolltest.NewListener()
			dial := func() (net.Conn, error) { return ln.DialContext(t.Context(), "", "") }
			s := on(t, gpoll.NewBroadcaster(), deafListener{ln}, dial)
			s.settle = synctest.Wait
			w := s.armedAs(t, form)
			w.parked()
			began := time.Now()
			s.Send("m")
			if a, err := w.read(); err == nil || time.Since(began) > 0 {
				t.Errorf("%v %v after %v", a, err, time.Since(began))
			}
			back := s.wire(t).as(form)
			back.id, back.at = w.id, w.at
			back.poll()
			if got := back.payloads(back.answer()); fmt.Sprint(got) != "[m]" {
				t.Errorf("%q, want m", got)
			}
		})
	}
}
