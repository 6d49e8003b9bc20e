package gpoll_test

import (
	"bufio"
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// panics counts the panics that b logs, each as an error with its stack.
func panics(b *gpoll.Broadcaster) *panicCounter {
	h := &panicCounter{}
	b.Logger = slog.New(h)
	return h
}

type panicCounter struct {
	atomic.Int64
	ofRoutines atomic.Int64
}

func (*panicCounter) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError
}
func (h *panicCounter) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *panicCounter) WithGroup(string) slog.Handler      { return h }

func (h *panicCounter) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "stack" && strings.Contains(a.Value.String(), ".go:") {
			h.Add(1)
			if strings.HasSuffix(r.Message, "a routine") {
				h.ofRoutines.Add(1)
			}
		}
		return true
	})
	return nil
}

// A panic in a round or a sweep is logged, ends the routine's attaches with "internal", and leaves no lock held.
// Their clients come back and miss nothing; the routine and its other clients go on.
func TestPanicOfARoutine(t *testing.T) {
	for _, where := range []string{"offer", "answer", "write", "socket", "sweep"} {
		t.Run(where, func(t *testing.T) {
			var logged *panicCounter
			s := start(t, setup{listener: true, broadcaster: func(b *gpoll.Broadcaster) { logged = panics(b) }})
			parkedID, _ := s.register(t)
			poll := "/poll" + query("client-id", parkedID)
			for s.Stats().Repeats == 0 { // the connection may remember a poll a moment after its answer has arrived
				s.Send("first")
				if a := s.get(t, poll); a.body != "first" {
					t.Fatalf("%d %q", a.status, a.body)
				}
			}
			s.awaitTransport(t, parkedID, "")
			repeats := s.Stats().Repeats
			polled := s.later(t, poll) // on the same connection: parked
			await(t, "a parked poll", func() bool { return s.Stats().Repeats > repeats })
			plain := s.socket(t, "/poll/ws", "")
			plainID := idOf(t, frame(t, plain))
			v1 := s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, v1, `{"hello":{}}`)
			frame(t, v1)
			stream := s.events(t, "/poll/events")
			streamID := idOf(t, stream.next(t).data)
			if where != "sweep" {
				s.BreakRound(where) // in the midst of the others
			}
			waitingID, _ := s.register(t)
			waiting := s.later(t, "/poll"+query("client-id", waitingID))
			s.awaitAttached(t, "long-poll", 2)
			id, routine := s.AddClient()
			pipe, err := s.GetChannel(id, routine)
			if err != nil {
				t.Fatal(err)
			}
			client, _ := s.Client(id)
			if where == "sweep" {
				s.BreakRound(where)
			} else {
				s.Send("boom")
			}

			// Who was written to before the panic has the message, too.
			var got [4]bool
			for i, c := range []*websocket.Conn{plain, v1} {
				for {
					_, data, err := c.Read(t.Context())
					if err == nil {
						if !strings.Contains(string(data), "boom") {
							t.Fatalf("WebSocket %d: %s", i, data)
						}
						got[i] = true
						continue
					}
					told := strings.Contains(err.Error(), `"internal"`)
					if code := websocket.CloseStatus(err); code != websocket.StatusInternalError || !told {
						t.Errorf("WebSocket %d: %v, want 1011 internal", i, err)
					}
					break
				}
			}
			ev := stream.next(t)
			if got[2] = ev.data == "boom"; got[2] {
				ev = stream.next(t)
			}
			if ev.name != "end" || !strings.Contains(ev.data, `"internal"`) {
				t.Errorf("SSE: %+v", ev)
			}
			if a := <-polled; a.status != http.StatusInternalServerError || a.code(t) != "internal" {
				t.Errorf("parked poll: %d %s", a.status, a.body)
			}
			a := <-waiting
			if got[3] = a.body == "boom"; !got[3] && (a.status != http.StatusInternalServerError || a.code(t) != "internal") {
				t.Errorf("waiting poll: %d %s", a.status, a.body)
			}
			for m := range pipe {
				if m != "boom" {
					t.Errorf("channel: %q", m)
				}
			}
			if end, ok := client.Err().(*gpoll.EndError); !ok || end.Code != "internal" {
				t.Errorf("Err is %v", client.Err())
			}
			await(t, "the panic is logged", func() bool { return logged.Load() > 0 })
			await(t, "every lock free", func() bool { return len(s.LocksHeld()) == 0 })
			if n := s.Stats().Dropped["internal"]; n < 5 {
				t.Errorf("Dropped[internal] is %d, want at least 5", n)
			}

			// They come back, and nothing is missing.
			n := logged.ofRoutines.Load()
			s.Send("after")
			want := []string{"boom", "after"}
			if where == "sweep" {
				want = want[1:]
			}
			read := func(who string, had bool, next func() string) {
				t.Helper()
				missing := slices.Clone(want)
				for len(missing) > 0 {
					m := next()
					if m == "boom" && had {
						continue // again: no cursor said that it arrived
					}
					if had = false; missing[0] == "boom" && m == "after" && got[3] {
						missing = missing[1:]
					}
					if m != missing[0] {
						t.Errorf("%s: %q, want %q", who, m, missing[0])
						return
					}
					missing = missing[1:]
				}
			}
			c := s.socket(t, "/poll/ws"+query("client-id", plainID), "")
			frame(t, c)
			read("plain WebSocket", false, func() string { return frame(t, c) })
			e := s.events(t, "/poll/events"+query("client-id", streamID))
			e.next(t)
			read("SSE", false, func() string { return e.next(t).data })
			read("parked poll", false, func() string { return s.get(t, poll).body })
			read("waiting poll", got[3], func() string { return s.get(t, "/poll"+query("client-id", waitingID)).body })
			if logged.ofRoutines.Load() != n {
				t.Errorf("the routine panics again")
			}
		})
	}
}

// A trap is a connection in memory that panics on the server's side when it is armed.
type trap struct {
	*gpolltest.Conn
	read, write, full atomic.Bool
}

func (c *trap) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.read.Load() {
		panic("in Read")
	}
	return n, err
}

func (c *trap) Write(p []byte) (int, error) {
	if c.write.Load() {
		panic("in Write")
	}
	return c.Conn.Write(p)
}

func (c *trap) TryWrite(p []byte) (int, error) {
	switch {
	case c.full.Load():
		return 0, nil
	case c.write.Load():
		panic("in TryWrite")
	}
	return c.Conn.TryWrite(p)
}

type trapListener struct {
	net.Listener
	mu    sync.Mutex
	traps []*trap
}

func (l *trapListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &trap{Conn: conn.(*gpolltest.Conn)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.traps = append(l.traps, c)
	return c, nil
}

// newest returns the connection that was accepted last.
func (l *trapListener) newest() *trap {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.traps[len(l.traps)-1]
}

// trapped starts a server in memory whose connections may panic.
func trapped(t *testing.T, listener bool) (s *server, ln *trapListener, logged *panicCounter) {
	b := gpoll.NewBroadcaster()
	logged = panics(b)
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	inner := gpolltest.NewListener()
	ln = &trapListener{Listener: inner}
	hs := &http.Server{Handler: mux, ErrorLog: log.New(discard{}, "", 0)}
	var accepts net.Listener = ln
	if listener {
		accepts = b.Listener(ln)
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(accepts) }() // ends with hs.Close
	s = &server{Broadcaster: b, url: "http://gpoll.test", settle: synctest.Wait}
	s.dial = func(ctx context.Context) (net.Conn, error) { return inner.DialContext(ctx, "tcp", "gpoll.test:80") }
	s.client = s.clientOnDial()
	t.Cleanup(func() {
		shutdown(t, b)
		s.client.CloseIdleConnections()
		hs.Close()
		<-served
	})
	return s, ln, logged
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// A panic on a goroutine of one client ends that client's attach with "internal", where it can be told, and no other.
func TestPanicOfAGoroutine(t *testing.T) {
	// after checks that one panic was noticed, and that a witness and everything else goes on.
	after := func(t *testing.T, s *server, logged *panicCounter, witness *eventStream) {
		t.Helper()
		synctest.Wait()
		if logged.Load() == 0 {
			t.Error("the panic was not logged")
		}
		if st := s.Stats(); st.Dropped["internal"] != 1 {
			t.Errorf("Dropped %v, want one internal", st.Dropped)
		}
		if held := s.LocksHeld(); len(held) > 0 {
			t.Errorf("held: %v", held)
		}
		s.Send("after")
		for {
			ev := witness.next(t)
			if ev.name != "message" {
				t.Errorf("the witness got %+v", ev)
			}
			if ev.data == "after" {
				return
			}
		}
	}
	begin := func(t *testing.T, listener bool) (*server, *trapListener, *panicCounter, *eventStream) {
		s, ln, logged := trapped(t, listener)
		witness := s.events(t, "/poll/events")
		witness.next(t)
		return s, ln, logged, witness
	}
	inBubble(t, "the reader of a WebSocket", func(t *testing.T) {
		s, ln, logged, witness := begin(t, false)
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{}}`)
		frame(t, c)
		ln.newest().read.Store(true)
		say(t, c, `{"subscribe":["a"]}`)
		if code, reason := closing(t, c); code != websocket.StatusInternalError || reason != "internal" {
			t.Errorf("close %d %q", code, reason)
		}
		after(t, s, logged, witness)
	})
	inBubble(t, "the writer of a WebSocket", func(t *testing.T) {
		s, ln, logged, witness := begin(t, false)
		c := s.socket(t, "/poll/ws", "")
		frame(t, c)
		ln.newest().write.Store(true)
		s.Send("m")
		if _, _, err := c.Read(t.Context()); err == nil {
			t.Error("the message came")
		}
		after(t, s, logged, witness)
	})
	inBubble(t, "the writer of SSE", func(t *testing.T) {
		s, ln, logged, witness := begin(t, false)
		e := s.events(t, "/poll/events")
		e.next(t)
		ln.newest().write.Store(true)
		s.Send("m")
		if ev, err := e.read(); err == nil {
			t.Errorf("%+v", ev)
		}
		after(t, s, logged, witness)
	})
}

// parkedOn parks a poll on a connection of its own, and returns that connection's two ends.
func parkedOn(t *testing.T, s *server, ln *trapListener, id string) (near net.Conn, far *trap) {
	near = s.raw(t)
	answers := bufio.NewReader(near)
	text := "GET /poll" + query("client-id", id) + " HTTP/1.1\r\nHost: gpoll.test\r\n\r\n"
	s.Send("first")
	for i := range 2 {
		if _, err := near.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if i == 1 {
			break
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != "first" || err != nil {
			t.Fatalf("%q %v", body, err)
		}
	}
	if n := s.Stats().Repeats; n != 1 {
		t.Fatalf("%d repeats: the poll is not parked", n)
	}
	return near, ln.newest()
}

// A panic while an answer is written to a connection of Listener cuts that connection, and the next poll has the
// message.
func TestPanicOfAnAnswer(t *testing.T) {
	for _, where := range []string{"by the routine", "by the goroutine of the rest"} {
		inBubble(t, where, func(t *testing.T) {
			s, ln, logged := trapped(t, true)
			id, _ := s.register(t)
			near, far := parkedOn(t, s, ln, id)
			far.full.Store(where != "by the routine")
			far.write.Store(true)
			s.Send("m")
			if p, err := io.ReadAll(near); len(p) > 0 {
				t.Errorf("%q %v", p, err)
			}
			synctest.Wait()
			if logged.Load() == 0 {
				t.Error("the panic was not logged")
			}
			if held := s.LocksHeld(); len(held) > 0 {
				t.Errorf("held: %v", held)
			}
			if a := s.get(t, "/poll"+query("client-id", id)); a.body != "m" {
				t.Errorf("the next poll: %d %q", a.status, a.body)
			}
			s.Send("after")
			if a := s.get(t, "/poll"+query("client-id", id)); a.body != "after" {
				t.Errorf("the poll after that: %d %q", a.status, a.body)
			}
		})
	}
}

// A panic in what is around the handler is net/http's. The client is free for the next request, which gets what this
// one did not.
func TestPanicAroundTheHandler(t *testing.T) {
	for _, by := range gets[1:3] {
		inBubble(t, by.name, func(t *testing.T) {
			var armed atomic.Bool
			s := start(t, setup{
				memory: true,
				server: func(hs *http.Server) { hs.ErrorLog = log.New(discard{}, "", 0) },
				wrap: func(h http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						h.ServeHTTP(panicWriter{w, &armed}, r)
					})
				},
			})
			id, _ := s.register(t)
			path := by.path + query("client-id", id)
			done := make(chan struct{})
			go func() { // ends with the connection
				defer close(done)
				s.try(s.request(t, t.Context(), path, by.header...))
			}()
			synctest.Wait()
			if n := len(attachedNow(s)); n != 1 {
				t.Fatalf("%d attached", n)
			}
			armed.Store(true)
			s.Send("m")
			<-done
			armed.Store(false)
			synctest.Wait()
			if now := attachedNow(s); len(now) != 0 {
				t.Fatalf("still attached: %v", now)
			}
			if a := s.get(t, "/poll"+query("client-id", id)); a.body != "m" {
				t.Errorf("the next poll: %d %q", a.status, a.body)
			}
			advance(2 * time.Minute)
			if n := s.Stats().Clients; n != 0 {
				t.Errorf("%d clients did not expire", n)
			}
		})
	}
}

func attachedNow(s *server) (by []string) {
	for transport, n := range s.Stats().Attached {
		for range n {
			by = append(by, transport)
		}
	}
	return by
}

// A panicWriter panics in Write when it is armed. Its connection cannot be taken over.
type panicWriter struct {
	http.ResponseWriter
	armed *atomic.Bool
}

func (w panicWriter) Write(p []byte) (int, error) {
	if w.armed.Load() {
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(p)
}

func (w panicWriter) FlushError() error {
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w panicWriter) SetReadDeadline(t time.Time) error {
	return http.NewResponseController(w.ResponseWriter).SetReadDeadline(t)
}

func (w panicWriter) SetWriteDeadline(t time.Time) error {
	return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(t)
}
