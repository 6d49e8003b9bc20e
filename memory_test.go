package gpoll_test

import (
	"context"
	"slices"
	"testing"

	"github.com/corvuscrypto/gpoll"
)

// A scribbler is a broker that uses what belongs to it: it writes to the Bytes that it was given.
type scribbler struct{ gpoll.Broker }

func (b scribbler) Publish(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
	sealed := r
	sealed.Bytes = slices.Clone(r.Bytes)
	for i := range r.Bytes {
		r.Bytes[i] ^= 0x55
	}
	return b.Broker.Publish(ctx, sealed)
}

// What Send and Publish hand to a broker is the broker's.
func TestBrokerOwnsItsMessages(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.Broker = scribbler{gpoll.NewMemoryBroker()} }})
	id, after := s.register(t)
	const text = "a string of the program, which lies in memory that nobody can write"
	data, except := []byte("m"), []string{"0123456789abcdef0123456789abcdef"}
	s.Send(text)
	if _, err := s.Publish(t.Context(), gpoll.Message{Data: data, Except: except}); err != nil {
		t.Fatal(err)
	}
	s.Send("end")
	if string(data) != "m" || except[0] == "" {
		t.Errorf("the publisher's own memory was written to: %q %q", data, except)
	}
	if got, want := s.readBatches(t, id, after), []string{text, "m", "end"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// listens is a Subscriber that is only interested in records.
type listens struct{ deliver func([]gpoll.Record) }

func (l listens) Deliver(records []gpoll.Record) { l.deliver(records) }
func (listens) Hole(gpoll.Position)              {}
func (listens) Epoch(gpoll.Position)             {}
func (listens) Outage(error)                     {}

// Readers of a MemoryBroker share no memory: if one of them changes a message, no other reader sees it, in this message
// or a later one.
func TestMemoryBrokerSharesNothing(t *testing.T) {
	broker := gpoll.NewMemoryBroker()
	scribble := func(records []gpoll.Record) {
		for _, r := range records {
			for i := range r.Bytes {
				r.Bytes[i] = 'x'
			}
		}
	}
	b := func(b *gpoll.Broadcaster) { b.Broker = broker }
	first := start(t, setup{broadcaster: b})
	id, after := first.register(t)
	other, _ := first.register(t)
	publish := func(data string) {
		m := gpoll.Message{Data: []byte(data), Except: []string{gpoll.PublicID(other)}}
		if _, err := first.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	publish("m1")
	stop, err := broker.Subscribe(t.Context(), gpoll.Position{}, listens{scribble})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	publish("m2")
	second := start(t, setup{broadcaster: b})
	publish("m3")
	history, err := broker.History(t.Context(), gpoll.Position{}, 100)
	if err != nil || len(history) != 3 {
		t.Fatalf("%v %v", history, err)
	}
	scribble(history)
	third := start(t, setup{broadcaster: b})
	first.Send("end")
	want := []string{"m1", "m2", "m3", "end"}
	if got := first.readBatches(t, id, after); !slices.Equal(got, want) {
		t.Errorf("the first Broadcaster has %q, want %q", got, want)
	}
	if got := first.readBatches(t, other, after); !slices.Equal(got, want[3:]) {
		t.Errorf("who is excepted gets %q", got)
	}
	for name, s := range map[string]*server{"second": second, "third": third} {
		id, _ := s.register(t)
		if got := s.readBatches(t, id, after); !slices.Equal(got, want) {
			t.Errorf("the %s Broadcaster has %q, want %q", name, got, want)
		}
	}
}
