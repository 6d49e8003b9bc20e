package client_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll/client"
)

// A client goes from each transport to each other in the midst of a stream, and nothing is lost or repeated.
func TestSwitches(t *testing.T) {
	of := func(r *http.Request) client.Transport {
		switch {
		case strings.HasSuffix(r.URL.Path, "/ws"):
			return client.WebSocket
		case strings.HasSuffix(r.URL.Path, "/events"):
			return client.SSE
		}
		return client.LongPoll
	}
	for _, from := range transports {
		for _, to := range transports {
			t.Run(string(from)+" to "+string(to), func(t *testing.T) {
				inWorld(t, nil, func(w *world) {
					only := func(one client.Transport) {
						w.stands(func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
							if of(r) != one {
								http.Error(rw, "no", http.StatusForbidden)
								return
							}
							mount.ServeHTTP(rw, r)
						})
					}
					only(from)
					c := w.dial(client.Options{Topics: []string{"news"}})
					w.publish("news", 5)
					only(to)
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
