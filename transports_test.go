package gpoll_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
)

// A wrapper is middleware's ResponseWriter that hides everything but Unwrap.
type wrapper struct{ w http.ResponseWriter }

func (w wrapper) Header() http.Header         { return w.w.Header() }
func (w wrapper) Write(p []byte) (int, error) { return w.w.Write(p) }
func (w wrapper) WriteHeader(status int)      { w.w.WriteHeader(status) }
func (w wrapper) Unwrap() http.ResponseWriter { return w.w }

func wrapped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(wrapper{wrapper{w}}, r) })
}

// Every transport works on every kind of server, even if it waits for longer than the server's ReadTimeout and
// WriteTimeout.
func TestServers(t *testing.T) {
	const timeout = 2 * time.Second // a busy machine needs some of it for the handshakes
	short := func(hs *http.Server) { hs.ReadTimeout, hs.WriteTimeout, hs.IdleTimeout = timeout, timeout, time.Minute }
	for _, c := range []struct {
		name  string
		how   setup
		proto int
	}{
		{"HTTP/1.1", setup{}, 1},
		{"HTTP/1.1 over TLS", setup{tls: true, http1: true}, 1},
		{"HTTP/2", setup{tls: true}, 2},
		{"behind middleware", setup{wrap: wrapped}, 1},
		{"on connections of one's own", setup{coded: true}, 1},
		{"HTTP/2 behind middleware", setup{tls: true, wrap: wrapped}, 2},
		{"short time-outs", setup{server: short}, 1},
		{"short time-outs over TLS", setup{server: short, tls: true, http1: true}, 1},
		{"short time-outs, HTTP/2", setup{server: short, tls: true}, 2},
		{"short time-outs behind middleware", setup{server: short, wrap: wrapped}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, c.how)
			const each = 3
			var receiving sync.WaitGroup
			id, after := s.register(t)
			plainID, _ := s.register(t)
			receiving.Go(func() {
				for i := range each {
					a := s.get(t, "/poll"+query("client-id", id, "after", after))
					if a.body != fmt.Sprint(i) {
						t.Errorf("poll: %d %q, want %d", a.status, a.body, i)
						return
					}
					after = a.position()
				}
			})
			receiving.Go(func() {
				for i := range each {
					if a := s.get(t, "/poll"+query("client-id", plainID)); a.body != fmt.Sprint(i) {
						t.Errorf("plain poll: %d %q, want %d", a.status, a.body, i)
						return
					}
				}
			})
			stream := s.events(t, "/poll/events")
			if got := stream.resp.ProtoMajor; got != c.proto {
				t.Errorf("HTTP/%d, want HTTP/%d", got, c.proto)
			}
			stream.next(t)
			receiving.Go(func() {
				for i := range each {
					if ev, err := stream.read(); err != nil || ev.data != fmt.Sprint(i) {
						t.Errorf("SSE: %+v %v, want %d", ev, err, i)
						return
					}
				}
			})
			sockets := 0
			for _, protocol := range []string{"", "gpoll.v1"} {
				ws := s.socketHTTP1(t, protocol)
				sockets++
				receiving.Go(func() {
					for i := range each {
						_, data, err := ws.Read(t.Context())
						if err != nil || string(data) != fmt.Sprint(i) && elementOf(t, string(data)).Data != fmt.Sprint(i) {
							t.Errorf("WebSocket %q: %s %v, want %d", protocol, data, err, i)
							return
						}
					}
				})
			}
			s.awaitAttached(t, "long-poll", 2)
			for i := range each {
				if i == 1 && c.how.server != nil {
					<-time.After(timeout * 5 / 4)
				}
				s.Send(fmt.Sprint(i))
			}
			receiving.Wait()
			stream.close()
		})
	}
}

// socketHTTP1 opens a WebSocket, which needs HTTP/1.1, and takes the registration.
func (s *server) socketHTTP1(t testing.TB, protocol string) *websocket.Conn {
	t.Helper()
	client := s.client
	if tr, ok := client.Transport.(*http.Transport); ok && tr.TLSClientConfig != nil {
		tr = &http.Transport{TLSClientConfig: tr.TLSClientConfig.Clone(),
			TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
		tr.TLSClientConfig.NextProtos = nil
		client = &http.Client{Transport: tr}
	}
	opts := dialOptions(client, nil, "")
	if protocol != "" {
		opts.Subprotocols = []string{protocol}
	}
	c, _, err := websocket.Dial(t.Context(), s.url+"/poll/ws", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	if protocol != "" {
		say(t, c, `{"hello":{}}`)
	}
	frame(t, c)
	return c
}

// The request context does not tell of a client that has gone if another request is pipelined behind the poll
// (golang/go#23262) or the request's body is unread (golang/go#20617). Such a poll ends with its time.
func TestHiddenDisconnect(t *testing.T) {
	const longest = 25*time.Second*11/10 + time.Second
	for name, c := range map[string]struct {
		request func(id string) string
		status  string // of the answer that comes at once, if one must
	}{
		"pipelined request": {
			request: func(id string) string {
				poll := "GET /poll" + query("client-id", id) + " HTTP/1.1\r\nHost: gpoll.test\r\n\r\n"
				return poll + poll + poll
			},
		},
		"unread body of a GET": {
			request: func(id string) string {
				return "GET /poll" + query("client-id", id) + " HTTP/1.1\r\nHost: gpoll.test\r\nContent-Length: 100000\r\n\r\nx"
			},
			status: "400",
		},
		"body of a POST that never comes": {
			request: func(id string) string {
				return "POST /poll HTTP/1.1\r\nHost: gpoll.test\r\nContent-Type: application/json\r\n" +
					"Gpoll-Client-Id: " + id + "\r\nContent-Length: 100\r\n\r\n{"
			},
		},
		"POST with a pipelined request": {
			request: func(id string) string {
				poll := "POST /poll HTTP/1.1\r\nHost: gpoll.test\r\nContent-Type: application/json\r\n" +
					"Gpoll-Client-Id: " + id + "\r\nContent-Length: 2\r\n\r\n{}"
				return poll + poll
			},
		},
		"pipelined behind SSE": {
			request: func(id string) string {
				return "GET /poll/events" + query("client-id", id) +
					" HTTP/1.1\r\nHost: gpoll.test\r\n\r\nGET /poll HTTP/1.1\r\nHost: gpoll.test\r\n\r\n"
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, setup{memory: true})
				id, _ := s.register(t)
				conn := s.raw(t)
				if _, err := io.WriteString(conn, c.request(id)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if c.status != "" {
					if got := readWaiting(t, conn); !strings.HasPrefix(got, "HTTP/1.1 "+c.status) {
						t.Errorf("%s", got)
					}
				}
				conn.Close()
				begun := time.Now()
				// Not a wait for order: how long it takes until nobody waits is what is measured, on the bubble's clock.
				for attached := true; attached; advance(100 * time.Millisecond) {
					st := s.Stats()
					attached = st.Attached["long-poll"]+st.Attached["sse"] > 0
					if waited := time.Since(begun); waited > longest {
						t.Fatalf("still attached %v after the client left: %v", waited, st.Attached)
					}
				}
			})
		})
	}
}

// One client goes from transport to transport, in every order and in both forms, while messages are published all the
// time. It sees each message once and in order.
func TestCursorAcrossTransports(t *testing.T) {
	// A hop takes at least n messages after a position over one attach and returns the position it got to.
	type hop func(t *testing.T, s *server, id, after string, n int) (got []string, position string)
	hops := map[string]hop{
		"poll": func(t *testing.T, s *server, id, after string, n int) (got []string, position string) {
			for len(got) < n {
				a := s.get(t, "/poll"+query("client-id", id, "after", after, "topic", "a"))
				if a.status != http.StatusOK || a.header.Get("Gpoll-Gap") != "" {
					t.Fatalf("poll: %d %q, gap %q", a.status, a.body, a.header.Get("Gpoll-Gap"))
				}
				got, after = append(got, a.body), a.position()
			}
			return got, after
		},
		"json poll": func(t *testing.T, s *server, id, after string, n int) (got []string, position string) {
			for len(got) < n {
				v := s.get(t, "/poll"+query("client-id", id, "after", after, "topic", "a", "format", "json")).batch(t)
				if len(v.payloads(t)) != len(v.Messages) {
					t.Fatalf("JSON poll: a gap in %+v", v)
				}
				got, after = append(got, v.payloads(t)...), v.Position
			}
			return got, after
		},
		"post poll": func(t *testing.T, s *server, id, after string, n int) (got []string, position string) {
			for len(got) < n {
				v := s.post(t, "/poll", id, fmt.Sprintf(`{"after":%q,"topics":["a"],"format":"json"}`, after)).batch(t)
				got, after = append(got, v.payloads(t)...), v.Position
			}
			return got, after
		},
		"sse": func(t *testing.T, s *server, id, after string, n int) (got []string, position string) {
			e := s.events(t, "/poll/events"+query("client-id", id, "after", "0000000000000000-7", "topic", "a"),
				"Last-Event-ID", after)
			defer e.close()
			e.next(t)
			for len(got) < n {
				ev := e.next(t)
				if ev.name != "message" {
					t.Fatalf("SSE: %+v", ev)
				}
				got, after = append(got, ev.data), ev.id
			}
			return got, after
		},
		"json sse": func(t *testing.T, s *server, id, after string, n int) (got []string, position string) {
			e := s.events(t, "/poll/events"+query("client-id", id, "after", after, "topic", "a", "format", "json"))
			defer e.close()
			e.next(t)
			for len(got) < n {
				ev := e.next(t)
				el := elementOf(t, ev.data)
				if ev.name != "message" || el.Gap != nil || el.ID != ev.id {
					t.Fatalf("JSON SSE: %+v", ev)
				}
				got, after = append(got, el.Data), ev.id
			}
			return got, after
		},
		"gpoll.v1": func(t *testing.T, s *server, id, after string, n int) (got []string, position string) {
			c := s.socket(t, "/poll/ws", "gpoll.v1")
			defer c.CloseNow()
			say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q,"after":%q,"topics":["a"]}}`, id, after))
			if w := frame(t, c); !strings.HasPrefix(w, `{"welcome":`) {
				t.Fatalf("gpoll.v1: %s", w)
			}
			for len(got) < n {
				el := elementOf(t, frame(t, c))
				if el.Gap != nil || el.ID == "" {
					t.Fatalf("gpoll.v1: %+v", el)
				}
				got, after = append(got, el.Data), el.ID
			}
			return got, after
		},
	}
	// A plain WebSocket brings a cursor but tells none. The test counts the messages on it, and takes the place from
	// the text of the last one.
	plainSocket := func(t *testing.T, s *server, id, after string, n int) (got []string) {
		c := s.socket(t, "/poll/ws"+query("client-id", id, "after", after, "topic", "a"), "")
		defer c.CloseNow()
		idOf(t, frame(t, c))
		for len(got) < n {
			got = append(got, frame(t, c))
		}
		return got
	}

	var orders [][]string
	names := []string{"poll", "sse", "gpoll.v1"}
	for _, x := range names {
		for _, y := range names {
			for _, z := range names {
				if x != y && y != z && x != z {
					orders = append(orders, []string{x, y, z, x, z, y})
				}
			}
		}
	}
	orders = append(orders, []string{"json poll", "json sse", "gpoll.v1", "post poll", "json sse", "json poll",
		"gpoll.v1", "sse", "post poll"})

	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.History = gpoll.Limits{Count: 1 << 20, Bytes: 64 << 20}
	}})
	for _, order := range orders {
		t.Run(strings.Join(order, ", "), func(t *testing.T) {
			id, after := s.register(t)
			stop, published := make(chan struct{}), make(chan struct{})
			go func() { // ends when stop is closed
				defer close(published)
				ticker := time.NewTicker(200 * time.Microsecond)
				defer ticker.Stop()
				for i := 0; ; i++ {
					topic := ""
					if i%3 == 0 {
						topic = "a"
					}
					s.Publish(t.Context(), gpoll.Message{Topic: topic, Data: fmt.Append(nil, i)})
					s.Publish(t.Context(), gpoll.Message{Topic: "b", Data: []byte("of no interest")})
					select {
					case <-ticker.C:
					case <-stop:
						return
					}
				}
			}()
			defer func() { close(stop); <-published }()
			next := 0
			for _, name := range order {
				before := after
				var got []string
				got, after = hops[name](t, s, id, after, 20)
				for _, m := range got {
					if m != fmt.Sprint(next) {
						t.Fatalf("%s: got %s, want %d", name, m, next)
					}
					next++
				}
				for i, m := range plainSocket(t, s, id, before, 20) {
					if m != got[0] && i == 0 || i < len(got) && m != got[i] {
						t.Fatalf("plain WebSocket after the cursor that %s had: message %d is %s, want %s", name, i, m, got[i])
					}
				}
			}
		})
	}
}

// A client whose id has expired registers with its cursor, on any transport, and misses nothing.
func TestRegisterWithCursor(t *testing.T) {
	s := start(t, setup{})
	_, after := s.register(t)
	s.mustPublish(t, "a", "1")
	s.mustPublish(t, "b", "of no interest")
	s.Send("2")
	want := []string{"1", "2"}

	a := s.get(t, "/poll"+query("client-id", "0", "after", after, "topic", "a"))
	if a.position() != after {
		t.Errorf("plain: begins at %s, want %s", a.position(), after)
	}
	id := idOf(t, a.body)
	for _, w := range want {
		if a := s.get(t, "/poll"+query("client-id", id)); a.body != w {
			t.Errorf("plain: %d %q, want %q", a.status, a.body, w)
		}
	}

	v := s.get(t, "/poll"+query("client-id", "0", "after", after, "topic", "a", "format", "json")).batch(t)
	got := v.payloads(t)
	if len(got) < len(want) {
		v = s.get(t, "/poll"+query("client-id", v.ClientID, "after", v.Position, "topic", "a", "format", "json")).batch(t)
		got = append(got, v.payloads(t)...)
	}
	if strings.Join(got, ",") != "1,2" {
		t.Errorf("JSON: %v", got)
	}

	e := s.events(t, "/poll/events?topic=a", "Last-Event-ID", after)
	if ev := e.next(t); ev.id != after {
		t.Errorf("SSE: begins at %s, want %s", ev.id, after)
	}
	for _, w := range want {
		if ev := e.next(t); ev.data != w {
			t.Errorf("SSE: %+v, want %q", ev, w)
		}
	}
	e.close()

	c := s.socket(t, "/poll/ws"+query("after", after, "topic", "a"), "")
	idOf(t, frame(t, c))
	for _, w := range want {
		if f := frame(t, c); f != w {
			t.Errorf("WebSocket: %q, want %q", f, w)
		}
	}
	c.CloseNow()

	c = s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, fmt.Sprintf(`{"hello":{"after":%q,"topics":["a"]}}`, after))
	if f := frame(t, c); !strings.Contains(f, `"position":"`+after+`"`) {
		t.Errorf("gpoll.v1: %s", f)
	}
	for _, w := range want {
		if el := elementOf(t, frame(t, c)); el.Data != w {
			t.Errorf("gpoll.v1: %+v, want %q", el, w)
		}
	}
	c.CloseNow()
}

// Three pollers race on each client id, with one shared cursor. In the end they have seen every message of the client,
// in order.
func TestRacingPolls(t *testing.T) {
	const sessions, pollers, messages = 30, 3, 40
	s := start(t, setup{})
	s.client.Transport.(*http.Transport).MaxIdleConnsPerHost = sessions * pollers
	var all sync.WaitGroup
	for range sessions {
		id, after := s.register(t)
		var mu sync.Mutex // guards next and after
		next := 0
		for range pollers {
			all.Go(func() {
				for {
					mu.Lock()
					cursor, done := after, next == messages
					mu.Unlock()
					if done {
						return
					}
					a, err := s.try(s.request(t, t.Context(), "/poll"+query("client-id", id, "after", cursor, "format", "json")))
					if err != nil {
						t.Error(err)
						return
					}
					if a.status == http.StatusConflict {
						continue // a newer one took over; here it tries again
					}
					if a.status != http.StatusOK {
						t.Errorf("%d %s", a.status, a.body)
						return
					}
					v := a.batch(t)
					mu.Lock()
					if cursor == after { // else another poller was first with the same answer
						for _, m := range v.payloads(t) {
							if m != fmt.Sprint(next) {
								t.Errorf("got %s, want %d", m, next)
							}
							next++
						}
						after = v.Position
					}
					mu.Unlock()
				}
			})
		}
	}
	for i := range messages {
		s.Send(fmt.Sprint(i))
		<-time.After(time.Millisecond)
	}
	s.awaitFinish(t, &all)
	if n := s.Stats().Attached["long-poll"]; n > sessions {
		t.Errorf("%d waiters for %d clients", n, sessions)
	}
}

// awaitFinish waits for the goroutines of a test.
func (s *server) awaitFinish(t testing.TB, all *sync.WaitGroup) {
	t.Helper()
	finished := make(chan struct{})
	go func() { // ends with them
		all.Wait()
		close(finished)
	}()
	select {
	case <-finished:
	case <-time.After(patience):
		s.Reset() // ends their polls
		t.Fatal("the pollers are not done")
	}
}
