package gpoll_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// Calls of GetChannel that come together return the one channel of the client.
func TestGetChannelTogether(t *testing.T) {
	b := gpoll.NewBroadcaster()
	defer shutdown(t, b)
	for i := range 300 {
		id, routine := b.AddClient()
		var pipes [4]chan string
		var all sync.WaitGroup
		for k := range pipes {
			all.Go(func() {
				var err error
				if pipes[k], err = b.GetChannel(id, routine); err != nil {
					t.Errorf("GetChannel: %v", err)
				}
			})
		}
		all.Wait()
		for k := range pipes {
			if pipes[k] != pipes[0] {
				t.Fatalf("client %d: call %d returned another channel", i, k)
			}
		}
		c, _ := b.Client(id)
		if err := c.Err(); err != nil {
			t.Fatalf("client %d: Err is %v while its channel is open", i, err)
		}
		b.Send("m")
		if got, open := <-pipes[0]; got != "m" || !open {
			t.Fatalf("client %d: %q %v", i, got, open)
		}
		b.RemoveClient(id)
	}
}

// Err is about the last channel: nil while that is open, and its own end afterwards.
func TestErrOfTheNextChannel(t *testing.T) {
	s := start(t, setup{memory: false})
	id, routine := s.AddClient()
	c, _ := s.Client(id)
	code := func() string {
		if end, ok := errors.AsType[*gpoll.EndError](c.Err()); ok {
			return end.Code
		}
		return ""
	}
	for range 2 {
		pipe, err := s.GetChannel(id, routine)
		if err != nil {
			t.Fatal(err)
		}
		if c.Err() != nil {
			t.Errorf("an open channel: Err is %v", c.Err())
		}
		ws := s.socket(t, "/poll/ws"+query("client-id", strconv.Itoa(routine)+"$"+id), "")
		frame(t, ws)
		for range pipe {
		}
		if code() != "superseded" {
			t.Errorf("superseded: Err is %v", c.Err())
		}
	}
	pipe, err := s.GetChannel(id, routine)
	if err != nil {
		t.Fatal(err)
	}
	s.RemoveClient(id)
	for range pipe {
	}
	if code() != "removed" {
		t.Errorf("removed: Err is %v", c.Err())
	}
}

// Client returns nil beside false.
func TestClientThatIsNone(t *testing.T) {
	b := gpoll.NewBroadcaster()
	defer shutdown(t, b)
	id, routine := b.AddClient()
	for _, other := range []string{
		strconv.Itoa(routine+1) + "$" + id, "", "0$", id[1:], strings.ToUpper(id), gpoll.PublicID(id),
	} {
		if c, ok := b.Client(other); c != nil || ok {
			t.Errorf("Client(%q): %v, %v", other, c, ok)
		}
	}
	if c, ok := b.Client(strconv.Itoa(routine) + "$" + id); c == nil || !ok {
		t.Errorf("the client itself: %v, %v", c, ok)
	}
}

// A lateBroker lets a test say when it can be reached and when it lets go.
type lateBroker struct {
	*gpoll.MemoryBroker
	windows atomic.Int64
	window  func(context.Context) error // nil: at once
	stop    func()                      // called before a subscription ends
	stopped atomic.Int64
	closed  atomic.Int64
}

func (b *lateBroker) Window(ctx context.Context) (before, newest gpoll.Position, err error) {
	b.windows.Add(1)
	if b.window != nil {
		if err := b.window(ctx); err != nil {
			return before, newest, err
		}
	}
	return b.MemoryBroker.Window(ctx)
}

func (b *lateBroker) Subscribe(ctx context.Context, after gpoll.Position, to gpoll.Subscriber) (func(), error) {
	stop, err := b.MemoryBroker.Subscribe(ctx, after, to)
	return func() {
		if b.stop != nil {
			b.stop()
		}
		stop()
		b.stopped.Add(1)
	}, err
}

func (b *lateBroker) Close(ctx context.Context) error {
	b.closed.Add(1)
	return b.MemoryBroker.Close(ctx)
}

// A second Shutdown returns when the first has let go of the broker, or with its own context.
func TestShutdownTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		letGo := make(chan struct{})
		broker := &lateBroker{MemoryBroker: gpoll.NewMemoryBroker(), stop: func() { <-letGo }}
		b := gpoll.NewBroadcaster()
		b.Broker = broker
		b.Send("m")
		returned := make(chan error, 2)
		for range 2 {
			go func() { returned <- b.Shutdown(context.Background()) }() // ends when letGo is closed
		}
		synctest.Wait()
		if len(returned) != 0 {
			t.Errorf("a Shutdown returned %v before the broker was let go of", <-returned)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a third Shutdown: %v", err)
		}
		close(letGo)
		for range 2 {
			if err := <-returned; err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		}
		if n := broker.stopped.Load(); n != 1 {
			t.Errorf("stopped %d times", n)
		}
	})
}

// A Broker that is shared outlives the Shutdown of one Broadcaster, which gets nothing more of it.
func TestShutdownOfASharedBroker(t *testing.T) {
	broker := &lateBroker{MemoryBroker: gpoll.NewMemoryBroker()}
	var two [2]*gpoll.Broadcaster
	for i := range two {
		two[i] = gpoll.NewBroadcaster()
		two[i].Broker = broker
		alarm(t, two[i])
	}
	pipe, err := two[1].GetChannel(two[1].AddClient())
	if err != nil {
		t.Fatal(err)
	}
	two[0].Send("first")
	shutdown(t, two[0])
	two[1].Send("second")
	if _, err := two[0].Publish(t.Context(), gpoll.Message{}); !errors.Is(err, gpoll.ErrClosed) {
		t.Errorf("Publish of the one that is shut down: %v", err)
	}
	for _, want := range []string{"first", "second"} {
		if got := <-pipe; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if st := two[0].Stats(); st.WindowHigh != 1 {
		t.Errorf("the one that is shut down has read to %d", st.WindowHigh)
	}
	shutdown(t, two[1])
	if broker.closed.Load() != 0 || broker.stopped.Load() != 2 {
		t.Errorf("closed %d times, stopped %d times; want 0 and 2", broker.closed.Load(), broker.stopped.Load())
	}
	publishTo(t, broker, gpoll.Message{})
	// The broker that a Broadcaster made itself is closed with it.
	own := gpoll.NewBroadcaster()
	own.Send("m")
	made := own.Broker
	shutdown(t, own)
	if _, err := made.Publish(t.Context(), gpoll.Record{}); !errors.Is(err, gpoll.ErrClosed) {
		t.Errorf("the broker of a Broadcaster that is shut down: %v", err)
	}
}

// A broker that cannot be reached is tried again at the next use, by one goroutine for all that wait; a mount does
// not panic for it.
func TestFailedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("no route to the broker")
		var reachable atomic.Bool
		broker := &lateBroker{MemoryBroker: gpoll.NewMemoryBroker()}
		broker.window = func(context.Context) error {
			if reachable.Load() {
				return nil
			}
			time.Sleep(time.Second)
			return down
		}
		b := gpoll.NewBroadcaster()
		b.Broker = broker
		mux := http.NewServeMux()
		b.ListenAndBroadcast("/poll", mux)
		defer shutdown(t, b)
		get := func() int {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/poll", nil))
			return w.Code
		}
		before := broker.windows.Load()
		begun := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := b.Publish(t.Context(), gpoll.Message{}); !errors.Is(err, down) {
					t.Errorf("Publish: %v", err)
				}
			})
			all.Go(func() {
				if code := get(); code != http.StatusInternalServerError {
					t.Errorf("registration: %d", code)
				}
			})
		}
		all.Wait()
		if n, took := broker.windows.Load()-before, time.Since(begun); n != 1 || took != time.Second {
			t.Errorf("40 uses at once tried %d times and took %v; want once, 1s", n, took)
		}
		if _, err := b.Publish(t.Context(), gpoll.Message{}); !errors.Is(err, down) {
			t.Errorf("Publish: %v", err)
		}
		reachable.Store(true)
		if code := get(); code != http.StatusOK {
			t.Errorf("registration: %d", code)
		}
		if _, err := b.Publish(t.Context(), gpoll.Message{}); err != nil {
			t.Errorf("Publish: %v", err)
		}
		if n := broker.windows.Load() - before; n != 3 {
			t.Errorf("tried %d times, want 3", n)
		}
	})
}

// Shutdown does not need the broker. It gives up an attempt to reach the broker, and everything after it is refused as
// after any Shutdown.
func TestShutdownWithoutABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &lateBroker{MemoryBroker: gpoll.NewMemoryBroker()}
		broker.window = func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		b := gpoll.NewBroadcaster()
		b.Broker = broker
		failed := make(chan error, 1)
		go func() { // ends by Shutdown
			_, err := b.Publish(context.Background(), gpoll.Message{})
			failed <- err
		}()
		synctest.Wait()
		begun := time.Now()
		shutdown(t, b)
		if took := time.Since(begun); took != 0 {
			t.Errorf("Shutdown took %v", took)
		}
		if err := <-failed; err == nil {
			t.Error("Publish returned nil")
		}
		if _, err := b.Publish(t.Context(), gpoll.Message{}); !errors.Is(err, gpoll.ErrClosed) {
			t.Errorf("Publish after Shutdown: %v", err)
		}
		w := httptest.NewRecorder()
		b.HandleRequests(w, httptest.NewRequest(http.MethodGet, "/poll", nil))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Gpoll-Error") != "shutdown" {
			t.Errorf("registration after Shutdown: %d %s", w.Code, w.Body)
		}
		if id, routine := b.AddClient(); id != "" || routine != -1 {
			t.Errorf("AddClient after Shutdown: %q %d", id, routine)
		}
		b.Stats()
		b.Reset()
		b.ListenAndBroadcast("/poll", http.NewServeMux())
	})
}
