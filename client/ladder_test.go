package client_test

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll/client"
)

// refuses answers 403 to what has one of the suffixes as its path.
func refuses(suffixes ...string) middleware {
	return func(w http.ResponseWriter, r *http.Request, mount http.Handler) {
		for _, suffix := range suffixes {
			if strings.HasSuffix(r.URL.Path, suffix) {
				http.Error(w, "no", http.StatusForbidden)
				return
			}
		}
		mount.ServeHTTP(w, r)
	}
}

// Where something refuses the better transports, the client goes down, says why, and climbs when that has gone.
func TestRefusedAndClimbs(t *testing.T) {
	for down, front := range map[client.Transport]middleware{
		client.SSE: refuses("/ws"), client.LongPoll: refuses("/ws", "/events"),
	} {
		t.Run(string(down), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				w.stands(front)
				c := w.dial(client.Options{Topics: []string{"news"}})
				s := c.Status()
				want := []string{"ws_refused", "sse_refused"}[:len(s.Reasons)]
				if s.Transport != down || len(s.Reasons) == 0 || strings.Join(s.Reasons, " ") != strings.Join(want, " ") {
					t.Errorf("it is %v", s)
				}
				w.await(w.publish("news", 3), c)
				w.ln.Cut()
				w.await(w.publish("news", 3), c)
				told := map[string]uint64{}
				for _, reason := range want {
					told[reason] = 1
				}
				if got := w.b.Stats().Fallbacks; !maps.Equal(got, told) {
					t.Errorf("the server counts %v, and not %v", got, told)
				}
				w.stands(nil)
				begun := time.Now()
				for c.Status().Transport != client.WebSocket && time.Since(begun) < time.Hour {
					time.Sleep(10 * time.Second) // of the bubble's time
					w.publish("news", 1)
				}
				if d := time.Since(begun); d > 11*time.Minute {
					t.Errorf("it climbed after %v", d)
				}
				w.await(w.publish("news", 3), c)
				synctest.Wait()
				if len(c.got) != w.n {
					t.Errorf("it got %d messages of %d", len(c.got), w.n)
				}
			})
		})
	}
}

// A server that restarts without its memory is one gap, and the client registers anew.
func TestRestart(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				c := w.dial(client.Options{Transports: []client.Transport{transport}, Topics: []string{"news"}})
				w.await(w.publish("news", 2), c)
				old := w.b
				w.start()
				w.ln.Cut()
				w.stop(old)
				w.await(w.publish("news", 2), c)
				synctest.Wait()
				if got, want := c.payloads(), "m1 m2 gap epoch m3 m4"; got != want {
					t.Errorf("it got %q, want %q", got, want)
				}
			})
		})
	}
}

// A WebSocket that opens and dies young loses its lives, is left alone for a while, and is tried again.
func TestDiesYoung(t *testing.T) {
	for _, died := range []struct {
		suffix, reason string
		from, to       client.Transport
	}{{"/ws", "ws_died_young", client.WebSocket, client.SSE}, {"/events", "sse_died_young", client.SSE, client.LongPoll}} {
		t.Run(died.reason, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				var tries atomic.Int32
				w.stands(func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
					if strings.HasSuffix(r.URL.Path, died.suffix) {
						tries.Add(1)
						cutAfter(r, 2*time.Second)
					}
					mount.ServeHTTP(rw, r)
				})
				ways := []client.Transport{died.from, died.to}
				c := w.dial(client.Options{Topics: []string{"news"}, Transports: ways})
				publishing := func(d time.Duration) {
					for begun := time.Now(); time.Since(begun) < d; time.Sleep(100 * time.Millisecond) {
						w.publish("news", 1)
					}
				}
				publishing(15 * time.Second)
				s := c.Status()
				if s.Transport != died.to || strings.Join(s.Reasons, " ") != died.reason || tries.Load() != 3 {
					t.Errorf("after %d tries it is %v", tries.Load(), s)
				}
				// The probation: one life, and then left alone again.
				time.Sleep(9 * time.Minute)
				if n := tries.Load(); n != 3 {
					t.Errorf("%d tries within 10 minutes", n)
				}
				publishing(2 * time.Minute)
				if s := c.Status(); s.Transport != died.to || strings.Join(s.Reasons, " ") != died.reason || tries.Load() != 4 {
					t.Errorf("after %d tries it is %v", tries.Load(), s)
				}
				w.stands(nil)
				time.Sleep(10 * time.Minute)
				publishing(10 * time.Second)
				if s := c.Status(); s.Transport != died.from || s.Reasons != nil {
					t.Errorf("it is %v", s)
				}
				// It has three lives again.
				for range 2 {
					w.ln.Cut()
					publishing(10 * time.Second)
				}
				if s := c.Status(); s.Transport != died.from {
					t.Errorf("it is %v", s)
				}
				w.await(w.publish("news", 1), c)
				synctest.Wait()
				if len(c.got) != w.n {
					t.Errorf("it got %d messages of %d", len(c.got), w.n)
				}
			})
		})
	}
}

// While a handshake has no answer, another transport is tried beside it, and the first one that works wins.
func TestSilentHandshake(t *testing.T) {
	for _, other := range []client.Transport{client.SSE, client.LongPoll} {
		t.Run(string(other), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				w.stands(func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
					if strings.HasSuffix(r.URL.Path, "/ws") {
						<-r.Context().Done()
						return
					}
					mount.ServeHTTP(rw, r)
				})
				begun := time.Now()
				c := w.dial(client.Options{Transports: []client.Transport{client.WebSocket, other}})
				if d := time.Since(begun); d > 3*time.Second {
					t.Errorf("attached after %v", d)
				}
				if s := c.Status(); s.Transport != other || strings.Join(s.Reasons, " ") != "ws_silent" {
					t.Errorf("it is %v", s)
				}
				w.await(w.publish("", 1), c)
			})
			inWorld(t, nil, func(w *world) {
				w.stands(func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
					if strings.HasSuffix(r.URL.Path, "/ws") {
						time.Sleep(4 * time.Second)
						mount.ServeHTTP(rw, r)
						return
					}
					<-r.Context().Done()
				})
				c := w.dial(client.Options{Transports: []client.Transport{client.WebSocket, other}})
				if s := c.Status(); s.Transport != client.WebSocket || s.Reasons != nil {
					t.Errorf("it is %v", s)
				}
				w.await(w.publish("", 1), c)
			})
			inWorld(t, nil, func(w *world) { // the hello has no answer
				w.stands(func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
					if !strings.HasSuffix(r.URL.Path, "/ws") {
						mount.ServeHTTP(rw, r)
						return
					}
					conn, err := websocket.Accept(rw, r, &websocket.AcceptOptions{Subprotocols: []string{"gpoll.v1"}})
					if err != nil {
						return
					}
					defer conn.CloseNow()
					for err == nil {
						_, _, err = conn.Read(context.Background())
					}
				})
				c := w.dial(client.Options{Transports: []client.Transport{client.WebSocket, other}})
				if s := c.Status(); s.Transport != other || strings.Join(s.Reasons, " ") != "ws_silent" {
					t.Errorf("it is %v", s)
				}
				w.await(w.publish("", 1), c)
			})
		})
	}
}
