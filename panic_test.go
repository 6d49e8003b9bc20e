package gpoll_test

import (
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// A panic in the application's Authorize or Grant.Subscribe ends the request or session that asked, and nothing else.
func TestPanicInCallback(t *testing.T) {
	inBubble(t, "Authorize of a hello", func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
				if r.Header.Get("Authorization") == "panic" {
					panic("in Authorize")
				}
				return gpoll.Grant{}, nil
			}
		}})
		healthy := s.socket(t, "/poll/ws", "")
		frame(t, healthy)
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{"authorization":"panic"}}`)
		if code, reason := closing(t, c); code != 1011 || reason != "internal" {
			t.Errorf("close %d %q, want 1011 internal", code, reason)
		}
		s.Send("m")
		if got := frame(t, healthy); got != "m" {
			t.Errorf("another client: %q", got)
		}
	})
	inBubble(t, "Authorize of an expired grant", func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			var asked sync.Map
			b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
				who := r.URL.Path + r.Header.Get("Authorization")
				if _, again := asked.LoadOrStore(who, true); again && r.Header.Get("Authorization") == "panic" {
					panic("in Authorize")
				}
				return gpoll.Grant{Expires: time.Now().Add(time.Minute)}, nil
			}
		}})
		healthy := s.socket(t, "/poll/ws", "")
		frame(t, healthy)
		stream := s.events(t, "/poll/events", "Authorization", "panic")
		stream.next(t)
		got := make(chan string, 1)
		go func() { // ends with the message
			_, data, _ := healthy.Read(t.Context())
			got <- string(data)
		}()
		if ev := stream.next(t); ev.name != "end" || !strings.Contains(ev.data, `"internal"`) {
			t.Errorf("SSE: %+v", ev)
		}
		advance(time.Second)
		s.Send("m")
		if g := <-got; g != "m" {
			t.Errorf("another client: %q", g)
		}
	})
	inBubble(t, "Subscribe of a frame", func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
				return gpoll.Grant{Subscribe: func(topic string) bool {
					if topic == "panic" {
						panic("in Subscribe")
					}
					return true
				}}, nil
			}
		}})
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{"topics":["a"]}}`)
		frame(t, c)
		say(t, c, `{"subscribe":["panic"]}`)
		if code, reason := closing(t, c); code != 1011 {
			t.Errorf("close %d %q, want 1011", code, reason)
		}
		synctest.Wait()
		if n := s.Stats().Attached["websocket"]; n != 0 {
			t.Errorf("%d still attached", n)
		}
	})
	t.Run("Authorize of a request", func(t *testing.T) {
		s := start(t, setup{
			server: func(hs *http.Server) { hs.ErrorLog = log.New(io.Discard, "", 0) },
			broadcaster: func(b *gpoll.Broadcaster) {
				b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
					if r.Header.Get("Authorization") == "panic" {
						panic("in Authorize")
					}
					return gpoll.Grant{}, nil
				}
			},
		})
		for _, by := range gets {
			// net/http recovers on a handler's goroutine and drops the connection; an answer is as good.
			a, err := s.try(s.request(t, t.Context(), by.path, append([]string{"Authorization", "panic"}, by.header...)...))
			if err == nil && a.status != by.told(http.StatusInternalServerError) {
				t.Errorf("%s: %d %s", by.name, a.status, a.body)
			}
		}
		s.register(t)
	})
}
