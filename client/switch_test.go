package client_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll/client"
)

// only lets one transport through, and the commands.
func (w *world) only(one client.Transport) {
	w.stands(func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
		of := client.LongPoll
		switch {
		case strings.HasSuffix(r.URL.Path, "/ws"):
			of = client.WebSocket
		case strings.HasSuffix(r.URL.Path, "/events"):
			of = client.SSE
		case strings.HasSuffix(r.URL.Path, "/commands"):
			of = one
		}
		if of != one {
			http.Error(rw, "no", http.StatusForbidden)
			return
		}
		mount.ServeHTTP(rw, r)
	})
}

// A client goes from each transport to each other in the midst of a stream, and nothing is lost or repeated.
func TestSwitches(t *testing.T) {
	for _, from := range transports {
		for _, to := range transports {
			t.Run(string(from)+" to "+string(to), func(t *testing.T) {
				inWorld(t, nil, func(w *world) {
					w.only(from)
					c := w.dial(client.Options{Topics: []string{"news"}})
					w.publish("news", 5)
					w.only(to)
					w.ln.Cut()
					for range 20 {
						w.publish("news", 5)
						time.Sleep(10 * time.Millisecond) // of the bubble's time
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
}
