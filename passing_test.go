package gpoll_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// What passes through a connection of Listener to and from net/http.

// The system sends a file by itself, as on an ordinary listener.
func TestListenerSendfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	const size = 32 << 20 // more than the sockets take
	if err := os.WriteFile(path, bytes.Repeat([]byte("f"), size), 0o600); err != nil {
		t.Fatal(err)
	}
	// sends reports whether the system sends: what waits for room in the socket says so.
	sends := func(t *testing.T, wrapped bool) (sends bool) {
		b := gpoll.NewBroadcaster()
		defer shutdown(t, b)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		accepts := ln
		if wrapped {
			accepts = b.Listener(ln)
		}
		handler := func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }
		hs := &http.Server{Handler: http.HandlerFunc(handler)}
		served := make(chan error, 1)
		go func() { served <- hs.Serve(accepts) }() // ends with hs.Close
		defer func() {
			hs.Close()
			<-served
		}()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		w := &wire{t: t, s: &server{Broadcaster: b}, conn: conn}
		w.get("/f")
		await(t, "the server waits for room", func() bool {
			for _, stack := range otherGoroutines() {
				if strings.Contains(stack, "http.ServeFile") && strings.Contains(stack, "waitWrite") {
					sends = strings.Contains(stack, "poll.SendFile")
					return true
				}
			}
			return false
		})
		if got, err := io.Copy(io.Discard, io.LimitReader(conn, size)); got != size || err != nil {
			t.Errorf("%d bytes, %v", got, err)
		}
		return sends
	}
	if !sends(t, false) {
		t.Skip("here net/http reads the file itself on an ordinary listener too")
	}
	if !sends(t, true) {
		t.Error("on Listener the file is read by this process")
	}
}

// A fileConn counts what is read into it.
type fileConn struct {
	*gpolltest.Conn
	files *atomic.Int64
}

func (c fileConn) ReadFrom(r io.Reader) (int64, error) {
	c.files.Add(1)
	return io.Copy(c.Conn, r)
}

type fileListener struct {
	net.Listener
	files *atomic.Int64
}

func (l fileListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fileConn{conn.(*gpolltest.Conn), l.files}, nil
}

// A copying ResponseWriter keeps an answer, and copies it through at the end.
type copying struct {
	http.ResponseWriter
	kept bytes.Buffer
}

func (w *copying) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *copying) Write(p []byte) (int, error) { return w.kept.Write(p) }
func (w *copying) FlushError() error {
	_, err := io.Copy(w.ResponseWriter, struct{ io.Reader }{&w.kept})
	if err == nil {
		err = http.NewResponseController(w.ResponseWriter).Flush()
	}
	return err
}

// A connection of Listener reads from a file as the one it wraps does. A poll whose answer is copied that way is
// remembered all the same.
func TestListenerReadFrom(t *testing.T) {
	for _, own := range []bool{true, false} {
		inBubble(t, fmt.Sprint("ReadFrom of its own ", own), func(t *testing.T) {
			b := gpoll.NewBroadcaster()
			defer shutdown(t, b)
			mux := http.NewServeMux()
			b.ListenAndBroadcast("/poll", mux)
			content := strings.Repeat("a file", 10_000)
			mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(len(content)))
				if _, err := io.Copy(w, struct{ io.Reader }{strings.NewReader(content)}); err != nil {
					t.Error(err)
				}
			})
			var files atomic.Int64
			ln := gpolltest.NewListener()
			var accepts net.Listener = ln
			if own {
				accepts = fileListener{ln, &files}
			}
			hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/poll" {
					w = &copying{ResponseWriter: w}
				}
				mux.ServeHTTP(w, r)
				if c, ok := w.(*copying); ok && c.kept.Len() > 0 {
					c.FlushError()
				}
			})}
			go hs.Serve(b.Listener(accepts)) // ends with hs.Close
			defer hs.Close()
			s := &server{Broadcaster: b, settle: synctest.Wait,
				dial: func(ctx context.Context) (net.Conn, error) { return ln.DialContext(ctx, "", "") }}
			w := s.wire(t)
			w.get("/file")
			w.expect(content)
			if n := files.Load(); (n == 1) != own {
				t.Errorf("%d files", n)
			}
			w.register()
			big := strings.Repeat("x", 50_000)
			s.Send(big)
			w.poll()
			w.expect(big)
			for i := range uint64(3) {
				s.Send(big)
				w.poll()
				w.expect(big)
				if n := s.Stats().Repeats; n != i+1 {
					t.Errorf("%d repeats of %d", n, i+1)
				}
			}
			w.get("/file")
			w.expect(content)
		})
	}
}

// A flushing ResponseWriter sends the head before the body, which goes through net/http in one piece then.
type flushing struct{ http.ResponseWriter }

func (w *flushing) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *flushing) Write(p []byte) (int, error) {
	if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

// A poll with a long answer is remembered, without a copy of the answer.
func TestListenerLongAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		allocated := func(listener bool) uint64 {
			how := listening(nil)
			how.listener, how.buffer = listener, 4<<20
			how.wrap = func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.Contains(r.URL.RawQuery, "after") {
						w = &flushing{w}
					}
					h.ServeHTTP(w, r)
				})
			}
			s := start(t, how)
			for range 16 {
				s.Send(strings.Repeat("x", 60_000))
			}
			w := s.wire(t).as("JSON")
			w.register()
			end := w.at
			w.at, _, _ = strings.Cut(w.at, "-")
			from := w.at + "-0"
			w.at = from
			w.poll() // what all answers have in common is made
			if got := w.payloads(w.answer()); len(got) != 16 {
				t.Fatalf("%d messages up to %s", len(got), end)
			}
			other := s.wire(t).as("JSON")
			other.id, other.at = w.id, from
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			other.poll()
			synctest.Wait()
			runtime.ReadMemStats(&after)
			other.answer()
			if listener {
				other.at = from
				other.poll()
				other.answer()
				if s.Stats().Repeats != 1 {
					t.Error("the poll was not remembered")
				}
			}
			return after.TotalAlloc - before.TotalAlloc
		}
		plain, wrapped := allocated(false), allocated(true)
		if wrapped > plain+200<<10 {
			t.Errorf("an answer of 940 KiB takes %d KiB on an ordinary listener, %d on Listener", plain>>10, wrapped>>10)
		}
	})
}

// An answer that sets cookies is repeated without them; what they change in the client's requests passes through.
func TestListenerCookies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		how := listening(nil)
		var seen atomic.Int64
		how.wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Add("Set-Cookie", fmt.Sprintf("session=%d", seen.Add(1)))
				w.Header()["set-cookie"] = []string{"spelled=otherwise"}
				w.Header().Set("X-Other", "stays")
				h.ServeHTTP(w, r)
			})
		}
		s := start(t, how)
		w := s.wire(t)
		w.register()
		began := time.Now()
		for i := 0; time.Since(began) < 60*time.Second; i++ {
			before, repeats := seen.Load(), s.Stats().Repeats
			w.poll()
			advance(time.Second)
			s.Send("m")
			a := w.expect("m")
			passed, repeated := seen.Load() > before, s.Stats().Repeats > repeats
			if passed == repeated {
				t.Fatalf("poll %d: passed %v, repeated %v", i, passed, repeated)
			}
			want := 0
			if passed {
				want = 2
			}
			if len(a.header["Set-Cookie"]) != want || a.header.Get("X-Other") != "stays" {
				t.Fatalf("poll %d, repeated %v: %v", i, repeated, a.header)
			}
		}
		if n := seen.Load(); n > 5 {
			t.Errorf("the middleware saw %d requests in a minute", n)
		}
		before := seen.Load()
		w.more = fmt.Sprintf("Cookie: session=%d\r\n", before) // the client takes the cookie
		s.Send("m")
		w.poll()
		if w.expect("m"); seen.Load() != before+1 {
			t.Error("a poll with a new cookie was repeated")
		}
	})
}

// Listener finds the connection of a request by a value that net/http gives its handler: the LocalAddr of the
// connection. Each connection has one such pointer, and it is always the same.
func TestListenerLocalAddr(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "memory"} {
		for _, wrapped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, wrapped %v", network, wrapped), func(t *testing.T) {
				b := gpoll.NewBroadcaster()
				defer shutdown(t, b)
				var ln net.Listener
				dial := func() (net.Conn, error) { return net.Dial(network, ln.Addr().String()) }
				switch network {
				case "memory":
					memory := gpolltest.NewListener()
					ln, dial = memory, func() (net.Conn, error) { return memory.DialContext(t.Context(), "", "") }
				default:
					addr := "127.0.0.1:0"
					if network == "unix" {
						addr = filepath.Join(t.TempDir(), "s")
					}
					var err error
					if ln, err = net.Listen(network, addr); err != nil {
						t.Fatal(err)
					}
				}
				accepts := ln
				if wrapped {
					accepts = b.Listener(ln)
				}
				type connKey struct{}
				var mu sync.Mutex
				owners := map[net.Addr]net.Conn{}
				hs := &http.Server{
					ConnContext: func(ctx context.Context, c net.Conn) context.Context {
						return context.WithValue(ctx, connKey{}, c)
					},
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						mu.Lock()
						defer mu.Unlock()
						told := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
						conn := r.Context().Value(connKey{}).(net.Conn)
						for range 2 {
							if says := conn.LocalAddr(); told != says {
								t.Errorf("a handler is told %p, the connection says %p", told, says)
							}
						}
						if owner := owners[told]; owner != nil && owner != conn {
							t.Error("two connections have one LocalAddr")
						}
						owners[told] = conn
					}),
				}
				served := make(chan error, 1)
				go func() { served <- hs.Serve(accepts) }() // ends with hs.Close
				defer func() {
					hs.Close()
					<-served
				}()
				const conns = 10
				for range conns {
					conn, err := dial()
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					w := (&server{Broadcaster: b, dial: func(context.Context) (net.Conn, error) { return conn, nil }}).wire(t)
					for range 2 {
						w.get("/")
						w.answer()
					}
				}
				mu.Lock()
				defer mu.Unlock()
				if len(owners) != conns {
					t.Errorf("%d connections have %d addresses", conns, len(owners))
				}
			})
		}
	}
}

// Middleware may answer while the handler of a poll still runs, as http.TimeoutHandler does. The race detector does
// half of this test.
func TestListenerTimeoutHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		how := listening(nil)
		how.wrap = func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Second, "too late") }
		s := start(t, how)
		w := s.wire(t)
		w.register()
		for range 20 {
			w.poll()
			if a := w.answer(); a.status != 503 || a.body != "too late" {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		s.Send("m")
		w.poll()
		w.expect("m")
	})
}
