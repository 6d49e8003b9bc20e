package gpoll_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll"
)

// "Why do I get 403" is answered by the server's own log, also where nobody has set one.
func TestRefusalsAreLogged(t *testing.T) {
	var log bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(was)
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		id, _ := s.register(t)
		for range 5 {
			s.get(t, "/poll?client-id="+id, "Origin", "https://other.test", "Host", "app.test:8080")
		}
		s.get(t, "/poll?client-id="+id+"&after=nonsense")
		s.get(t, "/poll?client-id="+strings.Repeat("0", len(id)))
		advance(2 * time.Minute)
		s.get(t, "/poll", "Origin", "https://other.test")
	})
	said := log.String()
	if n := strings.Count(said, "code=origin"); n != 2 {
		t.Errorf("the origin was refused %d times, want once in a minute:\n%s", n, said)
	}
	for _, want := range []string{"level=WARN", "origin=https://other.test", "host=app.test:8080", "path=/poll",
		`"left out"=4`, "code=bad-position"} {
		if !strings.Contains(said, want) {
			t.Errorf("%s is not in the log:\n%s", want, said)
		}
	}
	if strings.Contains(said, "unknown-client") || strings.Contains(said, "$") {
		t.Errorf("the log has what is ordinary, or a client id:\n%s", said)
	}
}

// What Authorize returns says whether a client signs in, stops or comes back.
func TestAuthorizeErrors(t *testing.T) {
	down := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for _, tt := range []struct {
		err       error
		status    int
		code      string
		closeCode websocket.StatusCode
	}{
		{errors.New("no token"), 401, "unauthorized", 4001},
		{fmt.Errorf("bob: %w", gpoll.ErrForbidden), 403, "forbidden", 4001},
		{fmt.Errorf("busy: %w", gpoll.ErrTryLater), 503, "unavailable", websocket.StatusTryAgainLater},
		{fmt.Errorf("the database: %w", down), 503, "unavailable", websocket.StatusTryAgainLater},
		{fmt.Errorf("the database: %w", context.DeadlineExceeded), 503, "unavailable", websocket.StatusTryAgainLater},
	} {
		inBubble(t, tt.err.Error(), func(t *testing.T) {
			var log lockedBuffer
			s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
				b.Logger = slog.New(slog.NewTextHandler(&log, nil))
				b.Authorize = func(*http.Request) (gpoll.Grant, error) { return gpoll.Grant{}, tt.err }
			}})
			for _, path := range []string{"/poll", "/poll/events"} {
				a := s.get(t, path+"?client-id=0")
				if a.status != tt.status || a.code(t) != tt.code || (a.header.Get("Retry-After") != "") != (tt.status == 503) {
					t.Errorf("%s: %d %v %s", path, a.status, a.header, a.body)
				}
			}
			if _, a, err := s.trySocket(t, "/poll/ws", ""); err == nil || a.status != tt.status || a.code(t) != tt.code {
				t.Errorf("WebSocket: %d %s", a.status, a.body)
			}
			c := s.socket(t, "/poll/ws", "gpoll.v1")
			c.Write(t.Context(), websocket.MessageText, []byte(`{"hello":{"client-id":"0"}}`))
			if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != tt.closeCode {
				t.Errorf("gpoll.v1: %v, want %d", err, tt.closeCode)
			}
			if said := log.String(); !strings.Contains(said, tt.err.Error()) {
				t.Errorf("the log does not say why:\n%s", said)
			}
		})
	}
}

// An attach goes on while what Authorize asks does not answer, for half a minute.
func TestAuthorizeComesBack(t *testing.T) {
	for _, away := range []time.Duration{20 * time.Second, time.Minute} {
		inBubble(t, away.String(), func(t *testing.T) {
			began := time.Now()
			s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
				b.Authorize = func(*http.Request) (gpoll.Grant, error) {
					if d := time.Since(began); d > time.Second && d < away {
						return gpoll.Grant{}, gpoll.ErrTryLater
					}
					return gpoll.Grant{Expires: time.Now().Add(5 * time.Second)}, nil
				}
			}})
			e := s.events(t, "/poll/events")
			e.next(t)
			time.AfterFunc(50*time.Second, func() { s.Send("m") })
			ev := e.next(t)
			if away < 30*time.Second && ev.data != "m" {
				t.Errorf("%+v", ev)
			}
			if away > 30*time.Second && (ev.name != "end" || !strings.Contains(ev.data, "unavailable") || ev.retry == "") {
				t.Errorf("%+v", ev)
			}
		})
	}
}
