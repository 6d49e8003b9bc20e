package gpoll_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// A browser's EventSource takes any answer but 200 for the end of all: what time cures is told in a stream.
func TestEventSourceComesBack(t *testing.T) {
	ask := []string{"Accept", "text/event-stream", "Cache-Control", "no-cache"}
	for _, tt := range []struct {
		name   string
		how    func(*gpoll.Broadcaster)
		before func(*testing.T, *server)
		code   string
	}{
		{"rate", func(b *gpoll.Broadcaster) { b.RegisterRate, b.RegisterBurst = 1, 1 },
			func(t *testing.T, s *server) { s.get(t, "/poll?client-id=0") }, "rate"},
		{"clients", func(b *gpoll.Broadcaster) { b.MaxClients = 1 },
			func(_ *testing.T, s *server) { s.AddClient() }, "too-many-clients"},
		{"Authorize", func(b *gpoll.Broadcaster) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) { return gpoll.Grant{}, gpoll.ErrTryLater }
		}, nil, "unavailable"},
		{"a panic", func(b *gpoll.Broadcaster) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) { panic("no") }
		}, nil, "internal"},
		{"shutdown", nil, func(_ *testing.T, s *server) { s.Shutdown(context.Background()) }, "shutdown"},
	} {
		inBubble(t, tt.name, func(t *testing.T) {
			s := start(t, setup{memory: true, broadcaster: tt.how})
			if tt.before != nil {
				tt.before(t, s)
			}
			for _, path := range []string{"/poll", "/poll/events"} {
				e := s.events(t, path, ask...)
				ev := e.next(t)
				ms, err := strconv.Atoi(ev.retry)
				if ev.name != "end" || !strings.Contains(ev.data, `"`+tt.code+`"`) || err != nil || ms < 1000 {
					t.Errorf("%s: %+v", path, ev)
				}
				if ev, err := e.read(); err == nil {
					t.Errorf("%s goes on: %+v", path, ev)
				}
				if a := s.get(t, path); a.status < 400 { // another program is told as ever
					t.Errorf("%s without Accept: %d", path, a.status)
				}
			}
		})
	}
}

// What time does not cure stays an error: an EventSource does not come back for ever.
func TestEventSourceStops(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
			if r.Header.Get("Cookie") == "" {
				return gpoll.Grant{}, gpoll.ErrForbidden
			}
			return gpoll.Grant{Subscribe: func(string) bool { return false }}, nil
		}
	}})
	for path, want := range map[string]int{"/poll": 403, "/poll?topic=a": 403, "/poll?after=x": 400} {
		if a := s.get(t, path, "Accept", "text/event-stream"); a.status != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := s.get(t, "/poll?topic=a", "Accept", "text/event-stream", "Cookie", "a=b"); a.status != 403 {
		t.Errorf("a topic: %d %s", a.status, a.body)
	}
}

// An EventSource comes back to the address that it was made with, with an id that may be gone: it gets a new one, and
// reads on from its Last-Event-ID.
func TestEventSourceOfUnknownID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		id, _ := s.register(t)
		path := "/poll?topic=a&client-id=" + id
		e := s.events(t, path, "Accept", "text/event-stream")
		e.next(t)
		s.mustPublish(t, "a", "1")
		if ev := e.next(t); ev.data != "1" {
			t.Fatalf("%+v", ev)
		}
		at := e.lastID
		e.close()
		advance(2 * time.Minute) // the client expires
		s.mustPublish(t, "a", "2")
		again := s.events(t, path, "Accept", "text/event-stream", "Last-Event-ID", at)
		if ev := again.next(t); ev.name != "client-id" || strings.Contains(ev.data, id) {
			t.Errorf("%+v, want a new id", ev)
		}
		if ev := again.next(t); ev.data != "2" {
			t.Errorf("%+v, want what came after the cursor", ev)
		}
	})
}
