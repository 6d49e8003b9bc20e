package gpoll_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

func TestMaxClients(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.MaxClients, b.MaxClientsPerUser = 5, 2
		b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
			return gpoll.Grant{User: r.Header.Get("Authorization")}, nil
		}
	}})
	s.register(t, "Authorization", "alice")
	s.register(t, "Authorization", "alice")
	if a := s.get(t, "/poll", "Authorization", "alice"); a.status != http.StatusTooManyRequests ||
		a.code(t) != "too-many-clients" {
		t.Errorf("the user's third: %d %s", a.status, a.body)
	}
	s.register(t, "Authorization", "bob")
	s.register(t)
	last, _ := s.register(t)
	for _, by := range gets {
		if a := s.get(t, by.path, by.header...); a.status != by.told(http.StatusServiceUnavailable) ||
			a.code(t) != "too-many-clients" {
			t.Errorf("%s, the sixth: %d %s", by.name, a.status, a.body)
		}
	}
	if id, routine := s.AddClient(); id != "" || routine != -1 {
		t.Errorf("AddClient: %q, %d", id, routine)
	}
	s.RemoveClient(last)
	s.register(t)
	if n := s.Stats().Refused["too-many-clients"]; n < 7 {
		t.Errorf("Refused[too-many-clients] = %d", n)
	}
}

// What a page leaves behind when it is loaded again makes room for the next one; who is there stays.
func TestMaxClientsPerUserGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true,
			broadcaster: func(b *gpoll.Broadcaster) { b.MaxClientsPerUser, b.Authorize = 3, userOf }})
		alice := []string{"Authorization", "alice"}
		stays := s.events(t, "/poll/events", alice...)
		stays.next(t)
		var ids []string
		for range 20 { // reloads
			e := s.events(t, "/poll/events", alice...)
			ids = append(ids, idOf(t, e.next(t).data))
			e.close()
			synctest.Wait()
		}
		for i, id := range ids {
			if _, ok := s.Client(id); ok != (i >= len(ids)-2) {
				t.Errorf("client %d of %d is there: %v", i, len(ids), ok)
			}
		}
		// Polls: one that has just been answered comes again.
		for range 2 {
			ids = append(ids, func() string { id, _ := s.register(t, alice...); return id }())
		}
		if a := s.get(t, "/poll", alice...); a.status != 429 || a.code(t) != "too-many-clients" {
			t.Errorf("beside a stream and two that poll: %d %s", a.status, a.body)
		}
		advance(3 * time.Second)
		s.register(t, alice...)
		if a := s.get(t, "/poll?client-id="+ids[len(ids)-2], alice...); a.status != 404 {
			t.Errorf("the one that was away for longest: %d %s", a.status, a.body)
		}
		s.Send("m")
		if ev := stays.next(t); ev.data != "m" {
			t.Errorf("the one that stays: %+v", ev)
		}
	})
}

func TestRegisterRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true,
			broadcaster: func(b *gpoll.Broadcaster) { b.RegisterRate, b.RegisterBurst = 10, 3 }})
		try := func(n int) (ok int) {
			for range n {
				switch a := s.get(t, "/poll"); {
				case a.status == http.StatusOK:
					ok++
				case a.status != http.StatusTooManyRequests || a.code(t) != "rate":
					t.Errorf("%d %s", a.status, a.body)
				}
			}
			return ok
		}
		if n := try(10); n != 3 {
			t.Errorf("%d registered at once, want 3", n)
		}
		advance(200 * time.Millisecond)
		if n := try(10); n != 2 {
			t.Errorf("%d registered after 200 ms, want 2", n)
		}
		// One that is registered is not limited.
		id, _ := func() (string, string) { advance(time.Second); return s.register(t) }()
		for i := range 50 {
			s.Send(fmt.Sprint(i))
			if a := s.get(t, "/poll"+query("client-id", id)); a.body != fmt.Sprint(i) {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		try(10)
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{}}`)
		if code, reason := closing(t, c); code != 4029 {
			t.Errorf("hello beyond the rate: close %d %q, want 4029", code, reason)
		}
	})
}

func TestRefuseQueryID(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.RefuseQueryID = true }})
	id, _ := s.register(t)
	s.Send("m")
	for _, by := range gets {
		if a := s.get(t, by.path+query("client-id", id), by.header...); a.status != http.StatusBadRequest ||
			a.code(t) != "bad-client-id" {
			t.Errorf("%s: %d %s", by.name, a.status, a.body)
		}
	}
	if a := s.get(t, "/poll", "Gpoll-Client-Id", id); a.body != "m" {
		t.Errorf("in the header: %d %s", a.status, a.body)
	}
}

// The fields of a Broadcaster that make no sense are refused by name, where it is mounted.
func TestBadSettings(t *testing.T) {
	for name, set := range map[string]func(*gpoll.Broadcaster){
		"RoutineMaxClients":  func(b *gpoll.Broadcaster) { b.RoutineMaxClients = -1 },
		"ClientBufferSize":   func(b *gpoll.Broadcaster) { b.ClientBufferSize = -1 },
		"RoutineBufferSize":  func(b *gpoll.Broadcaster) { b.RoutineBufferSize = -1 },
		"SyncDelayMs":        func(b *gpoll.Broadcaster) { b.SyncDelayMs = -1 },
		"PollWait":           func(b *gpoll.Broadcaster) { b.PollWait = -time.Second },
		"Heartbeat":          func(b *gpoll.Broadcaster) { b.Heartbeat = -time.Second },
		"PongTimeout":        func(b *gpoll.Broadcaster) { b.PongTimeout = -time.Second },
		"WriteTimeout":       func(b *gpoll.Broadcaster) { b.WriteTimeout = -time.Second },
		"ClientTTL":          func(b *gpoll.Broadcaster) { b.ClientTTL = -time.Second },
		"AttachTimeout":      func(b *gpoll.Broadcaster) { b.AttachTimeout = -time.Second },
		"ShutdownSpread":     func(b *gpoll.Broadcaster) { b.ShutdownSpread = -time.Second },
		"MaxMessage":         func(b *gpoll.Broadcaster) { b.MaxMessage = -1 },
		"MaxTopics":          func(b *gpoll.Broadcaster) { b.MaxTopics = -1 },
		"MaxClients":         func(b *gpoll.Broadcaster) { b.MaxClients = -1 },
		"MaxClientsPerUser":  func(b *gpoll.Broadcaster) { b.MaxClientsPerUser = -1 },
		"RegisterBurst":      func(b *gpoll.Broadcaster) { b.RegisterBurst = -1 },
		"RegisterBurstPerIP": func(b *gpoll.Broadcaster) { b.RegisterBurstPerIP = -1 },
		"History.Count":      func(b *gpoll.Broadcaster) { b.History.Count = -1 },
		"History.Bytes":      func(b *gpoll.Broadcaster) { b.History.Bytes = -1 },
		"History.Age":        func(b *gpoll.Broadcaster) { b.History.Age = -1 },
		"AllowedOrigins":     func(b *gpoll.Broadcaster) { b.AllowedOrigins = []string{"https://app.example/"} },
		"PublicOrigin":       func(b *gpoll.Broadcaster) { b.PublicOrigin = "app.example" },
	} {
		t.Run(name, func(t *testing.T) {
			b := gpoll.NewBroadcaster()
			set(b)
			func() {
				defer func() {
					if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), name) {
						t.Errorf("mounted with %v, want a panic that names %s", p, name)
					}
				}()
				b.ListenAndBroadcast("/poll", http.NewServeMux())
			}()
			if _, err := b.Publish(t.Context(), gpoll.Message{}); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("Publish: %v", err)
			}
			b.Send("x") // no panic
			w := httptest.NewRecorder()
			b.HandleRequests(w, httptest.NewRequest(http.MethodGet, "/poll", nil))
			if w.Code != http.StatusInternalServerError {
				t.Errorf("HandleRequests: %d %s", w.Code, w.Body)
			}
			if id, _ := b.AddClient(); id != "" {
				t.Errorf("AddClient: %q", id)
			}
			b.Reset()
			b.CleanUp([]int{0})
			b.Stats()
		})
	}
}

// The zero Broadcaster works.
func TestZeroBroadcaster(t *testing.T) {
	var b gpoll.Broadcaster
	defer shutdown(t, &b)
	pipe, err := b.GetChannel(b.AddClient())
	if err != nil {
		t.Fatal(err)
	}
	b.Send("m")
	if got := <-pipe; got != "m" {
		t.Errorf("%q", got)
	}
}

// Routines are filled densely, the lowest number first, and end when they are empty.
func TestRoutines(t *testing.T) {
	b := gpoll.NewBroadcaster()
	b.RoutineMaxClients = 3
	defer shutdown(t, b)
	ids := map[int][]string{}
	add := func(want int) {
		t.Helper()
		id, routine := b.AddClient()
		if routine != want {
			t.Errorf("a client on routine %d, want %d", routine, want)
		}
		ids[routine] = append(ids[routine], id)
	}
	for i := range 9 {
		add(i / 3)
	}
	if st := b.Stats(); st.Routines != 3 || st.Clients != 9 {
		t.Errorf("%+v", st)
	}
	b.RemoveClient(ids[1][1])
	add(1)
	add(3)
	pipe, err := b.GetChannel(ids[2][0], 2)
	if err != nil {
		t.Fatal(err)
	}
	client, _ := b.Client(ids[2][0])
	if _, err := b.GetChannel(ids[2][0], 1); !errors.Is(err, gpoll.ErrUnknownClient) {
		t.Errorf("GetChannel on another routine: %v", err)
	}
	b.CleanUp([]int{0, 2, 77, -1})
	if _, open := <-pipe; open {
		t.Error("CleanUp left the channel open")
	}
	if client.Err() == nil {
		t.Error("CleanUp left no Err")
	}
	if st := b.Stats(); st.Routines != 2 || st.Clients != 4 {
		t.Errorf("after CleanUp: %d routines, %d clients; want 2 and 4", st.Routines, st.Clients)
	}
	add(0)
	b.Reset()
	if st := b.Stats(); st.Routines != 0 || st.Clients != 0 {
		t.Errorf("after Reset: %d routines, %d clients", st.Routines, st.Clients)
	}
	add(0)
	b.Send("the log stays")
	if b.RemoveClient("nonsense") {
		t.Error("RemoveClient of nonsense")
	}
}

// All that manages clients, at once, beside Send and polls. The race detector and the end of it are the test.
func TestConcurrentEntryPoints(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.RoutineMaxClients, b.RegisterRate, b.PollWait = 5, -1, 2*time.Millisecond
		b.History = gpoll.Limits{Count: 50}
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for range 2 {
		for _, act := range []func(){
			func() { s.Send("x") },
			func() {
				s.Publish(ctx, gpoll.Message{Topic: "a", Data: []byte("y"), Except: []string{gpoll.PublicID("0$x")}})
			},
			func() {
				id, routine := s.AddClient()
				if pipe, err := s.GetChannel(id, routine); err == nil {
					select {
					case <-pipe:
					case <-ctx.Done():
					}
				}
				s.RemoveClient(id)
			},
			func() { s.CleanUp([]int{0, 2}) },
			func() { s.Stats() },
			func() { s.Revoke("nobody") },
			func() {
				if a, err := s.try(s.request(t, ctx, "/poll?topic=a")); err == nil && a.status == 200 {
					s.try(s.request(t, ctx, "/poll"+query("client-id", idOf(t, a.body), "after", a.position(), "topic", "a")))
				}
			},
			func() {
				if resp, err := s.client.Do(s.request(t, ctx, "/poll/events?topic=a")); err == nil {
					io.ReadAll(io.LimitReader(resp.Body, 300))
					resp.Body.Close()
				}
			},
			func() {
				if c, _, err := s.trySocket(t, "/poll/ws?topic=a", ""); err == nil {
					c.Read(ctx)
					c.Read(ctx)
					c.CloseNow()
				}
			},
		} {
			all.Go(func() { // ends with ctx
				for ctx.Err() == nil {
					act()
				}
			})
		}
	}
	all.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			s.Reset()
			<-ticker.C
		}
	})
	all.Wait()
}

// Nothing that is logged contains a client id or a payload, whatever happens to a client.
func TestNothingLoggedNamesAClient(t *testing.T) {
	var log lockedBuffer
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		b.PollWait = time.Millisecond
		b.MaxMessage = 100
		b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
			if r.Header.Get("Authorization") == "no" {
				return gpoll.Grant{}, errors.New("no")
			}
			return gpoll.Grant{}, nil
		}
	}})
	var ids []string
	for range 20 {
		id, after := s.register(t)
		ids = append(ids, id)
		s.Send("the payload")
		s.get(t, "/poll"+query("client-id", id, "after", after))
		s.get(t, "/poll"+query("client-id", id, "after", "x"))
		s.get(t, "/poll"+query("client-id", id), "Authorization", "no")
		e := s.events(t, "/poll/events"+query("client-id", id))
		e.next(t)
		c := s.socket(t, "/poll/ws"+query("client-id", id), "")
		frame(t, c)
		c.CloseNow()
		c = s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q}}`, id))
		frame(t, c)
		say(t, c, id)
		frame(t, c)
		s.RemoveClient(id)
		closing(t, c)
	}
	s.Send("the payload" + strings.Repeat("x", 100))
	shutdown(t, s.Broadcaster)
	said := log.String()
	if said == "" {
		t.Error("nothing was logged")
	}
	for _, id := range ids {
		_, uuid, _ := strings.Cut(id, "$")
		if strings.Contains(said, uuid) || strings.Contains(said, uuid[:8]) || strings.Contains(said, gpoll.PublicID(id)) {
			t.Fatalf("client %s stands in the log:\n%s", id, said)
		}
	}
	if strings.Contains(said, "the payload") {
		t.Errorf("a payload stands in the log:\n%s", said)
	}
}

// A lockedBuffer takes the lines of a logger.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
