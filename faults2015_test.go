package gpoll_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// The six faults of the 2015 package, each under its own name.

// There, Send("quit") ended the process.
func TestFault2015QuitIsAMessage(t *testing.T) {
	s := start(t, setup{})
	id, _ := s.register(t)
	for _, payload := range []string{"quit", "QUIT", "kill", "exit", "", "\x00", "close", "cleanup", `{"leave":true}`,
		"client-id=0", "$quit", "quit\n"} {
		s.Send(payload)
		a := s.get(t, "/poll"+query("client-id", id))
		if a.status != http.StatusOK || a.body != payload {
			t.Errorf("Send(%q): the poll got %d %q", payload, a.status, a.body)
		}
	}
}

// There, the message that met an aborted poll was lost.
func TestFault2015AbortedPollLosesNothing(t *testing.T) {
	t.Run("aborted before the message", func(t *testing.T) {
		s := start(t, setup{})
		id, _ := s.register(t)
		for i := range 20 {
			s.awaitAttached(t, "long-poll", 0) // the last poll, whose answer has come, may not have ended yet
			s.abortPoll(t, "/poll"+query("client-id", id), func() { s.awaitAttached(t, "long-poll", 1) })
			s.awaitAttached(t, "long-poll", 0)
			want := fmt.Sprint("message ", i)
			s.Send(want)
			if a := s.get(t, "/poll"+query("client-id", id)); a.body != want {
				t.Fatalf("after an aborted poll: %d %q, want %q", a.status, a.body, want)
			}
		}
	})
	// A poll that brings its cursor loses nothing whenever it is cut.
	t.Run("aborted beside the message", func(t *testing.T) {
		s := start(t, setup{})
		id, after := s.register(t)
		for i := range 100 {
			want := fmt.Sprint("message ", i)
			s.abortPoll(t, "/poll"+query("client-id", id, "after", after), func() { s.Send(want) })
			a := s.get(t, "/poll"+query("client-id", id, "after", after))
			if a.status == http.StatusConflict { // the aborted poll reached its handler later: the client comes back
				a = s.get(t, "/poll"+query("client-id", id, "after", after))
			}
			if a.status != http.StatusOK || a.body != want || a.header.Get("Gpoll-Gap") != "" {
				t.Fatalf("after an aborted poll: %d %q, gap %q, want %q", a.status, a.body, a.header.Get("Gpoll-Gap"), want)
			}
			after = a.position()
		}
	})
}

// abortPoll sends a poll and goes away once meanwhile has returned. The poll may be answered first.
func (s *server) abortPoll(t *testing.T, path string, meanwhile func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	r := s.request(t, ctx, path)
	go func() { // ends with the request
		defer close(done)
		s.try(r)
	}()
	meanwhile()
	cancel()
	<-done
}

// There, 100 aborted polls left 97 goroutines.
func TestFault2015AbortedPollsLeaveNoGoroutines(t *testing.T) {
	s := start(t, setup{})
	id, _ := s.register(t)
	s.client.CloseIdleConnections()
	await(t, "an idle server", func() bool { return s.Stats().Attached["long-poll"] == 0 })
	before := runtime.NumGoroutine()
	for range 100 {
		s.abortPoll(t, "/poll"+query("client-id", id), func() { s.awaitAttached(t, "long-poll", 1) })
		s.awaitAttached(t, "long-poll", 0)
	}
	s.client.CloseIdleConnections()
	await(t, fmt.Sprintf("at most %d goroutines", before+2), func() bool { return runtime.NumGoroutine() <= before+2 })
}

// There, 5,000 bare GETs made 5,000 clients, each with its buffer, for ever.
func TestFault2015BareGetsMakeNoBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gpoll.NewBroadcaster()
		b.RegisterRate = -1
		b.ClientBufferSize = 100_000 // 1.6 MB for each channel that is made
		defer shutdown(t, b)
		goroutines, heap := runtime.NumGoroutine(), liveHeap()
		for i := range 5000 {
			w := httptest.NewRecorder()
			b.HandleRequests(w, httptest.NewRequest(http.MethodGet, "/poll", nil))
			if w.Code != http.StatusOK {
				t.Fatalf("bare GET %d: %d %s", i, w.Code, w.Body)
			}
		}
		synctest.Wait()
		st := b.Stats()
		if st.Clients != 5000 || st.Routines != 5 {
			t.Errorf("%d clients on %d routines, want 5000 on 5", st.Clients, st.Routines)
		}
		if n := runtime.NumGoroutine() - goroutines; n > st.Routines+5 {
			t.Errorf("%d goroutines for 5,000 clients that never attached", n)
		}
		if grown := liveHeap() - heap; grown > 5000*2048 {
			t.Errorf("%d bytes of heap for each client that never attached", grown/5000)
		}
		advance(20 * time.Second) // AttachTimeout is 15 s
		if st := b.Stats(); st.Clients != 0 || st.Routines != 0 {
			t.Errorf("20 s later: %d clients, %d routines; want none", st.Clients, st.Routines)
		}
	})

	t.Run("the default rate", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := gpoll.NewBroadcaster()
			defer shutdown(t, b)
			registered, limited := 0, 0
			for range 5000 {
				w := httptest.NewRecorder()
				b.HandleRequests(w, httptest.NewRequest(http.MethodGet, "/poll", nil))
				switch w.Code {
				case http.StatusOK:
					registered++
				case http.StatusTooManyRequests:
					limited++
				}
			}
			if registered != 2000 || limited != 3000 {
				t.Errorf("5,000 bare GETs at once: %d registered, %d limited; want 2000 and 3000", registered, limited)
			}
		})
	})
}

// liveHeap returns the bytes in use after a collection.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func shutdown(t testing.TB, b *gpoll.Broadcaster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// advance lets d of a bubble's time pass and waits until everybody has done what is due.
func advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// There, registering beside a Send was a data race. The race detector is half of this test.
func TestFault2015RegisterBesideSend(t *testing.T) {
	const senders, registrars, each = 4, 4, 200
	b := gpoll.NewBroadcaster()
	b.RegisterRate = -1
	b.ClientBufferSize = 2 * senders * each
	b.RoutineMaxClients = 50
	defer shutdown(t, b)

	var sending sync.WaitGroup
	for i := range senders {
		sending.Go(func() {
			for n := range each {
				b.Send(fmt.Sprintf("%d-%d", i, n))
			}
		})
	}
	var registering sync.WaitGroup
	type consumer struct {
		id   string
		pipe chan string
	}
	consumers := make([][]consumer, registrars)
	for i := range registrars {
		registering.Go(func() {
			for n := range each {
				if n%4 == 0 {
					w := httptest.NewRecorder()
					b.HandleRequests(w, httptest.NewRequest(http.MethodGet, "/poll?client-id=0", nil))
					if w.Code != http.StatusOK {
						t.Errorf("register: %d %s", w.Code, w.Body)
					}
				}
				id, routine := b.AddClient()
				pipe, err := b.GetChannel(id, routine)
				if err != nil {
					t.Errorf("GetChannel: %v", err)
					return
				}
				if n%2 == 0 {
					b.RemoveClient(id)
					continue
				}
				consumers[i] = append(consumers[i], consumer{id, pipe})
			}
		})
	}
	sending.Wait()
	registering.Wait()
	b.Send("last")

	// Each consumer got, of each sender, a suffix without a hole.
	for _, list := range consumers {
		for _, c := range list {
			next := map[string]int{}
			for m := range c.pipe {
				if m == "last" {
					break
				}
				sender, number, _ := strings.Cut(m, "-")
				var n int
				fmt.Sscan(number, &n)
				if want, seen := next[sender]; seen && n != want {
					t.Fatalf("client %s: %s after %s-%d", gpoll.PublicID(c.id), m, sender, want-1)
				}
				next[sender] = n + 1
			}
			for sender, n := range next {
				if n != each {
					t.Fatalf("client %s: sender %s ended at %d of %d", gpoll.PublicID(c.id), sender, n, each)
				}
			}
		}
	}
}

// There, a full buffer lost messages without notice.
func TestFault2015FullBufferSaysSo(t *testing.T) {
	small := func(b *gpoll.Broadcaster) {
		b.ClientBufferSize = 5
	}
	fill := func(s *server, n int) {
		for i := range n {
			s.Send(fmt.Sprint(i))
		}
	}

	t.Run("plain poll without a cursor: removed, and told", func(t *testing.T) {
		s := start(t, setup{broadcaster: small})
		id, _ := s.register(t)
		s.Send("first")
		if a := s.get(t, "/poll"+query("client-id", id)); a.body != "first" {
			t.Fatalf("%d %q", a.status, a.body)
		}
		s.awaitTransport(t, id, "") // the handler may be a moment behind its answer
		fill(s, 50)
		await(t, "a removal by buffer-full", func() bool { return s.Stats().Dropped["buffer-full"] == 1 })
		if a := s.get(t, "/poll"+query("client-id", id)); a.status != http.StatusNotFound || a.code(t) != "unknown-client" {
			t.Errorf("the poll after: %d %s", a.status, a.body)
		}
	})

	t.Run("plain poll without a cursor: a buffer that is not full", func(t *testing.T) {
		s := start(t, setup{broadcaster: small})
		id, _ := s.register(t)
		s.Send("first")
		s.get(t, "/poll"+query("client-id", id))
		s.awaitTransport(t, id, "")
		fill(s, 4)
		for i := range 4 {
			if a := s.get(t, "/poll"+query("client-id", id)); a.body != fmt.Sprint(i) {
				t.Fatalf("message %d: %d %q", i, a.status, a.body)
			}
		}
	})

	t.Run("poll with a cursor: reads on from the log", func(t *testing.T) {
		s := start(t, setup{broadcaster: small})
		id, after := s.register(t)
		fill(s, 50)
		for i := range 50 {
			a := s.get(t, "/poll"+query("client-id", id, "after", after))
			if a.body != fmt.Sprint(i) || a.header.Get("Gpoll-Gap") != "" {
				t.Fatalf("message %d: %d %q, gap %q", i, a.status, a.body, a.header.Get("Gpoll-Gap"))
			}
			after = a.position()
		}
	})

	t.Run("poll with a cursor behind the window: the gap first", func(t *testing.T) {
		s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
			small(b)
			b.History = gpoll.Limits{Count: 10}
		}})
		id, after := s.register(t)
		send := s.witness(t)
		for i := range 50 {
			send(fmt.Sprint(i))
		}
		from, err := gpoll.ParsePosition(after)
		if err != nil {
			t.Fatal(err)
		}
		a := s.get(t, "/poll"+query("client-id", id, "after", after))
		gap := fmt.Sprintf("%s..%s;evicted", gpoll.Position{Epoch: from.Epoch, Seq: from.Seq + 1},
			gpoll.Position{Epoch: from.Epoch, Seq: from.Seq + 40})
		if a.body != "40" || a.header.Get("Gpoll-Gap") != gap {
			t.Errorf("got %q with gap %q, want \"40\" with %q", a.body, a.header.Get("Gpoll-Gap"), gap)
		}
	})

	t.Run("attached WebSocket: lags and misses nothing", func(t *testing.T) {
		s := start(t, setup{broadcaster: small})
		c := s.socket(t, "/poll/ws", "")
		idOf(t, frame(t, c))
		big := strings.Repeat("x", 60_000)
		for i := range 100 {
			s.Send(fmt.Sprint(i, " ", big))
		}
		for i := range 100 {
			if got, _, _ := strings.Cut(frame(t, c), " "); got != fmt.Sprint(i) {
				t.Fatalf("message %d: got %s", i, got)
			}
		}
	})

	t.Run("channel: closed, and Err says so", func(t *testing.T) {
		b := gpoll.NewBroadcaster()
		small(b)
		b.History = gpoll.Limits{Count: 10}
		defer shutdown(t, b)
		id, routine := b.AddClient()
		pipe, err := b.GetChannel(id, routine)
		if err != nil {
			t.Fatal(err)
		}
		client, ok := b.Client(id)
		if !ok {
			t.Fatal("Client: unknown")
		}
		for i := range 200 {
			b.Send(fmt.Sprint(i))
		}
		want := 0
		for m := range pipe {
			if m != fmt.Sprint(want) {
				t.Fatalf("got %s, want %d", m, want)
			}
			want++
		}
		if want == 200 || client.Err() == nil {
			t.Errorf("the channel ended after %d of 200 messages with Err %v", want, client.Err())
		}
	})
}

// The tests of the 2015 package expect of a client that never fetches: it is gone once its buffer is full, and not
// before.
func TestSeedClientThatNeverFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, size := range []int{2, 5, 100} {
			s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { b.ClientBufferSize = size }})
			id, routine := s.AddClient()
			other, _ := s.AddClient() // fetches in time
			for i := range size {
				s.Send(fmt.Sprint(i))
			}
			synctest.Wait()
			if n := s.Stats().Clients; n != 2 {
				t.Fatalf("a buffer of %d that is just full: %d clients, want 2", size, n)
			}
			fetched, err := s.GetChannel(other, routine)
			if err != nil {
				t.Fatal(err)
			}
			s.Send("one more")
			synctest.Wait()
			if _, err := s.GetChannel(id, routine); !errors.Is(err, gpoll.ErrUnknownClient) {
				t.Errorf("a buffer of %d: GetChannel: %v", size, err)
			}
			if st := s.Stats(); st.Clients != 1 || st.Dropped["buffer-full"] != 1 {
				t.Errorf("a buffer of %d: %d clients, dropped %v", size, st.Clients, st.Dropped)
			}
			for i := range size {
				if got := <-fetched; got != fmt.Sprint(i) {
					t.Fatalf("a buffer of %d, fetched in time: %q, want %d", size, got, i)
				}
			}
			if got := <-fetched; got != "one more" {
				t.Errorf("a buffer of %d, fetched in time: %q", size, got)
			}

			// As a browser's, with a position, it needs no buffer once it has been here.
			id, routine = s.AddClient()
			whole := fmt.Sprintf("%d$%s", routine, id)
			after := s.mustPublish(t, "", "x").String()
			s.Send("y")
			if a := s.get(t, "/poll"+query("client-id", whole, "after", after)); a.body != "y" {
				t.Errorf("%d %q", a.status, a.body)
			}
			for range 2 * size {
				s.Send("z")
			}
			synctest.Wait()
			if a := s.get(t, "/poll"+query("client-id", whole, "after", after)); a.body != "y" {
				t.Errorf("%d %q", a.status, a.body)
			}
			// One that registered over HTTP may bring a position: it has its AttachTimeout.
			id, after = s.register(t)
			for range 2 * size {
				s.Send("late")
			}
			synctest.Wait()
			if a := s.get(t, "/poll"+query("client-id", id, "after", after)); a.body != "late" {
				t.Errorf("registered over HTTP: %d %q", a.status, a.body)
			}
		}
	})
}
