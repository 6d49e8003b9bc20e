package gpoll_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
)

// A diary notes what the callbacks of the clients hear.
type diary struct {
	mu    sync.Mutex
	lines []string
	came  chan struct{} // has a token when a line has come
}

func newDiary() *diary { return &diary{came: make(chan struct{}, 1)} }

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
	select {
	case d.came <- struct{}{}:
	default:
	}
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// await waits until the diary has just these lines.
func (d *diary) await(t testing.TB, want ...string) {
	t.Helper()
	late := time.After(patience)
	for !slices.Equal(d.read(), want) {
		select {
		case <-d.came:
		case <-late:
			t.Fatalf("the diary has %q, want %q", d.read(), want)
		}
	}
}

func (d *diary) keep(b *gpoll.Broadcaster) {
	b.OnConnect = func(c *gpoll.Client) error {
		d.note("connect")
		return nil
	}
	b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) { d.note("message %s", m.Data) }
	b.OnClose = func(_ *gpoll.Client, reason string) { d.note("close %s", reason) }
}

// An entry is how a client attaches. open returns when it is attached.
type entry struct {
	name string
	json bool
	open func(t *testing.T, s *server, id string) (leave func())
}

var entries = []entry{
	{"long-poll", false, pollsOnce("")},
	{"long-poll JSON", true, pollsOnce("json")},
	{"SSE", false, streams("")},
	{"SSE JSON", true, streams("json")},
	{"websocket", false, func(t *testing.T, s *server, id string) func() {
		c := s.socket(t, "/poll/ws"+query("client-id", id), "")
		frame(t, c)
		return func() { c.CloseNow() }
	}},
	{"gpoll.v1", true, func(t *testing.T, s *server, id string) func() {
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q}}`, id))
		frame(t, c)
		return func() { c.CloseNow() }
	}},
}

func pollsOnce(format string) func(*testing.T, *server, string) func() {
	return func(t *testing.T, s *server, id string) func() {
		ctx, cancel := context.WithCancel(t.Context())
		path := "/poll" + query("client-id", id)
		if format != "" {
			path += "&format=" + format
		}
		r := s.request(t, ctx, path)
		done := make(chan struct{})
		go func() { // ends with cancel, or with the answer
			defer close(done)
			_, _ = s.try(r)
		}()
		s.awaitAttachedOrDone(t, done)
		return func() {
			cancel()
			<-done
		}
	}
}

// awaitAttachedOrDone waits until a poll has come, or has its answer.
func (s *server) awaitAttachedOrDone(t testing.TB, done <-chan struct{}) {
	await(t, "a poll waits", func() bool {
		select {
		case <-done:
			return true
		default:
			return s.Stats().Attached["long-poll"] > 0
		}
	})
}

func streams(format string) func(*testing.T, *server, string) func() {
	return func(t *testing.T, s *server, id string) func() {
		path := "/poll/events" + query("client-id", id)
		if format != "" {
			path += "&format=" + format
		}
		e := s.events(t, path)
		e.next(t)
		return e.close
	}
}

// A session begins once and ends once, by whatever transports the client comes in between.
func TestSession(t *testing.T) {
	for _, first := range entries {
		for _, second := range entries {
			t.Run(first.name+", then "+second.name, func(t *testing.T) {
				d := newDiary()
				s := start(t, setup{broadcaster: d.keep})
				id, _ := s.register(t)
				if got := d.read(); len(got) != 0 {
					t.Errorf("after the registration: %q", got)
				}
				leave := first.open(t, s, id)
				d.await(t, "connect")
				leave()
				leave = second.open(t, s, id)
				if a := s.post(t, "/poll/commands", id, `{"send":{"data":"hi"}}`); a.status != http.StatusOK {
					t.Errorf("send: %d %s", a.status, a.body)
				}
				if a := s.post(t, "/poll/commands", id, `{"leave":true}`); a.status != http.StatusOK {
					t.Errorf("leave: %d %s", a.status, a.body)
				}
				d.await(t, "connect", "message hi", "close left")
				leave()
				if a := s.post(t, "/poll/commands", id, `{"send":{"data":"hi"}}`); a.status != http.StatusNotFound {
					t.Errorf("afterwards: %d %s", a.status, a.body)
				}
				d.await(t, "connect", "message hi", "close left")
			})
		}
	}
}

// A client that polls is connected from its first poll until it has been away for ClientTTL.
func TestSessionOfPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary()
		s := start(t, setup{memory: true, broadcaster: d.keep})
		id, at := s.register(t)
		for range 20 { // 25 s each
			a := s.get(t, "/poll"+query("client-id", id, "after", at))
			if at = a.position(); a.status != http.StatusNoContent {
				t.Fatalf("%d %s", a.status, a.body)
			}
			time.Sleep(30 * time.Second)
		}
		d.await(t, "connect")
		time.Sleep(31 * time.Second)
		d.await(t, "connect", "close expired")
		// Who never comes is never connected.
		s.register(t)
		time.Sleep(time.Minute)
		// A command connects too, and counts as a sign of life.
		id, _ = s.register(t)
		for range 10 {
			if a := s.post(t, "/poll/commands", id, `{"send":{"data":"x"}}`); a.status != http.StatusOK {
				t.Fatalf("%d %s", a.status, a.body)
			}
			time.Sleep(59 * time.Second)
		}
		time.Sleep(2 * time.Second)
		if got := d.read(); len(got) != 14 || got[2] != "connect" || got[13] != "close expired" {
			t.Errorf("%q", got)
		}
	})
}

// OnConnect's error refuses, with its reason; one that passes lets the client come back.
func TestConnectRefuses(t *testing.T) {
	for _, w := range entries {
		for _, command := range []bool{false, true} {
			t.Run(fmt.Sprint(w.name, ", command first ", command), func(t *testing.T) {
				var busy, asked atomic.Int32
				s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
					b.OnConnect = func(c *gpoll.Client) error {
						asked.Add(1)
						if busy.Load() != 0 {
							return fmt.Errorf("the list is locked: %w", gpoll.ErrTryLater)
						}
						return errors.New("not on the list")
					}
					b.OnMessage = func(*gpoll.Client, gpoll.Message) { t.Error("heard a client that was refused") }
					b.OnClose = func(*gpoll.Client, string) { t.Error("closed a client that was refused") }
				}})
				id, _ := s.register(t)
				busy.Store(1)
				if got := refusedBy(t, s, w, command, id); !strings.Contains(got, "unavailable") {
					t.Errorf("busy: %s", got)
				}
				busy.Store(0)
				got := refusedBy(t, s, w, command, id)
				if !strings.Contains(got, "refused") || !strings.Contains(got, "not on the list") {
					t.Errorf("refused: %s", got)
				}
				if a := s.get(t, "/poll"+query("client-id", id)); a.status != http.StatusNotFound {
					t.Errorf("afterwards: %d %s", a.status, a.body)
				}
				if n := asked.Load(); n != 2 {
					t.Errorf("asked %d times", n)
				}
			})
		}
	}
}

// refusedBy says how a client that comes is refused.
func refusedBy(t *testing.T, s *server, w entry, command bool, id string) string {
	t.Helper()
	switch {
	case command:
		a := s.post(t, "/poll/commands", id, `{"send":{"data":"hi"}}`)
		return fmt.Sprint(a.status, a.body)
	case w.name == "gpoll.v1":
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q}}`, id))
		code, reason := closing(t, c)
		return fmt.Sprint(code, reason)
	case w.name == "websocket":
		c, a, err := s.trySocket(t, "/poll/ws"+query("client-id", id), "")
		if err == nil { // so that a page hears of it
			code, reason := closing(t, c)
			return fmt.Sprint(code, reason)
		}
		return fmt.Sprint(a.status, a.body, err)
	case strings.HasPrefix(w.name, "SSE"):
		a := s.get(t, "/poll/events"+query("client-id", id), "Accept", "text/event-stream")
		return fmt.Sprint(a.status, a.body)
	}
	a := s.get(t, "/poll"+query("client-id", id))
	return fmt.Sprint(a.status, a.body)
}

// While OnConnect runs, nothing else of its client goes on, and everything of others does. Of many requests that come
// at once, one asks.
func TestConnectOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		var asked atomic.Int32
		d := newDiary()
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			d.keep(b)
			b.AttachTimeout = time.Hour
			b.OnConnect = func(c *gpoll.Client) error {
				if asked.Add(1) == 1 {
					<-goOn
				}
				d.note("connect")
				return nil
			}
		}})
		id, _ := s.register(t)
		poll := s.later(t, "/poll"+query("client-id", id))
		synctest.Wait()
		again := s.later(t, "/poll"+query("client-id", id))
		synctest.Wait()
		other, _ := s.register(t)
		if a := s.post(t, "/poll/commands", other, `{"send":{"data":"other"}}`); a.status != http.StatusOK {
			t.Errorf("%d %s", a.status, a.body)
		}
		time.Sleep(30 * time.Second)
		close(goOn)
		synctest.Wait()
		s.Send("hi")
		a, b := <-poll, <-again
		if a.status != http.StatusOK && b.status != http.StatusOK {
			t.Errorf("%d %s, %d %s", a.status, a.body, b.status, b.body)
		}
		if got := d.read(); !slices.Equal(got, []string{"connect", "message other", "connect"}) || asked.Load() != 2 {
			t.Errorf("%q", got)
		}
	})
}

// A client that is removed while OnConnect runs is connected, and then closed.
func TestCloseInsideConnect(t *testing.T) {
	for how, remove := range map[string]func(b *gpoll.Broadcaster, c *gpoll.Client){
		"Close":        func(_ *gpoll.Broadcaster, c *gpoll.Client) { c.Close("") },
		"RemoveClient": func(b *gpoll.Broadcaster, c *gpoll.Client) { b.RemoveClient(c.ID()) },
		"Reset":        func(b *gpoll.Broadcaster, _ *gpoll.Client) { b.Reset() },
	} {
		for _, w := range entries {
			t.Run(how+", "+w.name, func(t *testing.T) {
				d := newDiary()
				s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
					d.keep(b)
					b.OnConnect = func(c *gpoll.Client) error {
						remove(b, c)
						return nil
					}
				}})
				id, _ := s.register(t)
				if got := refusedBy(t, s, w, false, id); !strings.Contains(got, "unknown-client") &&
					!strings.HasPrefix(w.name, "SSE") {

					t.Errorf("%s", got)
				}
				d.await(t, "close removed")
			})
		}
	}
}

// What OnClose is told, for each way in which a client can end.
func TestCloseReasons(t *testing.T) {
	for name, tt := range map[string]struct {
		end    func(s *server, c *gpoll.Client)
		reason string
	}{
		"Close":        {func(_ *server, c *gpoll.Client) { c.Close("house rules") }, "house rules"},
		"Close, empty": {func(_ *server, c *gpoll.Client) { c.Close("") }, "removed"},
		"RemoveClient": {func(s *server, c *gpoll.Client) { s.RemoveClient(c.ID()) }, "removed"},
		"CleanUp":      {func(s *server, _ *gpoll.Client) { s.CleanUp([]int{0}) }, "removed"},
		"Reset":        {func(s *server, _ *gpoll.Client) { s.Reset() }, "removed"},
		"Revoke":       {func(s *server, _ *gpoll.Client) { s.Revoke("alice") }, "unauthorized"},
		"Shutdown":     {func(s *server, _ *gpoll.Client) { _ = s.Shutdown(context.Background()) }, "shutdown"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiary()
			s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
				d.keep(b)
				b.Authorize = func(*http.Request) (gpoll.Grant, error) { return gpoll.Grant{User: "alice"}, nil }
			}})
			c := s.socket(t, "/poll/ws", "")
			id := idOf(t, frame(t, c))
			client, _ := s.Client(id)
			tt.end(s, client)
			d.await(t, "connect", "close "+tt.reason)
			if name == "Close" {
				if code, reason := closing(t, c); code != 4004 || reason != "removed: house rules" {
					t.Errorf("the WebSocket: %d %q", code, reason)
				}
			}
			if client.Close("again") {
				t.Error("closed twice")
			}
		})
	}
}

// A reason that does not fit a close frame is cut between two characters.
func TestLongCloseReason(t *testing.T) {
	s := start(t, setup{})
	c := s.socket(t, "/poll/ws", "")
	client, _ := s.Client(idOf(t, frame(t, c)))
	client.Close(strings.Repeat("ä", 100))
	if code, reason := closing(t, c); code != 4004 || reason != "removed: "+strings.Repeat("ä", 57) {
		t.Errorf("%d %q", code, reason)
	}
}

// Callbacks that panic, or end their goroutine, hurt nobody else.
func TestSessionCallbacksFail(t *testing.T) {
	for how, fail := range map[string]func(){"panic": func() { panic("the application's") }, "Goexit": runtime.Goexit} {
		for _, w := range entries {
			t.Run(how+", "+w.name, func(t *testing.T) {
				closed := make(chan string, 1)
				var failing atomic.Bool
				failing.Store(true)
				s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
					b.Logger = slog.New(slog.DiscardHandler)
					b.OnConnect = func(*gpoll.Client) error {
						if failing.Load() {
							fail()
						}
						return nil
					}
					b.OnClose = func(_ *gpoll.Client, reason string) {
						closed <- reason
						fail()
					}
				}})
				id, _ := s.register(t)
				if how == "panic" || w.name == "gpoll.v1" {
					if got := refusedBy(t, s, w, false, id); !strings.Contains(got, "internal") &&
						!strings.Contains(got, "1011") && !strings.Contains(got, "InternalError") {

						t.Errorf("%s", got)
					}
				} else {
					r := s.request(t, t.Context(), "/poll"+query("client-id", id))
					_, _ = s.try(r) // net/http's goroutine has ended: the connection may be open or not
				}
				await(t, "the client is removed", func() bool { _, there := s.Client(id); return !there })
				failing.Store(false)
				id, _ = s.register(t)
				w.open(t, s, id)
				client, _ := s.Client(id)
				client.Close("bye")
				if got := <-closed; got != "bye" {
					t.Errorf("closed: %s", got)
				}
			})
		}
	}
}

// The functions may call everything from inside, also Shutdown.
func TestShutdownInsideHearing(t *testing.T) {
	for _, d := range doors {
		t.Run(d.name, func(t *testing.T) {
			notes := newDiary()
			var b *gpoll.Broadcaster
			s := start(t, setup{broadcaster: func(it *gpoll.Broadcaster) {
				notes.keep(it)
				b = it
				b.OnRequest = func(*gpoll.Client, gpoll.Message) ([]byte, error) {
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					notes.note("shutdown %v", b.Shutdown(ctx))
					return nil, nil
				}
			}})
			id, _ := s.register(t)
			if d.name == "gpoll.v1" {
				c := s.socket(t, "/poll/ws", "gpoll.v1")
				say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q}}`, id))
				frame(t, c)
				say(t, c, `{"request":{"data":"x"},"id":"1"}`)
				if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
					t.Error(err)
				}
			} else {
				s.post(t, "/poll/commands", id, `{"request":{"data":"x"},"id":"1"}`)
			}
			notes.await(t, "connect", "shutdown <nil>", "close shutdown")
		})
	}
}

// Many calls of which one in ten fails, with everything called from inside.
func TestManyCallbacks(t *testing.T) {
	const clients, each = 50, 200
	var calls, closed atomic.Int32
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.Logger = slog.New(slog.DiscardHandler)
		b.UpstreamRate = -1
		fails := func() {
			switch n := calls.Add(1); {
			case n%20 == 0:
				panic("one in ten")
			case n%20 == 10:
				runtime.Goexit()
			}
		}
		b.OnMessage = func(c *gpoll.Client, m gpoll.Message) {
			b.Send("from inside")
			if _, err := b.Publish(context.Background(), gpoll.Message{Topic: "t", Data: m.Data}); err != nil {
				t.Error(err)
			}
			_ = c.Subscribe("t")
			c.Values().Store("n", string(m.Data))
			if string(m.Data) == fmt.Sprint(each-1) {
				defer c.Close("done")
			}
			fails()
		}
		b.OnClose = func(c *gpoll.Client, _ string) {
			defer closed.Add(1)
			if b.RemoveClient(c.ID()) {
				t.Error("removed twice")
			}
			fails()
		}
	}})
	quiet := s.socket(t, "/poll/ws", "")
	frame(t, quiet)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			id, _ := s.register(t)
			for n := range each {
				r := s.request(t, t.Context(), "/poll/commands", "Content-Type", "application/json", "Gpoll-Client-Id", id)
				r.Method, r.Body = http.MethodPost, http.NoBody
				body := fmt.Sprintf(`{"send":{"data":"%d"}}`, n)
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
				_, _ = s.try(r) // one in twenty ends net/http's goroutine
			}
		})
	}
	s.awaitFinish(t, &all)
	await(t, "all are closed", func() bool { return closed.Load() == clients })
	for range clients * each { // nobody else was disturbed
		if got := frame(t, quiet); got != "from inside" {
			t.Fatal(got)
		}
	}
}

// What a Client tells and keeps.
func TestClientKeeps(t *testing.T) {
	var where atomic.Value
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.OnConnect = func(c *gpoll.Client) error {
			where.Store(c.RemoteAddr())
			c.Values().Store("name", "Ann")
			return nil
		}
		b.OnRequest = func(c *gpoll.Client, _ gpoll.Message) ([]byte, error) {
			name, _ := c.Values().Load("name")
			return []byte(name.(string)), nil
		}
	}})
	id, _ := s.register(t)
	a := s.post(t, "/poll/commands", id, `{"request":{"data":"who?"},"id":"1"}`)
	if a.body != `{"reply":{"id":"1","data":"Ann"}}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	if at, err := netip.ParseAddrPort(where.Load().(string)); err != nil || !at.Addr().IsLoopback() {
		t.Errorf("RemoteAddr %q: %v", where.Load(), err)
	}
}

// RemoteAddr is what ClientIP says, where it says anything.
func TestRemoteAddr(t *testing.T) {
	said := netip.MustParseAddr("203.0.113.9")
	for _, added := range []bool{false, true} {
		where := make(chan string, 1)
		s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
			b.ClientIP = func(*http.Request) netip.Addr { return said }
			b.OnConnect = func(c *gpoll.Client) error {
				where <- c.RemoteAddr()
				return nil
			}
		}})
		id, _ := "", ""
		if added {
			bare, routine := s.AddClient()
			id = fmt.Sprintf("%d$%s", routine, bare)
		} else {
			id, _ = s.register(t)
		}
		s.post(t, "/poll/commands", id, `{"leave":true}`)
		if got := <-where; got != said.String() {
			t.Errorf("added %v: %q", added, got)
		}
	}
}

// The application subscribes a client, by whatever transport it comes, and for good.
func TestClientSubscribe(t *testing.T) {
	for _, first := range entries {
		t.Run(first.name, func(t *testing.T) {
			s := start(t, setup{})
			id, at := s.register(t)
			client, _ := s.Client(id)
			leave := first.open(t, s, id)
			if err := client.Subscribe("a", "b"); err != nil {
				t.Fatal(err)
			}
			s.mustPublish(t, "a", "1")
			s.mustPublish(t, "c", "no")
			if err := client.Unsubscribe("b", "never"); err != nil {
				t.Fatal(err)
			}
			s.mustPublish(t, "b", "no")
			s.mustPublish(t, "a", "2")
			leave()
			got := s.get(t, "/poll"+query("client-id", id, "after", at, "format", "json")).batch(t).payloads(t)
			if !slices.Equal(got, []string{"1", "2"}) {
				t.Errorf("got %q", got)
			}
			if topics := client.Topics(); !slices.Equal(topics, []string{"a"}) {
				t.Errorf("topics %q", topics)
			}
		})
	}
}

// What an open attach gets of topics that the application subscribes.
func TestClientSubscribeWhileAttached(t *testing.T) {
	s := start(t, setup{})
	c := s.socket(t, "/poll/ws", "")
	client, _ := s.Client(idOf(t, frame(t, c)))
	if err := client.Subscribe("a"); err != nil {
		t.Fatal(err)
	}
	s.mustPublish(t, "a", "1")
	if got := frame(t, c); got != "1" {
		t.Error(got)
	}
	if err := client.Unsubscribe("a"); err != nil {
		t.Fatal(err)
	}
	s.mustPublish(t, "a", "no")
	s.Send("2")
	if got := frame(t, c); got != "2" {
		t.Error(got)
	}
	// A parked poll, and a channel.
	id, at := s.register(t)
	poll := s.later(t, "/poll"+query("client-id", id, "after", at))
	s.awaitAttached(t, "long-poll", 1)
	polling, _ := s.Client(id)
	bare, routine := s.AddClient()
	messages, err := s.GetChannel(bare, routine)
	if err != nil {
		t.Fatal(err)
	}
	in, _ := s.Client(bare)
	for _, c := range []*gpoll.Client{polling, in} {
		if err := c.Subscribe("a"); err != nil {
			t.Fatal(err)
		}
	}
	s.mustPublish(t, "a", "3")
	if got := <-poll; got.body != "3" {
		t.Errorf("the poll: %d %s", got.status, got.body)
	}
	if got := <-messages; got != "3" {
		t.Errorf("the channel: %s", got)
	}
	for _, bad := range [][]string{{""}, {"a b"}, slices.Repeat([]string{"x"}, 1)[:0], manyTopics(129)} {
		err := client.Subscribe(bad...)
		if len(bad) > 0 && !errors.Is(err, gpoll.ErrBadMessage) || len(bad) == 0 && err != nil {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
	client.Close("")
	if err := client.Subscribe("a"); !errors.Is(err, gpoll.ErrUnknownClient) {
		t.Error(err)
	}
}

func manyTopics(n int) (topics []string) {
	for i := range n {
		topics = append(topics, fmt.Sprint("topic", i))
	}
	return topics
}
