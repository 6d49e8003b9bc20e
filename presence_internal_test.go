package gpoll

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// The book forgets a topic when nobody has watched it for ClientTTL: the watcher was removed, watches other topics, or
// none. Nothing stays in memory.
func TestPresenceForgetsTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Broadcaster{Authorize: func(*http.Request) (Grant, error) {
			return Grant{Info: "x", Presence: func(string) bool { return true }}, nil
		}}
		defer func() {
			if err := b.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		poll := func(query string) *Client {
			w := httptest.NewRecorder()
			b.HandleRequests(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?format=json"+query, nil))
			if w.Code != http.StatusOK {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			for _, c := range b.clients.all(func(*Client) bool { return true }) {
				return c
			}
			t.Fatal("no client")
			return nil
		}
		c := poll("")
		id := "&client-id=" + c.ID()
		recorded := func() (names int) {
			b.present.mu.Lock()
			defer b.present.mu.Unlock()
			if n := int(b.present.recorded.Load()); n != len(b.present.topics) {
				t.Errorf("%d are counted, and there are %d", n, len(b.present.topics))
			}
			return len(b.present.topics)
		}
		poll(id + "&topic=a&presence=a&presence=b")
		poll(id + "&topic=a&presence=a")
		time.Sleep(50 * time.Second)
		poll(id + "&topic=a&presence=a")
		time.Sleep(40 * time.Second)
		if n := recorded(); n != 1 {
			t.Errorf("%d topics are in the book, want a alone", n)
		}
		poll(id + "&topic=a") // ends the watch, with the end of its time
		time.Sleep(50 * time.Second)
		poll(id + "&topic=a")
		time.Sleep(10 * time.Second)
		if n := recorded(); n != 0 {
			t.Errorf("%d topics are in the book of which nobody is", n)
		}
		poll(id + "&topic=a&presence=a")
		b.remove(c, endRemoved)
		time.Sleep(3 * time.Minute)
		b.present.mu.Lock()
		defer b.present.mu.Unlock()
		p := &b.present
		if len(p.topics)+len(p.watchers)+len(p.infos)+len(p.changed)+p.window.len+p.bytes != 0 || p.tending || p.batching {
			t.Errorf("the book has %d topics, %d watchers, %d infos, %d changes of %d bytes", len(p.topics), len(p.watchers),
				len(p.infos), p.window.len, p.bytes)
		}
	})
}
