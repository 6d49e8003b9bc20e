package client_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
