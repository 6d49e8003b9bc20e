package gpoll_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/corvuscrypto/gpoll"
)

// While a server shuts down, and afterwards, every transport says "shutdown" and when to come back: to the server's own
// clients, to ids that it never gave out, and to newcomers.
func TestDrainingAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		id, after := s.register(t)
		greeting := s.socket(t, "/poll/ws", "gpoll.v1") // its hello would come later
		down := make(chan struct{})
		go func() { // ends with Shutdown
			defer close(down)
			shutdown(t, s.Broadcaster)
		}()
		synctest.Wait()
		var ms int64
		if code, reason := closing(t, greeting); code != 1001 {
			t.Errorf("hello: close %d %q", code, reason)
		} else if _, err := fmt.Sscanf(reason, "shutdown;retry_ms=%d", &ms); err != nil || ms < 1000 {
			t.Errorf("hello: %q", reason)
		}
		for _, known := range []string{id, "0$6ba7b811-9dad-41d1-80b4-00c04fd430c8", "nonsense", "0"} {
			for _, by := range gets {
				a := s.get(t, by.path+query("client-id", known, "after", after), by.header...)
				if a.status != by.told(http.StatusServiceUnavailable) || a.code(t) != "shutdown" ||
					retryOf(t, a.body) < 1000 || a.header.Get("Retry-After") == "" && !by.eventSource() {
					t.Errorf("%s of %s: %d %s", by.name, known, a.status, a.body)
				}
			}
			for _, path := range []string{"/poll", "/poll/events"} {
				a := s.post(t, path, known, `{"topics":["a"]}`)
				if a.status != http.StatusServiceUnavailable || a.code(t) != "shutdown" || retryOf(t, a.body) < 1000 {
					t.Errorf("POST %s of %s: %d %s", path, known, a.status, a.body)
				}
			}
		}
		<-down
	})
}

// No client is told that its id is unknown because it asks while Shutdown puts out the clients.
func TestDrainingForgetsNobody(t *testing.T) {
	b := gpoll.NewBroadcaster()
	b.PollWait = 1e6 // 1 ms
	alarm(t, b)
	var ids []string
	for range 1500 {
		w := httptest.NewRecorder()
		b.HandleRequests(w, httptest.NewRequest(http.MethodGet, "/poll", nil))
		ids = append(ids, idOf(t, w.Body.String()))
	}
	var all sync.WaitGroup
	var asked atomic.Int64
	var over atomic.Bool
	for _, part := range slices.Collect(slices.Chunk(ids, 250)) {
		all.Go(func() {
			for i := 0; !over.Load(); i = (i + 1) % len(part) {
				w := httptest.NewRecorder()
				r := httptest.NewRequest(http.MethodGet, "/poll"+query("client-id", part[i], "last", "1"), nil)
				b.HandleRequests(w, r)
				asked.Add(1)
				shut := w.Code == http.StatusServiceUnavailable && w.Header().Get("Gpoll-Error") == "shutdown"
				if !shut && w.Code != http.StatusOK && w.Code != http.StatusNoContent {
					t.Errorf("%d %s", w.Code, w.Body)
					return
				}
			}
		})
	}
	await(t, "polls", func() bool { return asked.Load() > 500 })
	shutdown(t, b)
	over.Store(true)
	all.Wait()
}
