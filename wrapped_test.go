package gpoll_test

import (
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/corvuscrypto/gpoll"
)

// A mute ResponseWriter can neither flush nor be hijacked.
type mute struct{ http.ResponseWriter }

// A boasting one has the methods and panics in them, as echo's does around http.TimeoutHandler's.
type boasting struct{ inner http.ResponseWriter }

func (w boasting) Header() http.Header         { return w.inner.Header() }
func (w boasting) Write(p []byte) (int, error) { return w.inner.Write(p) }
func (w boasting) WriteHeader(status int)      { w.inner.WriteHeader(status) }
func (w boasting) Flush()                      { w.inner.(http.Flusher).Flush() }
func (w boasting) Unwrap() http.ResponseWriter { return w.inner }

// Where nothing can be sent before the handler returns, SSE and WebSocket are refused before a client is registered.
// The log says why, and polls work.
func TestMuteResponseWriter(t *testing.T) {
	for name, wrap := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"mute":     func(w http.ResponseWriter) http.ResponseWriter { return mute{w} },
		"boasting": func(w http.ResponseWriter) http.ResponseWriter { return boasting{mute{w}} },
	} {
		t.Run(name, func(t *testing.T) {
			log := new(lockedBuffer)
			s := start(t, setup{
				wrap: func(h http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(wrap(w), r) })
				},
				broadcaster: func(b *gpoll.Broadcaster) { b.Logger = slog.New(slog.NewTextHandler(log, nil)) },
			})
			if a := s.get(t, "/poll/events"); a.status != 501 || a.code(t) != "no-stream" {
				t.Errorf("SSE: %d %s", a.status, a.body)
			}
			if _, a, err := s.trySocket(t, "/poll/ws", ""); err == nil || a.status != 501 || a.code(t) != "not-websocket" {
				t.Errorf("WebSocket: %d %s", a.status, a.body)
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
				t.Errorf("the log has %d errors:\n%s", n, log.String())
			}
			if n := s.Stats().Clients; n != 0 {
				t.Errorf("%d clients were registered", n)
			}
			id, _ := s.register(t)
			s.Send("m")
			if a := s.get(t, "/poll?client-id="+id); a.status != 200 || a.body != "m" {
				t.Errorf("a poll: %d %s", a.status, a.body)
			}
		})
	}
}

// A body that middleware encodes is not written around it.
func TestEncodedEventsStayWithMiddleware(t *testing.T) {
	var seen atomic.Int64
	s := start(t, setup{wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "none-such")
			h.ServeHTTP(&watchedWriter{w, &seen}, r)
		})
	}})
	e := s.events(t, "/poll/events")
	if ev := e.next(t); ev.name != "client-id" {
		t.Errorf("%+v", ev)
	}
	before := seen.Load()
	s.Send("m")
	if ev := e.next(t); ev.data != "m" || seen.Load() == before {
		t.Errorf("%+v, and the middleware saw %d bytes of it", ev, seen.Load()-before)
	}
}

// A watchedWriter counts the bytes of bodies.
type watchedWriter struct {
	http.ResponseWriter
	seen *atomic.Int64
}

func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *watchedWriter) Write(p []byte) (int, error) {
	w.seen.Add(int64(len(p)))
	return w.ResponseWriter.Write(p)
}
