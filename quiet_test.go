package gpoll_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// What each request or message could have logged anew is logged once in a minute, for each level and place.
func TestLogOnceAMinute(t *testing.T) {
	far := strings.Repeat("x", 70_000)
	for _, tt := range []struct {
		name  string
		wrap  func(http.ResponseWriter) http.ResponseWriter
		how   func(*gpoll.Broadcaster)
		do    func(*testing.T, *server, int)
		level string
		said  string
	}{
		{name: "SSE without Flush", wrap: func(w http.ResponseWriter) http.ResponseWriter { return mute{w} },
			do:    func(t *testing.T, s *server, _ int) { s.get(t, "/poll/events") },
			level: "ERROR", said: "without Flush"},
		{name: "the refusal beside it", wrap: func(w http.ResponseWriter) http.ResponseWriter { return mute{w} },
			do:    func(t *testing.T, s *server, _ int) { s.get(t, "/poll/events") },
			level: "WARN", said: "code=no-stream"},
		{name: "WebSocket without Hijack", wrap: func(w http.ResponseWriter) http.ResponseWriter { return mute{w} },
			do:    func(t *testing.T, s *server, _ int) { _, _, _ = s.trySocket(t, "/poll/ws", "") },
			level: "ERROR", said: "without Hijack"},
		{name: "one code for two mistakes", do: func(t *testing.T, s *server, i int) {
			s.get(t, "/poll/ws") // no Upgrade: another not-websocket than the next
			s.get(t, "/poll/ws", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13")
		}, level: "WARN", said: "Sec-WebSocket-Key"},
		{name: "a bad topic of Authorize", how: func(b *gpoll.Broadcaster) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) { return gpoll.Grant{Topics: []string{"a*"}}, nil }
		}, do: func(t *testing.T, s *server, _ int) { s.get(t, "/poll") }, level: "ERROR", said: "gave a bad topic"},
		{name: "a panic in Authorize", how: func(b *gpoll.Broadcaster) {
			var n atomic.Int64
			b.Authorize = func(*http.Request) (gpoll.Grant, error) { panic(fmt.Sprint("number ", n.Add(1))) }
		}, do: func(t *testing.T, s *server, _ int) { s.get(t, "/poll") }, level: "ERROR", said: "application's Authorize"},
		{name: "Send", how: func(b *gpoll.Broadcaster) { b.MaxMessage = 10 },
			do:    func(_ *testing.T, s *server, _ int) { s.Send(far) },
			level: "ERROR", said: "Send failed"},
		{name: "AddClient", how: func(b *gpoll.Broadcaster) { b.MaxClients = 1 },
			do:    func(t *testing.T, s *server, _ int) { s.AddClient(); s.AddClient() },
			level: "WARN", said: "AddClient refused"},
		{name: "what a client sends", do: func(t *testing.T, s *server, _ int) {
			s.get(t, "/poll", "X-Far", far)
			s.get(t, "/poll?after="+far[:20])
		}, level: "WARN", said: "code=bad-position"},
	} {
		inBubble(t, tt.name, func(t *testing.T) {
			log := new(lockedBuffer)
			s := start(t, setup{memory: true,
				wrap: func(h http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if tt.wrap != nil {
							w = tt.wrap(w)
						}
						h.ServeHTTP(w, r)
					})
				},
				broadcaster: func(b *gpoll.Broadcaster) {
					b.Logger = slog.New(slog.NewTextHandler(log, nil))
					if tt.how != nil {
						tt.how(b)
					}
				}})
			lines := func() (n int, last string) {
				for line := range strings.Lines(log.String()) {
					if strings.Contains(line, "level="+tt.level) && strings.Contains(line, tt.said) {
						n, last = n+1, line
					}
				}
				return n, last
			}
			for i := range 5 {
				tt.do(t, s, i)
			}
			synctest.Wait()
			if n, _ := lines(); n != 1 {
				t.Errorf("%d times in a minute:\n%s", n, log.String())
			}
			advance(2 * time.Minute)
			tt.do(t, s, 5)
			synctest.Wait()
			if n, last := lines(); n != 2 || !strings.Contains(last, `"left out"=`) {
				t.Errorf("%d times after a minute more, the last with how many were left out:\n%s", n, log.String())
			}
		})
	}
}

// Two panics are two mistakes, also when the application's same function has both.
func TestEachPanicIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(lockedBuffer)
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Logger = slog.New(slog.NewTextHandler(log, nil))
			b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
				if r.Header.Get("Cookie") == "" {
					panic("the first")
				}
				return gpoll.Grant{User: []string{}[len(r.Host)]}, nil // and the second
			}
		}})
		for range 3 {
			s.get(t, "/poll")
			s.get(t, "/poll", "Cookie", "a=b")
		}
		synctest.Wait() // until it is logged
		for _, want := range []string{`panic="the first"`, "index out of range"} {
			if n := strings.Count(log.String(), want); n != 1 {
				t.Errorf("%s is in the log %d times:\n%s", want, n, log.String())
			}
		}
	})
}

// An EventSource whose server cannot reach its broker comes back until it can.
func TestEventSourceWithoutBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &shyBroker{MemoryBroker: gpoll.NewMemoryBroker()}
		broker.away.Store(true)
		log := new(lockedBuffer)
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Broker, b.Logger = broker, slog.New(slog.NewTextHandler(log, nil))
		}})
		defer broker.MemoryBroker.Close(context.Background())
		for _, path := range []string{"/poll", "/poll/events"} {
			for range 3 {
				e := s.events(t, path, "Accept", "text/event-stream")
				ev := e.next(t)
				if ms, _ := strconv.Atoi(ev.retry); ev.name != "end" || !strings.Contains(ev.data, `"internal"`) || ms < 1000 {
					t.Errorf("%s: %+v", path, ev)
				}
				if ev, err := e.read(); err == nil {
					t.Errorf("%s goes on: %+v", path, ev)
				}
			}
			if a := s.get(t, path); a.status != 500 {
				t.Errorf("%s without Accept: %d %s", path, a.status, a.body)
			}
		}
		if n := strings.Count(log.String(), "cannot serve"); n != 1 {
			t.Errorf("the log has it %d times:\n%s", n, log.String())
		}
		broker.away.Store(false)
		e := s.events(t, "/poll", "Accept", "text/event-stream")
		if ev := e.next(t); ev.name != "client-id" {
			t.Errorf("with the broker back: %+v", ev)
		}
		if n := s.Stats().Refused["internal"]; n != 8 {
			t.Errorf("%d refusals are counted, want 8", n)
		}
	})
}

// A bad setting is no matter of time: an EventSource stops, and does not come back for ever.
func TestEventSourceOfABadSetting(t *testing.T) {
	b := &gpoll.Broadcaster{MaxClients: -1, Logger: slog.New(slog.DiscardHandler)}
	for _, h := range []http.HandlerFunc{b.HandleEvents, b.ServeHTTP} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept", "text/event-stream")
		h(w, r)
		if w.Code != 500 || w.Header().Get("Gpoll-Error") != "internal" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

// A shyBroker cannot be followed while it is away.
type shyBroker struct {
	*gpoll.MemoryBroker
	away atomic.Bool
}

func (b *shyBroker) Subscribe(ctx context.Context, after gpoll.Position, to gpoll.Subscriber) (func(), error) {
	if b.away.Load() {
		return nil, errors.New("no route to the broker")
	}
	return b.MemoryBroker.Subscribe(ctx, after, to)
}
