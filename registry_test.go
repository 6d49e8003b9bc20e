package gpoll_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// alarm lets the test fail when b logs an error: a panic inside gpoll, in the tests that use it.
func alarm(t testing.TB, b *gpoll.Broadcaster) {
	b.Logger = slog.New(alarming{t})
}

type alarming struct{ t testing.TB }

func (alarming) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }
func (a alarming) WithAttrs([]slog.Attr) slog.Handler             { return a }
func (a alarming) WithGroup(string) slog.Handler                  { return a }

func (a alarming) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(at slog.Attr) bool {
		text += "\n" + at.String()
		return true
	})
	a.t.Errorf("gpoll logged an error: %s", text)
	return nil
}

// userOf is an Authorize that believes what the request says.
func userOf(r *http.Request) (gpoll.Grant, error) {
	return gpoll.Grant{User: r.Header.Get("Authorization")}, nil
}

// If the clients of a user come and go while a message is published to the user, the message reaches the clients that
// are there, and ends nothing else.
func TestMessageToAUserWhoComesAndGoes(t *testing.T) {
	for _, by := range []struct {
		name string
		m    gpoll.Message
	}{
		{"to the user", gpoll.Message{To: gpoll.ToUser("alice")}},
		{"to a topic", gpoll.Message{Topic: "news"}},
		{"to everybody", gpoll.Message{}},
	} {
		t.Run(by.name, func(t *testing.T) {
			b := gpoll.NewBroadcaster()
			alarm(t, b)
			b.RegisterRate, b.RoutineMaxClients, b.Authorize = -1, 3, userOf
			defer shutdown(t, b)
			var all sync.WaitGroup
			over := time.Now().Add(400 * time.Millisecond)
			all.Go(func() {
				for time.Now().Before(over) {
					if _, err := b.Publish(t.Context(), by.m); err != nil {
						t.Errorf("Publish: %v", err)
						return
					}
				}
			})
			for range 2 {
				all.Go(func() {
					for time.Now().Before(over) {
						for range 4 {
							w := httptest.NewRecorder()
							r := httptest.NewRequest(http.MethodGet, "/poll?topic=news", nil)
							r.Header.Set("Authorization", "alice")
							if b.HandleRequests(w, r); w.Code != http.StatusOK {
								t.Errorf("register: %d %s", w.Code, w.Body)
								return
							}
						}
						b.Revoke("alice")
					}
				})
			}
			all.Wait()
			b.Revoke("alice")
			if st := b.Stats(); st.Clients != 0 || st.Routines != 0 || st.Dropped["internal"] != 0 {
				t.Errorf("at the end: %d clients, %d routines, dropped %v", st.Clients, st.Routines, st.Dropped)
			}
		})
	}
}

// Clients that are about to be shown count against the limits: many that register at once do not pass them together.
func TestLimitsOfClientsWhoComeTogether(t *testing.T) {
	b := gpoll.NewBroadcaster()
	b.RegisterRate, b.MaxClients, b.MaxClientsPerUser, b.Authorize = -1, 50, 5, userOf
	defer shutdown(t, b)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for user := range strings.SplitSeq("abcdefghijklmnopqrst", "") {
				w := httptest.NewRecorder()
				r := httptest.NewRequest(http.MethodGet, "/poll", nil)
				r.Header.Set("Authorization", user)
				b.HandleRequests(w, r)
			}
		})
	}
	all.Wait()
	if n := b.Stats().Clients; n != 50 {
		t.Errorf("%d clients, want MaxClients, 50", n)
	}
	for user := range strings.SplitSeq("abcdefghijklmnopqrst", "") {
		if n := b.Revoke(user); n > 5 {
			t.Errorf("%d clients of %s, the limit is 5", n, user)
		}
	}
	if st := b.Stats(); st.Clients != 0 || st.Routines != 0 {
		t.Errorf("at the end: %d clients, %d routines", st.Clients, st.Routines)
	}
}

// A client that registers while Shutdown puts out the others is refused or put out: none stays.
func TestRegisterBesideShutdown(t *testing.T) {
	for range 50 {
		b := gpoll.NewBroadcaster()
		b.RegisterRate, b.RoutineMaxClients = -1, 2
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for {
					if id, routine := b.AddClient(); routine < 0 {
						return
					} else if pipe, err := b.GetChannel(id, routine); err == nil && cap(pipe) == 0 {
						t.Errorf("a channel without room")
					}
				}
			})
		}
		await(t, "some clients", func() bool { return b.Stats().Clients > 20 })
		shutdown(t, b)
		all.Wait()
		if st := b.Stats(); st.Clients != 0 || st.Routines != 0 {
			t.Fatalf("after Shutdown: %d clients, %d routines", st.Clients, st.Routines)
		}
	}
}
