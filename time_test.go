package gpoll_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// What depends on time, on a bubble's clock.

func within(t *testing.T, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s after %v, want %v to %v", what, got, low, high)
	}
}

func TestPollWait(t *testing.T) {
	for _, wait := range []time.Duration{0, 3 * time.Second} {
		t.Run(wait.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { b.PollWait = wait }})
				nominal := wait
				if nominal == 0 {
					nominal = 25 * time.Second
				}
				id, after := s.register(t)
				waits := map[time.Duration]bool{}
				for range 10 {
					begun := time.Now()
					a := s.get(t, "/poll"+query("client-id", id, "after", after))
					if a.status != http.StatusNoContent || a.body != "" || a.position() != after {
						t.Errorf("plain poll: %d %q at %s", a.status, a.body, a.position())
					}
					within(t, "204", time.Since(begun), nominal*9/10, nominal*11/10)
					waits[time.Since(begun)] = true

					begun = time.Now()
					v := s.get(t, "/poll"+query("client-id", id, "after", after, "format", "json")).batch(t)
					if len(v.Messages) != 0 || v.Messages == nil || v.More || v.Position != after || v.ClientID != id {
						t.Errorf("JSON poll: %+v", v)
					}
					within(t, "empty batch", time.Since(begun), nominal*9/10, nominal*11/10)
				}
				if len(waits) < 3 {
					t.Errorf("no jitter: %v", waits)
				}
			})
		})
	}
}

// A quiet poll's Position moves on with what others get, so that it never falls out of the window.
func TestScannedPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { b.History = gpoll.Limits{Count: 10} }})
		id, after := s.register(t)
		for range 5 {
			for i := range 1000 {
				s.mustPublish(t, "busy", fmt.Sprint(i))
			}
			last := s.mustPublish(t, "busy", "last")
			a := s.get(t, "/poll"+query("client-id", id, "after", after, "topic", "quiet"))
			if a.status != http.StatusNoContent || a.header.Get("Gpoll-Gap") != "" || a.position() != last.String() {
				t.Fatalf("%d %q at %s, gap %q; want 204 at %s", a.status, a.body, a.position(), a.header.Get("Gpoll-Gap"), last)
			}
			after = a.position()
		}
	})
}

func TestClientTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		id, _ := s.register(t)
		s.Send("m")
		if a := s.get(t, "/poll"+query("client-id", id)); a.body != "m" {
			t.Fatalf("%d %q", a.status, a.body)
		}
		advance(58 * time.Second)
		s.Send("n")
		if a := s.get(t, "/poll"+query("client-id", id)); a.body != "n" {
			t.Errorf("58 s after the last attach: %d %s", a.status, a.body)
		}
		left := time.Now()
		for s.Stats().Clients > 0 && time.Since(left) < 2*time.Minute {
			advance(100 * time.Millisecond)
		}
		within(t, "the client expired", time.Since(left), 60*time.Second, 66*time.Second)
		if n := s.Stats().Dropped["expired"]; n != 1 {
			t.Errorf("Dropped[expired] = %d", n)
		}
		if a := s.get(t, "/poll"+query("client-id", id)); a.status != http.StatusNotFound {
			t.Errorf("after that: %d %s", a.status, a.body)
		}
	})
}

// An attach that lasts longer than ClientTTL keeps its client.
func TestAttachedDoesNotExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		stream := s.events(t, "/poll/events")
		stream.next(t)
		c := s.socket(t, "/poll/ws", "")
		frame(t, c)
		got := make(chan string, 1)
		go func() { // ends with the message; coder answers pings only while somebody reads
			_, data, err := c.Read(t.Context())
			got <- fmt.Sprint(string(data), err)
		}()
		events := make(chan event, 1)
		go func() {
			ev, _ := stream.read()
			events <- ev
		}()
		advance(10 * time.Minute)
		if st := s.Stats(); st.Clients != 2 {
			t.Fatalf("%+v", st)
		}
		s.Send("m")
		if g := <-got; g != "m<nil>" {
			t.Errorf("WebSocket: %s", g)
		}
		if ev := <-events; ev.data != "m" {
			t.Errorf("SSE: %+v", ev)
		}
	})
}

func TestAttachTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		id, _ := s.register(t)
		begun := time.Now()
		for s.Stats().Clients > 0 && time.Since(begun) < 2*time.Minute {
			advance(100 * time.Millisecond)
		}
		within(t, "the client that never attached expired", time.Since(begun), 15*time.Second, 18*time.Second)
		if a := s.get(t, "/poll"+query("client-id", id)); a.status != http.StatusNotFound {
			t.Errorf("after that: %d %s", a.status, a.body)
		}
	})
}

// A silent stream says every Heartbeat that it lives, with the scanned Position when that moved.
func TestHeartbeatSSE(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		conn := s.raw(t)
		io.WriteString(conn, "GET /poll/events?topic=quiet HTTP/1.1\r\nHost: gpoll.test\r\n\r\n")
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body := bufio.NewReader(resp.Body)
		beat := func() (block string) {
			for {
				line, err := body.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if block += line; line == "\n" {
					return block
				}
			}
		}
		if first := beat(); !strings.HasPrefix(first, "event: client-id\n") {
			t.Fatalf("first event %q", first)
		}
		last := time.Now()
		var moved gpoll.Position
		for i := range 8 {
			if i == 4 {
				moved = s.mustPublish(t, "busy", "x")
			}
			block := beat()
			if !strings.HasPrefix(block, "event: position\nid: ") || !strings.HasSuffix(block, "\ndata: \n\n") {
				t.Errorf("beat %d is %q", i, block)
			}
			if i == 4 && !strings.Contains(block, "id: "+moved.String()+"\n") {
				t.Errorf("beat %d is %q, want the Position %s", i, block, moved)
			}
			within(t, "a beat", time.Since(last), 13500*time.Millisecond, 16500*time.Millisecond)
			last = time.Now()
		}
		conn.Close()
		synctest.Wait()
	})
}

// A WebSocket whose peer answers no ping is ended PongTimeout after the ping.
func TestPongTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		conn := s.raw(t)
		io.WriteString(conn, "GET /poll/ws HTTP/1.1\r\nHost: gpoll.test\r\nConnection: Upgrade\r\n"+
			"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		synctest.Wait()
		if n := s.Stats().Attached["websocket"]; n != 1 {
			t.Fatalf("%d attached", n)
		}
		begun := time.Now()
		for s.Stats().Attached["websocket"] > 0 && time.Since(begun) < 2*time.Minute {
			advance(100 * time.Millisecond)
		}
		within(t, "ended", time.Since(begun), 23*time.Second, 28*time.Second)
		if n := s.Stats().Dropped["timeout"]; n != 1 {
			t.Errorf("Dropped = %v, want one timeout", s.Stats().Dropped)
		}
	})
}

// A Heartbeat below PongTimeout comes in its own time on a WebSocket as well, whether pongs are awaited or not.
func TestHeartbeatBelowPongTimeout(t *testing.T) {
	for _, answers := range []bool{true, false} {
		inBubble(t, fmt.Sprint("pongs ", answers), func(t *testing.T) {
			s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { b.Heartbeat = time.Second }})
			conn := s.raw(t)
			io.WriteString(conn, "GET /poll/ws HTTP/1.1\r\nHost: gpoll.test\r\nConnection: Upgrade\r\n"+
				"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			var pings atomic.Int64
			go func() { // ends with the connection
				var ping [2]byte
				r := bufio.NewReader(conn)
				http.ReadResponse(r, nil)
				head, _ := r.Peek(2)
				r.Discard(2 + int(head[1])) // the registration
				for {
					if _, err := io.ReadFull(r, ping[:]); err != nil || ping[0] != 0x89 {
						return
					}
					if pings.Add(1); answers {
						conn.Write([]byte{0x8a, 0x80, 0, 0, 0, 0})
					}
				}
			}()
			advance(10500 * time.Millisecond)
			if n := pings.Load(); n < 8 || n > 12 {
				t.Errorf("%d pings in 10.5 s", n)
			}
			advance(2 * time.Second)
			if alive := s.Stats().Attached["websocket"] == 1; alive != answers {
				t.Errorf("attached after 12.5 s: %v", alive)
			}
			conn.Close()
		})
	}
}

// SyncDelayMs gathers messages for that long.
func TestSyncDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { b.SyncDelayMs = 200 }})
		id, after := s.register(t)
		done := s.later(t, "/poll"+query("client-id", id, "after", after, "format", "json"))
		synctest.Wait()
		begun := time.Now()
		for i := range 10 {
			s.Send(fmt.Sprint(i))
			advance(10 * time.Millisecond)
		}
		v := (<-done).batch(t)
		within(t, "the batch came", time.Since(begun), 200*time.Millisecond, 210*time.Millisecond)
		got := v.payloads(t)
		for len(got) < 10 { // a poll may be answered while the routine still hands out
			v = s.get(t, "/poll"+query("client-id", id, "after", v.Position, "format", "json")).batch(t)
			got = append(got, v.payloads(t)...)
		}
		within(t, "all came", time.Since(begun), 200*time.Millisecond, 210*time.Millisecond)
		if got := strings.Join(got, ","); got != "0,1,2,3,4,5,6,7,8,9" {
			t.Errorf("got %s", got)
		}
	})
}

// A publisher that waits for room ends the gathering: SyncDelayMs does not bound the rate.
func TestSyncDelayGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true,
			broadcaster: func(b *gpoll.Broadcaster) { b.SyncDelayMs, b.RoutineBufferSize = 1000, 10 }})
		pipe, err := s.GetChannel(s.AddClient())
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		for i := range 50 {
			s.Send(fmt.Sprint(i))
		}
		within(t, "50 messages were taken", time.Since(begun), 0, 10*time.Millisecond)
		for i := range 50 {
			if got := <-pipe; got != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, got)
			}
		}
	})
}

// The first hello of gpoll.v1 must come within 5 s.
func TestHelloTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		begun := time.Now()
		code, reason := closing(t, c)
		within(t, "closed", time.Since(begun), 5*time.Second, 6*time.Second)
		if code != 1008 && code != 1002 {
			t.Errorf("close %d %q", code, reason)
		}
		if st := s.Stats(); st.Clients != 0 {
			t.Errorf("%d clients", st.Clients)
		}
	})
}

// When a Grant expires, Authorize is asked again with the same request. An error ends the attach, and a new Grant
// carries it on.
func TestGrantExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		var revoked atomic.Bool
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
				asked.Add(1)
				switch {
				case r.Header.Get("Authorization") != "Bearer alice":
					return gpoll.Grant{}, errors.New("no bearer")
				case r.Method != http.MethodGet || r.Host != "gpoll.test" || r.URL.Path == "" || r.RemoteAddr == "":
					return gpoll.Grant{}, errors.New("not the request it was")
				case r.Context().Err() != nil:
					return gpoll.Grant{}, errors.New("its context is over")
				case revoked.Load():
					return gpoll.Grant{}, errors.New("revoked")
				}
				return gpoll.Grant{User: "alice", Expires: time.Now().Add(time.Minute)}, nil
			}
		}})
		const bearer = "Bearer alice"
		stream := s.events(t, "/poll/events", "Authorization", bearer)
		stream.next(t)
		plain := s.socket(t, "/poll/ws", "", "Authorization", bearer)
		frame(t, plain)
		v1 := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, v1, `{"hello":{"authorization":"`+bearer+`"}}`)
		if w := frame(t, v1); !strings.HasPrefix(w, `{"welcome":`) {
			t.Fatalf("welcome %s", w)
		}

		type ending struct{ name, end string }
		ends := make(chan ending, 3)
		go func() { // each ends with its attach
			for {
				ev, err := stream.read()
				if err != nil || ev.name == "end" {
					ends <- ending{"sse", fmt.Sprint(ev.data, err)}
					return
				}
			}
		}()
		go func() {
			code, _ := closeFrame(plain)
			ends <- ending{"websocket", fmt.Sprint(int(code))}
		}()
		go func() {
			code, _ := closeFrame(v1)
			ends <- ending{"gpoll.v1", fmt.Sprint(int(code))}
		}()
		before := asked.Load()
		advance(5*time.Minute + 30*time.Second)
		if st := s.Stats(); st.Clients != 3 {
			t.Fatalf("%d clients after five renewals: %v", st.Clients, st.Dropped)
		}
		if n := asked.Load() - before; n < 12 || n > 18 {
			t.Errorf("Authorize was asked %d times in 5.5 minutes for 3 attaches, want 15", n)
		}
		revoked.Store(true)
		advance(time.Minute + 2*time.Second)
		for range 3 {
			select {
			case e := <-ends:
				if e.name == "sse" && !strings.Contains(e.end, `"unauthorized"`) || e.name != "sse" && e.end != "4001" {
					t.Errorf("%s ended with %s", e.name, e.end)
				}
			default:
				t.Fatalf("still attached: %v", s.Stats().Attached)
			}
		}
	})
}

func TestRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
				return gpoll.Grant{User: r.Header.Get("Authorization")}, nil
			}
		}})
		aliceID, _ := s.register(t, "Authorization", "alice")
		bobID, _ := s.register(t, "Authorization", "bob")
		poll := s.later(t, "/poll"+query("client-id", aliceID), "Authorization", "alice")
		bob := s.later(t, "/poll"+query("client-id", bobID), "Authorization", "bob")
		stream := s.events(t, "/poll/events", "Authorization", "alice")
		stream.next(t)
		c := s.socket(t, "/poll/ws", "", "Authorization", "alice")
		frame(t, c)
		synctest.Wait()

		begun := time.Now()
		if n := s.Revoke("alice"); n != 3 {
			t.Errorf("Revoke ended %d, want 3", n)
		}
		if a := <-poll; a.status != http.StatusUnauthorized {
			t.Errorf("poll: %d %s", a.status, a.body)
		}
		if ev := stream.next(t); ev.name != "end" || !strings.Contains(ev.data, `"unauthorized"`) {
			t.Errorf("SSE: %+v", ev)
		}
		if code, reason := closing(t, c); code != 4001 {
			t.Errorf("WebSocket: %d %q", code, reason)
		}
		within(t, "all ended", time.Since(begun), 0, time.Second)
		s.Send("m")
		if a := <-bob; a.body != "m" {
			t.Errorf("another user: %d %q", a.status, a.body)
		}
		if n := s.Revoke("nobody"); n != 0 {
			t.Errorf("Revoke of nobody: %d", n)
		}
	})
}

// An id belongs to the user who registered it: for another it is unknown.
func TestIDOfAnotherUser(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
			return gpoll.Grant{User: r.Header.Get("Authorization")}, nil
		}
	}})
	id, after := s.register(t, "Authorization", "alice")
	s.Send("m")
	unknown := s.get(t, "/poll"+query("client-id", "0$6ba7b811-9dad-41d1-80b4-00c04fd430c8"), "Authorization", "bob")
	for _, by := range gets {
		for _, user := range []string{"bob", ""} {
			for _, cursor := range []string{"", after} {
				pairs := []string{"client-id", id}
				if cursor != "" {
					pairs = append(pairs, "after", cursor)
				}
				header := by.header
				if user != "" {
					header = append([]string{"Authorization", user}, header...)
				}
				if strings.HasPrefix(by.name, "websocket") {
					c := s.socket(t, by.path+query(pairs...), "", dropHandshake(header)...)
					if code, reason := closing(t, c); code != 4010 || reason != "unknown-client" {
						t.Errorf("%s by %q: close %d %q", by.name, user, code, reason)
					}
					continue
				}
				if by.eventSource() {
					continue
				}
				a := s.get(t, by.path+query(pairs...), header...)
				if a.status != unknown.status || a.body != unknown.body {
					t.Errorf("%s by %q: %d %s", by.name, user, a.status, a.body)
				}
			}
		}
	}
	for _, path := range []string{"/poll", "/poll/events"} {
		if a := s.post(t, path, id, "{}", "Authorization", "bob"); a.status != http.StatusNotFound {
			t.Errorf("POST %s: %d %s", path, a.status, a.body)
		}
	}
	c := s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q,"authorization":"bob"}}`, id))
	if code, _ := closing(t, c); code != 4010 {
		t.Errorf("hello: close %d, want 4010", code)
	}
	if a := s.get(t, "/poll"+query("client-id", id), "Authorization", "alice"); a.body != "m" {
		t.Errorf("the owner: %d %q", a.status, a.body)
	}
}

// Shutdown tells every waiting client to come back, with retry hints spread over ShutdownSpread. Then it refuses
// everything, and waits.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		const each = 20
		hints := make(chan int64, 3*each)
		for range each {
			id, _ := s.register(t)
			go func() { // each ends by Shutdown
				a := s.get(t, "/poll"+query("client-id", id))
				if a.status != http.StatusServiceUnavailable || a.code(t) != "shutdown" {
					t.Errorf("poll: %d %s", a.status, a.body)
				}
				hints <- retryOf(t, a.body)
			}()
			stream := s.events(t, "/poll/events")
			stream.next(t)
			go func() {
				ev, err := stream.read()
				if err != nil || ev.name != "end" || !strings.Contains(ev.data, `"shutdown"`) {
					t.Errorf("SSE: %+v %v", ev, err)
				}
				if _, err := stream.read(); err != io.EOF {
					t.Errorf("SSE after the end: %v", err)
				}
				if fmt.Sprint(retryOf(t, ev.data)) != ev.retry {
					t.Errorf("SSE: retry %s beside %s", ev.retry, ev.data)
				}
				hints <- retryOf(t, ev.data)
			}()
			c := s.socket(t, "/poll/ws", "")
			frame(t, c)
			go func() {
				code, reason := closeFrame(c)
				var ms int64
				if _, err := fmt.Sscanf(reason, "shutdown;retry_ms=%d", &ms); err != nil || code != 1001 {
					t.Errorf("WebSocket: close %d %q", code, reason)
				}
				hints <- ms
			}()
		}
		synctest.Wait()
		if st := s.Stats(); st.Attached["long-poll"] != each || st.Attached["sse"] != each ||
			st.Attached["websocket"] != each {
			t.Fatalf("attached: %v", st.Attached)
		}
		begun := time.Now()
		shutdown(t, s.Broadcaster)
		within(t, "Shutdown returned", time.Since(begun), 0, 5*time.Second)
		different := map[int64]bool{}
		for range 3 * each {
			ms := <-hints
			different[ms] = true
			if ms < 1000 || ms > 10_000 {
				t.Errorf("retry hint %d ms, want 1 to 10 s", ms)
			}
		}
		if len(different) < 2*each {
			t.Errorf("only %d different hints among %d", len(different), 3*each)
		}

		if st := s.Stats(); st.Clients != 0 || st.Routines != 0 ||
			st.Attached["long-poll"]+st.Attached["sse"]+st.Attached["websocket"]+st.Attached["channel"] != 0 {
			t.Errorf("after Shutdown: %+v", st)
		}
		if _, err := s.Publish(t.Context(), gpoll.Message{Data: []byte("x")}); !errors.Is(err, gpoll.ErrClosed) {
			t.Errorf("Publish after Shutdown: %v", err)
		}
		s.Send("x") // logged, and no panic
		for _, by := range gets {
			a := s.get(t, by.path, by.header...)
			if a.status != by.told(http.StatusServiceUnavailable) || !strings.Contains(a.body, `"shutdown"`) {
				t.Errorf("%s after Shutdown: %d %s", by.name, a.status, a.body)
			}
		}
		if id, _ := s.AddClient(); id != "" {
			t.Errorf("AddClient after Shutdown: %q", id)
		}
		shutdown(t, s.Broadcaster) // again: nothing to do
	})
}

// An epoch's window also ends by age.
func TestHistoryAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true,
			broadcaster: func(b *gpoll.Broadcaster) { b.History = gpoll.Limits{Age: time.Minute} }})
		id, after := s.register(t)
		first := s.mustPublish(t, "", "old")
		if a := s.get(t, "/poll"+query("client-id", id, "after", after)); a.body != "old" {
			t.Fatalf("%d %q", a.status, a.body)
		}
		advance(50 * time.Second)
		s.mustPublish(t, "", "young")
		advance(20 * time.Second)
		id, _ = s.register(t)
		a := s.get(t, "/poll"+query("client-id", id, "after", after))
		want := fmt.Sprintf("%s..%s;expired", first, first)
		if a.body != "young" || a.header.Get("Gpoll-Gap") != want {
			t.Errorf("%q with gap %q, want \"young\" with %q", a.body, a.header.Get("Gpoll-Gap"), want)
		}
	})
}

// If Authorize fails by time-out for an open attach, the attach stays open and Authorize is asked again for 30 s.
func TestGrantExpiresDuringOutage(t *testing.T) {
	for _, c := range []struct {
		name   string
		outage time.Duration
		kept   bool
	}{{"20 s", 20 * time.Second, true}, {"for ever", time.Hour, false}} {
		inBubble(t, c.name, func(t *testing.T) {
			var down atomic.Int64 // until when, in Unix seconds
			s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
				b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
					if time.Now().Unix() < down.Load() {
						return gpoll.Grant{}, fmt.Errorf("asking the directory: %w", context.DeadlineExceeded)
					}
					return gpoll.Grant{User: "alice", Expires: time.Now().Add(time.Minute)}, nil
				}
			}})
			stream := s.events(t, "/poll/events")
			stream.next(t)
			down.Store(time.Now().Add(time.Minute - time.Second + c.outage).Unix())
			begun := time.Now()
			events := make(chan event, 1)
			go func() { // ends with the message or the end of the stream
				ev, _ := stream.read()
				events <- ev
			}()
			advance(100 * time.Second)
			s.Send("m")
			ev := <-events
			if c.kept && ev.data != "m" {
				t.Errorf("%+v after %v, want the message", ev, time.Since(begun))
			}
			if !c.kept && (ev.name != "end" || !strings.Contains(ev.data, `"unavailable"`)) {
				t.Errorf("%+v, want the end", ev)
			}
		})
	}
}

// A poll does not outlive its Grant: it is answered, and the next one asks Authorize.
func TestPollEndsWithGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
				return gpoll.Grant{Expires: time.Now().Add(5 * time.Second)}, nil
			}
		}})
		id, after := s.register(t)
		begun := time.Now()
		if a := s.get(t, "/poll"+query("client-id", id, "after", after)); a.status != http.StatusNoContent &&
			a.status != http.StatusUnauthorized {
			t.Errorf("%d %s", a.status, a.body)
		}
		within(t, "answered", time.Since(begun), 4*time.Second, 6*time.Second)
	})
}
