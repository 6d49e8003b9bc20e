package gpoll_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// An answer that its client does not take is given up after WriteTimeout, whether the poll was young when it was
// written or not, and whoever ended its attach meanwhile. What a poll without cursor was owed is sent again.
func TestAnswerNotTaken(t *testing.T) {
	for name, c := range map[string]struct {
		wait time.Duration // before there is something to answer with
		end  bool          // another poll of the client comes while the answer is being written
		low  time.Duration // after which the connection is given up
		high time.Duration
	}{
		"at once":           {0, false, 10 * time.Second, 11250 * time.Millisecond},
		"when young":        {900 * time.Millisecond, false, 10 * time.Second, 10350 * time.Millisecond},
		"when no longer so": {2 * time.Second, false, 10 * time.Second, 10 * time.Second},
		"superseded":        {0, true, 10 * time.Second, 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var fresh net.Conn // the newest until the answer is written
				closed := map[net.Conn]time.Time{}
				s := start(t, setup{memory: true, buffer: 8 << 10, server: func(hs *http.Server) {
					hs.ConnState = func(c net.Conn, state http.ConnState) {
						mu.Lock()
						defer mu.Unlock()
						switch {
						case state == http.StateNew:
							fresh = c
						case state == http.StateClosed:
							closed[c] = time.Now()
						}
					}
				}})
				id, _ := s.register(t)
				conn := s.raw(t)
				fmt.Fprintf(conn, "GET /poll%s HTTP/1.1\r\nHost: gpoll.test\r\n\r\n", query("client-id", id))
				advance(c.wait)
				s.mustPublish(t, "", strings.Repeat("x", 20<<10))
				written := time.Now()
				synctest.Wait()
				mu.Lock()
				stuck := fresh
				mu.Unlock()
				var next <-chan answer
				if c.end {
					next = s.later(t, "/poll"+query("client-id", id))
				}
				ended := func() (at time.Time) {
					mu.Lock()
					defer mu.Unlock()
					return closed[stuck]
				}
				for ended().IsZero() && time.Since(written) < time.Minute {
					advance(10 * time.Millisecond)
				}
				within(t, "given up", ended().Sub(written), c.low, c.high)
				if next == nil {
					next = s.later(t, "/poll"+query("client-id", id))
				}
				if a := <-next; a.status != http.StatusOK || len(a.body) != 20<<10 {
					t.Errorf("the next poll: %d, %d bytes", a.status, len(a.body))
				}
			})
		})
	}
}

// Deadlines that middleware has set for the request do not cut a poll, and the connection carries the next one.
func TestDeadlinesOfMiddleware(t *testing.T) {
	for name, wrap := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"beside the writer": func(w http.ResponseWriter) http.ResponseWriter { return w },
		"around the writer": func(w http.ResponseWriter) http.ResponseWriter { return wrapper{w} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits := func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						rc := http.NewResponseController(w)
						_ = rc.SetReadDeadline(time.Now().Add(2 * time.Second))
						_ = rc.SetWriteDeadline(time.Now().Add(2 * time.Second))
						next.ServeHTTP(wrap(w), r)
					})
				}
				s := start(t, setup{memory: true, wrap: limits,
					broadcaster: func(b *gpoll.Broadcaster) { b.PollWait = 20 * time.Second }})
				id, after := s.register(t)
				for _, wait := range []time.Duration{0, time.Second, 1500 * time.Millisecond, 10 * time.Second, time.Minute} {
					began := time.Now()
					answered := s.later(t, "/poll"+query("client-id", id, "after", after))
					advance(min(wait, 10*time.Second))
					if wait < time.Minute {
						s.Send("m")
					} else {
						wait = 20 * time.Second
					}
					a := <-answered
					if wait < 20*time.Second && a.body != "m" || wait == 20*time.Second && a.status != http.StatusNoContent {
						t.Fatalf("after %v: %d %q", wait, a.status, a.body)
					}
					within(t, "answered", time.Since(began), wait*9/10, wait*11/10)
					after = a.position()
				}
			})
		})
	}
}
