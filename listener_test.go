package gpoll_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// A wire is one connection to a server, and a client that polls on it by hand.
type wire struct {
	t    testing.TB
	s    *server
	conn net.Conn
	r    *bufio.Reader
	id   string
	at   string
	more string // of every request's head
	json bool
}

func (s *server) wire(t testing.TB) *wire {
	t.Helper()
	conn, err := s.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &wire{t: t, s: s, conn: conn, r: bufio.NewReader(conn)}
}

// armed returns a wire whose next poll is a repeat.
func (s *server) armed(t testing.TB) *wire {
	t.Helper()
	w := s.wire(t)
	w.register()
	w.arm()
	return w
}

func (w *wire) register() {
	w.t.Helper()
	w.get("/poll?client-id=0")
	a := w.answer()
	w.id, w.at = idOf(w.t, a.body), a.position()
}

// arm makes a poll that net/http answers.
func (w *wire) arm() {
	w.t.Helper()
	w.s.mustPublish(w.t, "", "first")
	w.poll()
	if a := w.answer(); a.status != http.StatusOK {
		w.t.Fatalf("the first poll: %d %s", a.status, a.body)
	}
}

func (w *wire) get(path string) {
	w.t.Helper()
	if w.s.settle != nil {
		w.s.settle() // the handler of the last poll has returned
	}
	if _, err := io.WriteString(w.conn, "GET "+path+" HTTP/1.1\r\nHost: gpoll.test\r\n"+w.more+"\r\n"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) poll() {
	w.t.Helper()
	path := "/poll?client-id=" + w.id
	if w.at != "" {
		path += "&after=" + w.at
	}
	if w.json {
		path += "&format=json"
	}
	w.get(path)
}

// parked polls. It returns when the poll waits on the connection and the routine would answer it. If the handler of the
// last poll has not returned yet, net/http serves this poll once more.
func (w *wire) parked() {
	w.t.Helper()
	for range 100 {
		before := w.s.Stats().Repeats
		w.poll()
		w.s.awaitTransport(w.t, w.id, "long-poll")
		if w.s.Stats().Repeats > before {
			return
		}
		w.s.mustPublish(w.t, "", "again")
		w.answer()
	}
	w.t.Fatal("every repeat reached net/http")
}

// answer reads an answer and adopts its Position.
func (w *wire) answer() answer {
	w.t.Helper()
	a, err := w.read()
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *wire) read() (answer, error) {
	if w.s.settle == nil { // on a socket an answer that never comes fails its own test, and not the whole run
		w.conn.SetReadDeadline(time.Now().Add(2 * patience))
		defer w.conn.SetReadDeadline(time.Time{})
	}
	resp, err := http.ReadResponse(w.r, nil)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(resp.Body)
	a := answer{resp.StatusCode, resp.Header, string(body)}
	if w.at != "" && a.position() != "" {
		w.at = a.position()
	}
	return a, err
}

// expect reads an answer that carries a message.
func (w *wire) expect(data string) answer {
	w.t.Helper()
	a := w.answer()
	if a.status != http.StatusOK || a.body != data {
		w.t.Fatalf("%d %s, want %q", a.status, a.body, data)
	}
	return a
}

func listening(configure func(*gpoll.Broadcaster)) setup {
	return setup{memory: true, listener: true, broadcaster: configure}
}

// As soon as Authorize refuses, the next poll is refused. A poll that names another user is for a client that does not
// exist.
func TestListenerAuthorize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mayRead atomic.Bool
		var user, refusal atomic.Value
		user.Store("alice")
		refusal.Store("")
		var asked atomic.Int64
		type key struct{}
		how := listening(func(b *gpoll.Broadcaster) {
			b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
				asked.Add(1)
				if r.Context().Value(key{}) != "middleware" || r.Context().Err() != nil {
					t.Error("Authorize does not see what the middleware put into the request's context")
				}
				if r.Header.Get("Cookie") != "session=1" || !strings.HasPrefix(r.URL.RawQuery, "client-id=") {
					t.Errorf("Authorize sees %v", r)
				}
				r.Header.Del("Cookie") // its own copy
				switch refusal.Load() {
				case "error":
					return gpoll.Grant{}, errors.New("no")
				case "panic":
					panic("no")
				}
				return gpoll.Grant{User: user.Load().(string), Subscribe: func(string) bool { return mayRead.Load() }}, nil
			}
		})
		how.wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, "middleware")))
			})
		}
		s := start(t, how)
		again := func(t *testing.T, status int, code string) {
			t.Helper()
			w := s.wire(t)
			w.more = "Cookie: session=1\r\n"
			w.register()
			w.arm()
			before := asked.Load()
			w.parked()
			if asked.Load() != before+1 {
				t.Errorf("Authorize was asked %d times for a repeat", asked.Load()-before)
			}
			s.mustPublish(t, "", "m")
			w.expect("m")
			switch code {
			case "unauthorized":
				refusal.Store("error")
			case "internal":
				refusal.Store("panic")
			default:
				user.Store("bob")
			}
			w.poll()
			if a := w.answer(); a.status != status || a.code(t) != code {
				t.Errorf("%d %s, want %d %s", a.status, a.body, status, code)
			}
			refusal.Store("")
			user.Store("alice")
		}
		again(t, 401, "unauthorized")
		again(t, 500, "internal")
		again(t, 404, "unknown-client")

		w := s.wire(t)
		w.more = "Cookie: session=1\r\n"
		mayRead.Store(true)
		w.register()
		poll := func() { w.get("/poll?client-id=" + w.id + "&after=" + w.at + "&topic=a") }
		for range 3 {
			s.mustPublish(t, "a", "m")
			poll()
			w.expect("m")
		}
		if s.Stats().Repeats == 0 {
			t.Fatal("no repeat")
		}
		mayRead.Store(false)
		poll()
		if a := w.answer(); a.status != 403 {
			t.Errorf("a topic that may be read no more: %d %s", a.status, a.body)
		}
	})
}

// Revoke, RemoveClient and a newer attach end a parked poll with what the ordinary path says.
func TestListenerEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		end    func(s *server, w *wire)
		status int
		code   string
	}{
		{"removed", func(s *server, w *wire) { s.RemoveClient(w.id) }, 404, "removed"},
		{"revoked", func(s *server, w *wire) { s.Revoke("alice") }, 401, "unauthorized"},
		{"superseded", func(s *server, w *wire) {
			other := s.wire(w.t)
			other.id = w.id
			other.poll()
		}, 409, "superseded"},
		{"shutdown", func(s *server, w *wire) { go s.Shutdown(context.Background()) }, 503, "shutdown"},
	} {
		inBubble(t, tt.name, func(t *testing.T) {
			s := start(t, listening(func(b *gpoll.Broadcaster) {
				b.Authorize = func(*http.Request) (gpoll.Grant, error) { return gpoll.Grant{User: "alice"}, nil }
			}))
			w := s.armed(t)
			w.parked()
			tt.end(s, w)
			if a := w.answer(); a.status != tt.status || a.code(t) != tt.code {
				t.Errorf("%d %s, want %d %s", a.status, a.body, tt.status, tt.code)
			}
			w.get("/nothing") // the connection goes on
			if a := w.answer(); a.status != 404 {
				t.Errorf("after that: %d %s", a.status, a.body)
			}
			s.Shutdown(t.Context())
		})
	}
}

// Every poll that waits is answered, whichever of the two is shut down first.
func TestListenerShutdown(t *testing.T) {
	for _, first := range []string{"Broadcaster", "http.Server", "http.Server's Close"} {
		inBubble(t, first, func(t *testing.T) {
			how := listening(nil)
			var hs *http.Server
			how.server = func(s *http.Server) { hs = s }
			s := start(t, how)
			const n = 20
			var wires [n]*wire
			for i := range wires {
				wires[i] = s.armed(t)
			}
			newest := s.mustPublish(t, "", "newest").String()
			for _, w := range wires {
				w.at = newest
				w.parked()
			}
			began := time.Now()
			closed := shutBy(first, s, hs)
			for _, w := range wires {
				a := w.answer()
				if a.status != 503 || a.code(t) != "shutdown" {
					t.Fatalf("%d %s", a.status, a.body)
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
			if d := time.Since(began); d > time.Second { // http.Server looks for idle connections from time to time
				t.Errorf("it took %v", d)
			}
			if first == "Broadcaster" {
				if err := hs.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if n := s.Stats().Attached["long-poll"]; n != 0 {
				t.Errorf("%d polls are left", n)
			}
		})
	}
}

// The http.Server's time-outs do what they do on an ordinary listener, to the nanosecond.
func TestListenerTimeouts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server func(*http.Server)
		idle   time.Duration // between two polls
		head   time.Duration // for the rest of a request
	}{
		{"none", func(s *http.Server) {}, 0, 0},
		{"IdleTimeout", func(s *http.Server) { s.IdleTimeout = 5 * time.Second }, 5 * time.Second, 0},
		{"ReadTimeout", func(s *http.Server) { s.ReadTimeout = 3 * time.Second }, 3 * time.Second, 3 * time.Second},
		{"ReadHeaderTimeout", func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = time.Second, 4*time.Second },
			4 * time.Second, time.Second},
		{"all", func(s *http.Server) {
			s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout = time.Second, 2*time.Second,
				3*time.Second, 6*time.Second
		}, 6 * time.Second, time.Second},
	} {
		inBubble(t, tt.name, func(t *testing.T) {
			how := listening(func(b *gpoll.Broadcaster) { b.PollWait = 20 * time.Second })
			how.server = tt.server
			s := start(t, how)
			// closes reports after what time the server closes the connection; 0: not within a minute.
			closes := func(w *wire) time.Duration {
				began := time.Now()
				w.conn.SetReadDeadline(began.Add(time.Minute))
				if _, err := io.Copy(io.Discard, w.r); isTimeout(err) {
					return 0
				}
				return time.Since(began)
			}
			w := s.armed(t)
			for range 3 { // longer than every time-out
				w.parked()
				advance(15 * time.Second)
				s.Send("m")
				w.expect("m")
				w.arm() // 30 s are over
				w.parked()
				s.Send("m")
				w.expect("m")
			}
			if got := closes(w); got != tt.idle {
				t.Errorf("an idle connection after a repeat is closed after %v, want %v", got, tt.idle)
			}
			w = s.armed(t)
			if got := closes(w); got != tt.idle {
				t.Errorf("an idle connection after an ordinary poll is closed after %v, want %v", got, tt.idle)
			}
			w = s.armed(t)
			io.WriteString(w.conn, "GET /poll?client-id="+w.id)
			synctest.Wait()
			if got := closes(w); got != tt.head {
				t.Errorf("half a request: closed after %v, want %v", got, tt.head)
			}
			w = s.armed(t)
			w.parked()
			began := time.Now()
			if a := w.answer(); a.status != 204 {
				t.Errorf("a poll whose time is over: %d %s", a.status, a.body)
			}
			if d := time.Since(began); d < 18*time.Second || d > 22*time.Second {
				t.Errorf("a poll of 20 s ± 10 %% took %v", d)
			}
		})
	}
}

// A client that goes away while its poll waits is unattached at once. Its next poll gets the messages that it missed.
func TestListenerVanishing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, listening(nil))
		for _, cursor := range []bool{true, false} {
			w := s.wire(t)
			w.register()
			if !cursor {
				w.at = ""
			}
			w.arm()
			w.parked()
			w.conn.Close()
			synctest.Wait()
			if n := s.Stats().Attached["long-poll"]; n != 0 {
				t.Errorf("%d polls are left", n)
			}
			s.Send("missed")
			back := s.wire(t)
			back.id, back.at = w.id, w.at
			back.poll()
			back.expect("missed")
			s.RemoveClient(w.id)
		}
	})
}

// Middleware sees one poll in 30 s. Whatever it adds to the head, every answer has. An answer that it changed is not
// repeated.
func TestListenerMiddleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int64
		how := listening(nil)
		how.wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen.Add(1)
				w.Header().Set("Strict-Transport-Security", "max-age=1")
				switch r.Header.Get("Do") {
				case "encode":
					w.Header().Set("Content-Encoding", "identity")
				case "close":
					w.Header().Set("Connection", "close")
				case "append":
					w = &appending{w}
				}
				h.ServeHTTP(w, r)
			})
		}
		s := start(t, how)
		w := s.armed(t)
		began, before := time.Now(), seen.Load()
		for time.Since(began) < 100*time.Second {
			w.poll()
			advance(time.Second)
			s.Send("m")
			if a := w.expect("m"); a.header.Get("Strict-Transport-Security") != "max-age=1" {
				t.Fatalf("a head without what the middleware adds: %v", a.header)
			}
		}
		if n := seen.Load() - before; n != 3 && n != 4 {
			t.Errorf("the middleware saw %d polls in 100 s, one in 30 s", n)
		}
		for _, do := range []string{"encode", "append"} {
			w := s.wire(t)
			before := s.Stats().Repeats
			w.register()
			w.more = "Do: " + do + "\r\n"
			for range 5 {
				s.Send("m")
				w.poll()
				w.answer()
			}
			if n := s.Stats().Repeats - before; n != 0 {
				t.Errorf("%s: %d polls were repeated", do, n)
			}
		}
	})
}

// An appending ResponseWriter changes the body, and so its length.
type appending struct{ http.ResponseWriter }

func (w *appending) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *appending) WriteHeader(status int) {
	w.Header().Del("Content-Length")
	w.ResponseWriter.WriteHeader(status)
}

func (w *appending) Write(p []byte) (int, error) {
	_, err := w.ResponseWriter.Write(append([]byte("!"), p...))
	return len(p), err
}

// A connection that a proxy shares between clients remembers several; each gets its own messages.
func TestListenerSharedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, listening(nil))
		w := s.wire(t)
		type client struct{ id, at string }
		var clients [6]client
		for i := range clients {
			w.id, w.at = "", ""
			w.register()
			clients[i] = client{w.id, w.at}
		}
		turn := func(i int) {
			c := &clients[i]
			pos, err := s.Publish(t.Context(),
				gpoll.Message{To: gpoll.ToClient(gpoll.PublicID(c.id)), Data: fmt.Append(nil, "for ", i)})
			if err != nil {
				t.Fatal(err)
			}
			w.id, w.at = c.id, c.at
			w.poll()
			w.expect(fmt.Sprint("for ", i))
			if c.at = w.at; c.at != pos.String() {
				t.Errorf("at %s, want %s", c.at, pos)
			}
		}
		for i := range clients {
			turn(i)
		}
		before := s.Stats().Repeats
		for range 5 {
			for i := 2; i < len(clients); i++ { // the last four are remembered
				turn(i)
			}
		}
		if n := s.Stats().Repeats - before; n != 20 {
			t.Errorf("%d of 20 polls of four clients were repeats", n)
		}
		turn(0)
		turn(5)
		turn(0)
	})
}

// A parked poll is told of a gap of the broker and of a new epoch, which the routine cannot answer it with.
func TestListenerGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &scriptedBroker{before: gpoll.Position{Epoch: 1, Seq: 100}}
		s := start(t, listening(func(b *gpoll.Broadcaster) { b.Broker = broker }))
		w := s.wire(t)
		w.register()
		next := func(epoch, seq uint64, gap string) {
			t.Helper()
			w.poll()
			synctest.Wait()
			broker.at(epoch, seq)
			a := w.expect(fmt.Sprint(epoch, "-", seq))
			if got := a.header.Get("Gpoll-Gap"); got != gap {
				t.Errorf("before %d-%d: gap %q, want %q", epoch, seq, got, gap)
			}
		}
		next(1, 101, "")
		next(1, 102, "")
		if s.Stats().Repeats != 1 {
			t.Fatal("no repeat")
		}
		next(1, 105, "0000000000000001-103..0000000000000001-104;broker")
		next(1, 106, "")
		next(1, 107, "")
		next(2, 1, "0000000000000001-108..0000000000000001-0;epoch")
		next(2, 2, "")
		before := s.Stats().Repeats
		next(2, 3, "")
		if s.Stats().Repeats != before+1 {
			t.Error("after the new epoch no poll is a repeat")
		}
	})
}

// If the client's socket does not take an answer at once, the answer goes out later, whole and before anything else, or
// the connection ends.
func TestListenerSlowReader(t *testing.T) {
	for _, reads := range []bool{true, false} {
		inBubble(t, fmt.Sprint("reads ", reads), func(t *testing.T) {
			how := listening(func(b *gpoll.Broadcaster) { b.WriteTimeout = 5 * time.Second })
			how.buffer = 4096
			s := start(t, how)
			w := s.wire(t)
			w.json = true
			w.register()
			w.arm()
			big := strings.Repeat("0123456789", 6000)
			w.parked()
			s.Send(big)
			synctest.Wait()
			w.get("/nothing") // pipelined behind an answer that is not out
			if !reads {
				began := time.Now()
				for { // what stood in the buffers, then the end
					if _, err := w.r.ReadByte(); err != nil {
						break
					}
					advance(time.Second)
				}
				if d := time.Since(began); d < 5*time.Second {
					t.Errorf("closed after %v", d)
				}
				return
			}
			a := w.answer()
			if got := a.batch(t).payloads(t); len(got) != 1 || got[0] != big {
				t.Errorf("the batch is damaged: %.100s", a.body)
			}
			if a := w.answer(); a.status != 404 {
				t.Errorf("what follows: %d %s", a.status, a.body)
			}
		})
	}
}

// A connection of Listener also carries everything else: WebSocket, Hijack by others, files, CloseWrite. The server's
// hooks see what is documented.
func TestListenerConnection(t *testing.T) {
	dir := t.TempDir()
	content := strings.Repeat("a file", 100_000)
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			b := gpoll.NewBroadcaster()
			defer shutdown(t, b)
			mux := http.NewServeMux()
			b.ListenAndBroadcast("/poll", mux)
			mux.Handle("/files/", http.StripPrefix("/files/", http.FileServer(http.Dir(dir))))
			mux.HandleFunc("/take", func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken")
				io.Copy(conn, conn) // the bytes of a poll are bytes like others
			})
			addr := "127.0.0.1:0"
			if network == "unix" {
				addr = filepath.Join(dir, "socket")
			}
			ln, err := net.Listen(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			var accepted sync.Map
			hs := &http.Server{Handler: mux, ConnState: func(c net.Conn, state http.ConnState) {
				if state == http.StateNew {
					accepted.Store(c.(interface{ NetConn() net.Conn }).NetConn().LocalAddr(), c.LocalAddr())
				}
			}}
			served := make(chan error, 1)
			go func() { served <- hs.Serve(b.Listener(ln)) }() // ends with hs.Close
			defer func() {
				hs.Close()
				<-served
			}()
			s := &server{Broadcaster: b,
				dial: func(context.Context) (net.Conn, error) { return net.Dial(network, ln.Addr().String()) }}
			w := s.armed(t)
			w.parked()
			s.Send("m")
			w.expect("m")
			w.get("/files/f")
			w.expect(content)
			w.parked()
			w.get("/take")
			s.Send("m")
			w.expect("m")
			w.expect("taken")
			poll := "GET /poll?client-id=" + w.id + " HTTP/1.1\r\nHost: gpoll.test\r\n\r\n"
			io.WriteString(w.conn, poll)
			back := make([]byte, len(poll))
			if _, err := io.ReadFull(w.r, back); err != nil || string(back) != poll {
				t.Errorf("%q, %v", back, err)
			}
			socket := s.armed(t)
			socket.more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
			socket.get("/poll/ws?client-id=" + socket.id)
			if resp, err := http.ReadResponse(socket.r, nil); err != nil || resp.StatusCode != 101 {
				t.Fatal(resp, err)
			}
			s.Send("over a socket")
			for !strings.Contains(serverFrame(t, "over a socket", socket.r), "over a socket") {
			}
			socket.conn.Close() // Shutdown waits for its close frame otherwise
			accepted.Range(func(a, b any) bool {
				if a != b {
					t.Errorf("LocalAddr %v and %v", a, b)
				}
				return true
			})
		})
	}
}

// Listener refuses bad settings as the mount does, and leaves what it cannot write to as it is.
func TestListenerOfOthers(t *testing.T) {
	func() {
		defer func() {
			if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "ClientBufferSize") {
				t.Errorf("panic %v, want one that names the field", v)
			}
		}()
		(&gpoll.Broadcaster{ClientBufferSize: -1}).Listener(gpolltest.NewListener())
	}()
	synctest.Test(t, func(t *testing.T) {
		b := gpoll.NewBroadcaster()
		defer shutdown(t, b)
		mux := http.NewServeMux()
		b.ListenAndBroadcast("/poll", mux)
		ln := gpolltest.NewListener()
		hs := &http.Server{Handler: mux}
		go hs.Serve(b.Listener(opaqueListener{ln})) // ends with hs.Close
		defer hs.Close()
		s := &server{Broadcaster: b, dial: func(ctx context.Context) (net.Conn, error) { return ln.DialContext(ctx, "", "") }}
		w := s.armed(t)
		for range 3 {
			w.poll()
			synctest.Wait()
			s.Send("m")
			w.expect("m")
		}
		if n := s.Stats().Repeats; n != 0 {
			t.Errorf("%d repeats on connections that cannot be written to without waiting", n)
		}
	})
}

type opaqueListener struct{ net.Listener }

func (l opaqueListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return struct{ net.Conn }{c}, err
}

// Half a request, and then nothing: the server says and does the same on both listeners.
func TestListenerHalfRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said [2]string
		for i := range said {
			how := listening(nil)
			how.listener = i == 1
			how.server = func(s *http.Server) { s.ReadHeaderTimeout = time.Second }
			w := start(t, how).armed(t)
			synctest.Wait()
			io.WriteString(w.conn, "GET /poll?client-id=")
			began := time.Now()
			all, err := io.ReadAll(w.r)
			said[i] = fmt.Sprintf("%q, %v after %v", all, err, time.Since(began))
		}
		if said[0] != said[1] {
			t.Errorf("the ordinary listener: %s; Listener: %s", said[0], said[1])
		}
	})
}

// A client that has closed its sending side and still reads gets an empty answer. Its next poll gets the messages that
// come later.
func TestHalfClosed(t *testing.T) {
	for _, on := range []bool{false, true} {
		inBubble(t, fmt.Sprint("Listener ", on), func(t *testing.T) {
			how := listening(nil)
			how.listener = on
			s := start(t, how)
			w := s.armed(t)
			w.poll()
			synctest.Wait()
			w.conn.(*gpolltest.Conn).CloseWrite()
			at := w.at
			if a := w.answer(); a.status != 204 || a.position() != at {
				t.Errorf("%d %q at %s, want 204 at %s", a.status, a.body, a.position(), at)
			}
			s.Send("later")
			back := s.wire(t)
			back.id, back.at = w.id, w.at
			back.poll()
			back.expect("later")
		})
	}
}

// What a poll is told when its client stops sending is counted like any other answer, on both listeners.
func TestHalfClosedGap(t *testing.T) {
	for _, on := range []bool{false, true} {
		inBubble(t, fmt.Sprint("Listener ", on), func(t *testing.T) {
			how := listening(func(b *gpoll.Broadcaster) { b.History.Count = 1 })
			how.listener = on
			s := start(t, how)
			w := s.armed(t)
			s.Send("missed")
			s.mustPublish(t, "others", "m")
			w.poll()
			synctest.Wait()
			w.conn.(*gpolltest.Conn).CloseWrite()
			a := w.answer()
			if gaps := a.header.Values("Gpoll-Gap"); a.status != 204 || len(gaps) != 1 {
				t.Fatalf("%d with gaps %v, want 204 with one", a.status, gaps)
			}
			synctest.Wait()
			if n := s.Stats().Gaps["evicted"]; n != 1 {
				t.Errorf("%d gaps were counted", n)
			}
		})
	}
}

// shutBy shuts down the Broadcaster, or the http.Server in one of its two ways. It returns a channel that gets the
// result.
func shutBy(who string, b *server, hs *http.Server) <-chan error {
	down := map[string]func() error{
		"Broadcaster": func() error { return b.Shutdown(context.Background()) },
		"http.Server": func() error { return hs.Shutdown(context.Background()) },
	}[who]
	if down == nil {
		down = hs.Close
	}
	closed := make(chan error, 1)
	go func() { closed <- down() }() // ends with it
	return closed
}
