package gpoll_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// Every function of the application may call every method. None waits for itself: in a bubble that would be a deadlock.

// methods are the exported methods that wait, take locks or call the application again.
var methods = map[string]func(b *gpoll.Broadcaster, topic string){
	"Send":               func(b *gpoll.Broadcaster, _ string) { b.Send("inner") },
	"Publish":            func(b *gpoll.Broadcaster, topic string) { publishOnce(b, topic) },
	"Publish to another": func(b *gpoll.Broadcaster, topic string) { publishOnce(b, topic+"x") },
	"AddClient":          func(b *gpoll.Broadcaster, _ string) { b.AddClient() },
	"GetChannel":         func(b *gpoll.Broadcaster, _ string) { b.GetChannel(b.AddClient()) },
	"Client": func(b *gpoll.Broadcaster, _ string) {
		id, _ := b.AddClient()
		if c, ok := b.Client(id); ok {
			c.Topics()
			c.Transport()
			c.Err()
		}
	},
	"RemoveClient": func(b *gpoll.Broadcaster, _ string) {
		id, _ := b.AddClient()
		b.RemoveClient(id)
	},
	"CleanUp":  func(b *gpoll.Broadcaster, _ string) { b.CleanUp([]int{0, 1}) },
	"Reset":    func(b *gpoll.Broadcaster, _ string) { b.Reset() },
	"Revoke":   func(b *gpoll.Broadcaster, _ string) { b.Revoke("ann") },
	"Stats":    func(b *gpoll.Broadcaster, _ string) { b.Stats() },
	"Shutdown": func(b *gpoll.Broadcaster, _ string) { b.Shutdown(context.Background()) },
	"mount": func(b *gpoll.Broadcaster, _ string) {
		defer func() { _ = recover() }()
		b.ListenAndBroadcast("/again", http.NewServeMux())
	},
	"Listener": func(b *gpoll.Broadcaster, _ string) {
		defer func() { _ = recover() }()
		b.Listener(gpolltest.NewListener()).Close()
	},
	"a request": func(b *gpoll.Broadcaster, _ string) {
		r, _ := http.NewRequest(http.MethodGet, "/poll?client-id=0", nil)
		b.ServeHTTP(discardResponse{}, r)
	},
}

type discardResponse struct{}

func (discardResponse) Header() http.Header         { return http.Header{} }
func (discardResponse) Write(p []byte) (int, error) { return len(p), nil }
func (discardResponse) WriteHeader(int)             {}

func publishOnce(b *gpoll.Broadcaster, topic string) {
	b.Publish(context.Background(), gpoll.Message{Topic: topic, Data: []byte("inner")})
}

// A callingBroker calls the application's function in one of its methods.
type callingBroker struct {
	*gpoll.MemoryBroker
	in   string
	call func()
}

func (c *callingBroker) Window(ctx context.Context) (before, newest gpoll.Position, err error) {
	c.calls("Window")
	return c.MemoryBroker.Window(ctx)
}

func (c *callingBroker) Subscribe(ctx context.Context, after gpoll.Position, to gpoll.Subscriber) (func(), error) {
	c.calls("Subscribe")
	stop, err := c.MemoryBroker.Subscribe(ctx, after, to)
	return func() { stop(); c.calls("stop") }, err
}

func (c *callingBroker) Publish(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
	c.calls("Publish")
	return c.MemoryBroker.Publish(ctx, r)
}

func (c *callingBroker) calls(in string) {
	if c.in == in {
		c.call()
	}
}

// A callingLogger calls the application's function for each record.
type callingLogger struct{ call func() }

func (callingLogger) Enabled(context.Context, slog.Level) bool    { return true }
func (l callingLogger) Handle(context.Context, slog.Record) error { l.call(); return nil }
func (l callingLogger) WithAttrs([]slog.Attr) slog.Handler        { return l }
func (l callingLogger) WithGroup(string) slog.Handler             { return l }

// Every callback calls every method, once for each way in which gpoll calls it.
func TestCallbacksMayCallEverything(t *testing.T) {
	places := map[string]func(b *gpoll.Broadcaster, call func(topic string)){
		"TopicLimits": func(b *gpoll.Broadcaster, call func(string)) {
			b.TopicLimits = func(topic string) gpoll.Limits { call(topic); return gpoll.Limits{Count: 1} }
		},
		"Authorize": func(b *gpoll.Broadcaster, call func(string)) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) {
				call("t")
				return gpoll.Grant{User: "ann", Expires: time.Now().Add(time.Second)}, nil
			}
		},
		"Authorize, that panics": func(b *gpoll.Broadcaster, call func(string)) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) { call("t"); panic("on purpose") }
		},
		"Grant.Subscribe": func(b *gpoll.Broadcaster, call func(string)) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) {
				return gpoll.Grant{User: "ann", Expires: time.Now().Add(time.Second),
					Subscribe: func(topic string) bool { call(topic); return true }}, nil
			}
		},
		"ClientIP": func(b *gpoll.Broadcaster, call func(string)) {
			b.ClientIP = func(*http.Request) netip.Addr { call("t"); return netip.Addr{} }
		},
		"Logger": func(b *gpoll.Broadcaster, call func(string)) {
			b.Logger = slog.New(callingLogger{func() { call("t") }})
		},
	}
	for _, in := range []string{"Window", "Subscribe", "stop", "Publish"} {
		places["Broker."+in] = func(b *gpoll.Broadcaster, call func(string)) {
			b.Broker = &callingBroker{MemoryBroker: gpoll.NewMemoryBroker(), in: in, call: func() { call("t") }}
		}
	}
	for place, set := range places {
		for method, call := range methods {
			t.Run(place+"/"+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := gpoll.NewBroadcaster()
					var depth atomic.Int64
					var called atomic.Int64
					set(b, func(topic string) {
						called.Add(1)
						// The application ends its own recursion, but for what gpoll prevents.
						if depth.Add(1) <= 3 || place == "TopicLimits" || place == "Logger" {
							call(b, topic)
						}
						depth.Add(-1)
					})
					exercise(t, b)
					if called.Load() == 0 {
						t.Error("the function was never called")
					}
				})
			})
		}
	}
}

// exercise has everything called in a Broadcaster, and shuts it down.
func exercise(t *testing.T, b *gpoll.Broadcaster) {
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	ln := gpolltest.NewListener()
	hs := &http.Server{Handler: mux}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(b.Listener(ln)) }() // ends with hs.Close
	s := &server{Broadcaster: b, url: "http://gpoll.test"}
	s.dial = func(ctx context.Context) (net.Conn, error) { return ln.DialContext(ctx, "tcp", "gpoll.test:80") }
	s.client = s.clientOnDial()
	publishOnce(b, "t")
	publishOnce(b, "")
	b.Publish(t.Context(), gpoll.Message{Topic: "bad topic"})
	b.Send(strings.Repeat("x", 1<<20)) // too large: it is logged
	for _, path := range []string{
		"?client-id=0", "?client-id=0&topic=t", "?client-id=0&topic=t&format=json", "?topic=b+c",
	} {
		a, err := s.try(s.request(t, t.Context(), "/poll"+path))
		if err != nil {
			t.Error(err)
		}
		if a.status == http.StatusOK {
			id, after := idOf(t, a.body), a.position()
			for range 3 { // the third is a repeat
				time.AfterFunc(100*time.Millisecond, func() { publishOnce(b, "t") })
				path := "/poll" + query("client-id", id, "after", after, "topic", "t")
				if _, err := s.try(s.request(t, t.Context(), path)); err != nil {
					t.Error(err)
				}
				synctest.Wait()
			}
		}
	}
	// Streams, whose rights expire while they last, and commands.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	stream := s.request(t, ctx, "/poll/events?client-id=0&topic=t")
	if resp, err := s.client.Do(stream); err == nil {
		defer resp.Body.Close()
	}
	if c, _, err := s.trySocket(t, "/poll/ws", "gpoll.v1"); err == nil {
		c.Write(ctx, 1, []byte(`{"hello":{"topics":["t"]}}`))
		c.Write(ctx, 1, []byte(`{"subscribe":["u"]}`))
		go func() { // ends with the connection
			for {
				if _, _, err := c.Read(context.Background()); err != nil {
					return
				}
			}
		}()
	}
	time.Sleep(10 * time.Second)
	for range 2 {
		if err := b.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
	s.client.CloseIdleConnections()
	hs.Close()
	<-served
	synctest.Wait()
}

// What waits for the Broker that calls says so. Nested in a Shutdown, Shutdown says that it goes on.
func TestCallbacksThatCannotWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gpoll.NewBroadcaster()
		var during, closing error
		broker := &callingBroker{MemoryBroker: gpoll.NewMemoryBroker(), in: "Subscribe"}
		broker.call = func() { _, during = b.Publish(t.Context(), gpoll.Message{}) }
		b.Broker = broker
		b.Send("m")
		broker.in, broker.call = "stop", func() { closing = b.Shutdown(context.Background()) }
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		for name, err := range map[string]error{"Subscribe": during, "Shutdown": closing} {
			if err == nil || !strings.Contains(err.Error(), "the Broker") || errors.Is(err, gpoll.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A message that TopicLimits itself publishes to its topic is in the window that it gives.
func TestPublishInTopicLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *gpoll.Broadcaster
		asked := 0
		s := start(t, setup{memory: true, broadcaster: func(of *gpoll.Broadcaster) {
			b = of
			b.TopicLimits = func(topic string) gpoll.Limits {
				asked++
				for i := range 3 {
					b.Publish(context.Background(), gpoll.Message{Topic: topic, Data: fmt.Append(nil, "inner", i)})
				}
				return gpoll.Limits{Count: 2}
			}
		}})
		id, after := s.register(t)
		s.mustPublish(t, "t", "outer")
		s.Send("end")
		want := "[gap 1..2 evicted inner2 outer end]"
		if got := fmt.Sprint(s.readBatches(t, id, after, "t")); got != want || asked != 1 {
			t.Errorf("%s, want %s; asked %d times", got, want, asked)
		}
	})
}

// A handler that publishes what it gets, also when that fails, and one that panics, hold up nothing.
func TestLoggerThatPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gpoll.NewBroadcaster()
		calls := 0
		b.Logger = slog.New(callingLogger{func() {
			if calls++; calls == 3 {
				panic("on purpose")
			}
			b.Send(strings.Repeat("x", 1<<20))
			b.Shutdown(context.Background())
		}})
		for range 3 {
			b.Send(strings.Repeat("x", 1<<20))
			advance(2 * time.Minute) // the same is logged once in a minute
		}
		if err := b.Shutdown(t.Context()); err != nil || calls != 3 {
			t.Errorf("%v, %d calls", err, calls)
		}
	})
}

// Shutdown returns although its caller, a function of the application, runs on a goroutine that it waits for.
func TestShutdownInsideItsGoroutine(t *testing.T) {
	for name, run := range map[string]func(b *gpoll.Broadcaster, shut func()) (drive func(t *testing.T, s *server)){
		"Authorize, again": func(b *gpoll.Broadcaster, shut func()) func(*testing.T, *server) {
			asked := 0
			b.Authorize = func(*http.Request) (gpoll.Grant, error) {
				if asked++; asked == 2 {
					shut()
				}
				return gpoll.Grant{Expires: time.Now().Add(time.Second)}, nil
			}
			return func(t *testing.T, s *server) { s.events(t, "/poll/events?client-id=0").next(t) }
		},
		"Authorize of a hello": func(b *gpoll.Broadcaster, shut func()) func(*testing.T, *server) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) { shut(); return gpoll.Grant{}, nil }
			return func(t *testing.T, s *server) {
				c := s.socket(t, "/poll/ws", "gpoll.v1")
				say(t, c, `{"hello":{"authorization":"Bearer x"}}`)
				go c.Read(t.Context()) // ends with the connection
			}
		},
		"Grant.Subscribe of a command": func(b *gpoll.Broadcaster, shut func()) func(*testing.T, *server) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) {
				return gpoll.Grant{Subscribe: func(string) bool { shut(); return true }}, nil
			}
			return func(t *testing.T, s *server) {
				c := s.socket(t, "/poll/ws", "gpoll.v1")
				say(t, c, `{"hello":{}}`)
				frame(t, c)
				say(t, c, `{"subscribe":["t"]}`)
				go c.Read(t.Context()) // ends with the connection
			}
		},
		"TopicLimits for another server's message": func(b *gpoll.Broadcaster, shut func()) func(*testing.T, *server) {
			broker := gpoll.NewMemoryBroker()
			b.Broker = broker
			b.TopicLimits = func(string) gpoll.Limits { shut(); return gpoll.Limits{} }
			return func(t *testing.T, s *server) {
				s.register(t)
				publishTo(t, broker, gpoll.Message{Topic: "t", Data: []byte("m")})
			}
		},
		"Logger": func(b *gpoll.Broadcaster, shut func()) func(*testing.T, *server) {
			broker := gpoll.NewMemoryBroker()
			b.Broker, b.Logger = broker, slog.New(callingLogger{shut})
			return func(t *testing.T, s *server) {
				s.register(t)
				broker.Publish(t.Context(), gpoll.Record{Kind: gpoll.RecordMessage, Bytes: []byte("no message")})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var b *gpoll.Broadcaster
				var drive func(*testing.T, *server)
				called, returned := 0, 0
				s := start(t, setup{memory: true, broadcaster: func(of *gpoll.Broadcaster) {
					b = of
					drive = run(b, func() {
						called++
						if err := b.Shutdown(context.Background()); err != nil {
							t.Error(err)
						}
						returned++
					})
				}})
				drive(t, s)
				advance(time.Minute)
				if called == 0 || returned != called {
					t.Errorf("called %d times, returned %d times", called, returned)
				}
			})
		})
	}
}
