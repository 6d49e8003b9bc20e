package gpoll_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/corvuscrypto/gpoll"
)

// A scriptedBroker delivers the records that the test gives it, at the Positions that the test gives. It keeps the
// records in history.
type scriptedBroker struct {
	before  gpoll.Position
	fail    error
	stopped bool
	closed  bool
	mu      sync.Mutex
	deliver func(gpoll.Message)
	to      gpoll.Subscriber
	history func(ctx context.Context, after gpoll.Position, limit int) ([]gpoll.Record, error) // nil: nothing
	added   []gpoll.Record                                                                     // by Publish
}

func (b *scriptedBroker) Publish(_ context.Context, r gpoll.Record) (gpoll.Position, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.added = append(b.added, r)
	return gpoll.Position{}, b.fail
}

func (b *scriptedBroker) Subscribe(_ context.Context, _ gpoll.Position, to gpoll.Subscriber) (stop func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to = to
	b.deliver = func(m gpoll.Message) { to.Deliver([]gpoll.Record{recordOf(m)}) }
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.stopped = true
	}, nil
}

func (b *scriptedBroker) History(ctx context.Context, after gpoll.Position, limit int) ([]gpoll.Record, error) {
	if b.history == nil {
		return nil, nil
	}
	return b.history(ctx, after, limit)
}

func (b *scriptedBroker) Window(context.Context) (before, newest gpoll.Position, err error) {
	return b.before, b.before, nil
}

func (b *scriptedBroker) Close(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// at delivers a message that says its own Position.
func (b *scriptedBroker) at(epoch, seq uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliver(said(epoch, seq))
}

// said is a message that says its own Position.
func said(epoch, seq uint64) gpoll.Message {
	return gpoll.Message{Position: gpoll.Position{Epoch: epoch, Seq: seq}, Data: fmt.Append(nil, epoch, "-", seq)}
}

// recordOf writes a message as it stands in a broker, in form 1, whatever it says.
func recordOf(m gpoll.Message) gpoll.Record {
	kind, name := byte(0), ""
	switch {
	case m.Topic != "":
		kind, name = 1, m.Topic
	case m.To.Client() != "":
		kind, name = 2, m.To.Client()
	case m.To.User() != "":
		kind, name = 3, m.To.User()
	}
	b := append([]byte{1, kind, byte(len(name))}, name...)
	b = binary.AppendUvarint(b, uint64(len(m.Except)))
	for _, id := range m.Except {
		b = append(append(b, byte(len(id))), id...)
	}
	return gpoll.Record{Kind: gpoll.RecordMessage, Position: m.Position, ID: m.ID, Bytes: append(b, m.Data...)}
}

// publishTo publishes a message past every Broadcaster.
func publishTo(tb testing.TB, b gpoll.Broker, m gpoll.Message) gpoll.Position {
	tb.Helper()
	r, err := gpoll.NewMessageRecord(m)
	if err != nil {
		tb.Fatal(err)
	}
	pos, err := b.Publish(tb.Context(), r)
	if err != nil {
		tb.Fatal(err)
	}
	return pos
}

// A fault of a broker reaches every attached client alike. Repeats are invisible, holes are gaps of reason "broker",
// and exactly one gap announces a new epoch, before any message of it.
func TestBrokerFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &scriptedBroker{before: gpoll.Position{Epoch: 1, Seq: 100}}
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { b.Broker = broker }})
		script := func() {
			broker.at(1, 101)
			broker.at(1, 102)
			broker.at(1, 102) // again
			broker.at(1, 101)
			broker.at(1, 105) // 103 and 104 are lost
			broker.at(1, 104) // and late
			synctest.Wait()
			broker.at(2, 7) // a new epoch, of which the first messages never came
			broker.at(2, 8)
			broker.at(2, 8)
			broker.at(2, 11)
			synctest.Wait()
		}
		const old, young = "0000000000000001-", "0000000000000002-"
		want := []string{
			"1-101", "1-102", "gap " + old + "103.." + old + "104;broker", "1-105",
			"gap " + old + "106.." + old + "0;epoch", "gap " + young + "1.." + young + "6;evicted", "2-7", "2-8",
			"gap " + young + "9.." + young + "10;broker", "2-11",
		}
		id, after := s.register(t)
		if after != old+"100" {
			t.Fatalf("the log begins at %s, want the broker's place", after)
		}
		gapOf := func(e element) string { return "gap " + e.Gap.From + ".." + e.Gap.To + ";" + e.Gap.Reason }

		sse := s.events(t, "/poll/events")
		jsonSSE := s.events(t, "/poll/events?format=json")
		v1 := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, v1, `{"hello":{}}`)
		frame(t, v1)
		sse.next(t)
		jsonSSE.next(t)
		lost := s.socket(t, "/poll/ws", "")
		frame(t, lost)
		pipe, err := s.GetChannel(s.AddClient())
		if err != nil {
			t.Fatal(err)
		}
		script()

		check := func(by string, got []string) {
			t.Helper()
			if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
				t.Errorf("%s:\n%s\nwant\n%s", by, g, w)
			}
		}
		var got []string
		for range want {
			ev := sse.next(t)
			if ev.name == "gap" {
				got = append(got, "gap "+gapOfJSON(t, ev.data))
			} else {
				got = append(got, ev.data)
			}
		}
		check("SSE", got)
		got = nil
		for range want {
			ev := jsonSSE.next(t)
			if ev.name == "gap" {
				got = append(got, "gap "+gapOfJSON(t, ev.data))
			} else {
				got = append(got, elementOf(t, ev.data).Data)
			}
		}
		check("JSON SSE", got)
		got = nil
		for range want {
			e := elementOf(t, frame(t, v1))
			if e.Gap != nil {
				got = append(got, gapOf(e))
			} else {
				got = append(got, e.Data)
			}
		}
		check("gpoll.v1", got)

		// The log that a later reader finds holds the present epoch.
		replayed := []string{"gap " + old + "101.." + old + "0;epoch", want[5], "2-7", "2-8", want[8], "2-11"}
		got = nil
		for _, e := range s.get(t, "/poll"+query("client-id", id, "after", after, "format", "json")).batch(t).Messages {
			if e.Gap != nil {
				got = append(got, gapOf(e))
			} else {
				got = append(got, e.Data)
			}
		}
		want = replayed
		check("JSON poll", got)
		got = nil
		for len(got) < len(replayed) {
			a := s.get(t, "/poll"+query("client-id", id, "after", after))
			if a.status != http.StatusOK {
				t.Fatalf("plain poll: %d", a.status)
			}
			for _, gap := range a.header.Values("Gpoll-Gap") {
				got = append(got, "gap "+gap)
			}
			got, after = append(got, a.body), a.position()
		}
		check("plain poll", got)

		// A plain WebSocket and a channel cannot carry a gap: they end at the first.
		for _, want := range []string{"1-101", "1-102"} {
			if f := frame(t, lost); f != want {
				t.Errorf("plain WebSocket: %q, want %q", f, want)
			}
			if m := <-pipe; m != want {
				t.Errorf("channel: %q, want %q", m, want)
			}
		}
		if code, reason := closing(t, lost); code != 4010 || reason != old+"103.."+old+"104;broker" {
			t.Errorf("plain WebSocket: close %d %q", code, reason)
		}
		if m, open := <-pipe; open {
			t.Errorf("the channel goes on with %q", m)
		}
	})
}

// What Publish returns when the broker fails, and what is counted.
func TestPublishFailures(t *testing.T) {
	broker := &scriptedBroker{before: gpoll.Position{Epoch: 1}}
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.Broker = broker }})
	cause := errors.New("no quorum")
	broker.fail = cause
	if _, err := s.Publish(t.Context(), gpoll.Message{}); !errors.Is(err, cause) || errors.Is(err, gpoll.ErrUnknown) {
		t.Errorf("rejected: %v", err)
	}
	broker.fail = fmt.Errorf("%w: time-out", gpoll.ErrUnknown)
	if _, err := s.Publish(t.Context(), gpoll.Message{}); !errors.Is(err, gpoll.ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	broker.fail = nil
	if _, err := s.Publish(ctx, gpoll.Message{}); !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	if st := s.Stats(); st.Published != 0 || len(st.Refused) < 2 {
		t.Errorf("Published %d, Refused %v", st.Published, st.Refused)
	}
	shutdown(t, s.Broadcaster)
	if !broker.stopped || broker.closed {
		t.Errorf("after Shutdown: stopped is %v, want true; closed is %v, want false: it belongs to its maker",
			broker.stopped, broker.closed)
	}
}

// One answer is bounded by 500 messages and about 1 MiB; more says that there is more at once.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		id, after := s.register(t)
		for i := range 1200 {
			s.Send(fmt.Sprint(i))
		}
		s.settle() // a poll that comes while the first of them are handed out is answered with those
		n := 0
		for _, want := range []struct {
			messages int
			more     bool
		}{{500, true}, {500, true}, {200, false}} {
			v := s.get(t, "/poll"+query("client-id", id, "after", after, "format", "json")).batch(t)
			if len(v.Messages) != want.messages || v.More != want.more {
				t.Errorf("%d messages, more %v; want %d, %v", len(v.Messages), v.More, want.messages, want.more)
			}
			for _, m := range v.payloads(t) {
				if m != fmt.Sprint(n) {
					t.Fatalf("%s, want %d", m, n)
				}
				n++
			}
			after = v.Position
		}
		big := strings.Repeat("x", 60_000)
		for range 40 {
			s.Send(big)
		}
		s.settle()
		for n = 0; n < 40; {
			v := s.get(t, "/poll"+query("client-id", id, "after", after, "format", "json")).batch(t)
			if len(v.Messages) == 0 || len(v.Messages) > 19 || v.More != (n+len(v.Messages) < 40) {
				t.Fatalf("%d messages of 60 kB, more %v, after %d", len(v.Messages), v.More, n)
			}
			n += len(v.Messages)
			after = v.Position
		}
	})
}

// A gate is a Subscriber that lets each Deliver pass when its channel is closed.
type gate struct {
	gpoll.Subscriber
	entered, pass chan struct{}
}

func (g *gate) Epoch(gpoll.Position) {}
func (g *gate) Deliver([]gpoll.Record) {
	select {
	case g.entered <- struct{}{}:
	default:
	}
	<-g.pass
}

// Close forgets the records. A Subscriber that is behind at that moment does not look for them, also while Close waits
// for another one.
func TestCloseOfMemoryBrokerWhileBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gpoll.NewMemoryBroker()
		_, end, err := b.Window(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		gates := [2]*gate{}
		for i := range gates {
			gates[i] = &gate{entered: make(chan struct{}, 1), pass: make(chan struct{})}
			if _, err := b.Subscribe(t.Context(), end, gates[i]); err != nil {
				t.Fatal(err)
			}
		}
		publishTo(t, b, gpoll.Message{Data: []byte("they have it")})
		for _, g := range gates {
			<-g.entered
		}
		publishTo(t, b, gpoll.Message{Data: []byte("they are behind")})
		closed := make(chan error)
		go func() { closed <- b.Close(t.Context()) }() // ends when both have returned
		synctest.Wait()
		close(gates[1].pass)
		synctest.Wait()
		close(gates[0].pass)
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}
