package gpoll_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// following starts a server in a bubble that follows a scripted broker from 1-100 on, with a client, and runs test.
func following(t *testing.T, name string, broadcaster func(*gpoll.Broadcaster), test func(*testing.T, *followed)) {
	inBubble(t, name, func(t *testing.T) {
		f := &followed{broker: &scriptedBroker{before: gpoll.Position{Epoch: 1, Seq: 100}}}
		f.server = start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Broker, b.Logger = f.broker, slog.New(slog.NewTextHandler(&f.log, nil))
			if broadcaster != nil {
				broadcaster(b)
			}
		}})
		f.id, f.after = f.register(t)
		test(t, f)
	})
}

type followed struct {
	*server
	broker    *scriptedBroker
	log       lockedBuffer
	id, after string
}

// all reads the log from the beginning, by polls and by SSE, which must say the same, up to a last message that it
// delivers itself.
func (f *followed) all(t *testing.T, epoch, seq uint64) []string {
	t.Helper()
	m := said(epoch, seq)
	m.Data = []byte("end")
	f.broker.deliver(m)
	f.settle()
	got := f.readBatches(t, f.id, f.after)
	if events := f.readEvents(t, f.id, f.after); !slices.Equal(got, events) {
		t.Errorf("polls read %q, SSE reads %q", got, events)
	}
	return got
}

// keeps has History return messages of these seqs.
func keeps(epoch uint64, seqs ...uint64) func(context.Context, gpoll.Position, int) ([]gpoll.Record, error) {
	return func(_ context.Context, after gpoll.Position, limit int) (found []gpoll.Record, err error) {
		for _, seq := range seqs {
			if (after.Epoch != epoch || seq > after.Seq) && len(found) < limit {
				found = append(found, recordOf(said(epoch, seq)))
			}
		}
		return found, nil
	}
}

// What is missing in the broker's delivery is fetched, and only what History no longer has is a gap.
func TestHoleIsFetched(t *testing.T) {
	for _, tt := range []struct {
		name    string
		history func(context.Context, gpoll.Position, int) ([]gpoll.Record, error)
		news    func(*scriptedBroker)
		want    []string
	}{
		{"whole", keeps(1, 101, 102, 103, 104, 105, 106), func(b *scriptedBroker) { b.at(1, 101); b.at(1, 105) },
			[]string{"1-101", "1-102", "1-103", "1-104", "1-105"}},
		{"in part", keeps(1, 103), func(b *scriptedBroker) { b.at(1, 101); b.at(1, 105) },
			[]string{"1-101", "gap 102..102 broker", "1-103", "gap 104..104 broker", "1-105"}},
		{"out of order", keeps(1, 101, 102, 103), func(b *scriptedBroker) { b.at(1, 103); b.at(1, 101); b.at(1, 102) },
			[]string{"1-101", "1-102", "1-103"}},
		{"the beginning of an epoch", keeps(2, 2, 3, 4), func(b *scriptedBroker) { b.at(1, 101); b.at(2, 4) },
			[]string{"gap 101..0 epoch", "gap 1..1 evicted", "2-2", "2-3", "2-4"}},
		{"of another epoch", keeps(3, 1, 2, 3), func(b *scriptedBroker) { b.at(1, 101); b.at(1, 103) },
			[]string{"1-101", "gap 102..102 broker", "1-103"}},
		{"reported", keeps(1, 101, 102, 103, 104), func(b *scriptedBroker) { b.to.Hole(gpoll.Position{Epoch: 1, Seq: 103}) },
			[]string{"1-101", "1-102", "1-103"}},
		{"reported, lost", keeps(1, 101, 104), func(b *scriptedBroker) { b.to.Hole(gpoll.Position{Epoch: 1, Seq: 103}) },
			[]string{"1-101", "gap 102..103 broker"}},
		{"reported late", nil, func(b *scriptedBroker) { b.at(1, 101); b.to.Hole(gpoll.Position{Epoch: 1, Seq: 101}) },
			[]string{"1-101"}},
		{"an epoch reported late", keeps(2, 1, 2), func(b *scriptedBroker) { b.to.Epoch(gpoll.Position{Epoch: 2, Seq: 2}) },
			[]string{"gap 101..0 epoch", "2-1", "2-2"}},
		{"an epoch reported late, in part", keeps(2, 1),
			func(b *scriptedBroker) { b.to.Epoch(gpoll.Position{Epoch: 2, Seq: 2}) },
			[]string{"gap 101..0 epoch", "2-1", "gap 2..2 broker"}},
	} {
		following(t, tt.name, nil, func(t *testing.T, f *followed) {
			f.broker.history = tt.history
			tt.news(f.broker)
			last := f.Stats().WindowHigh
			epoch := uint64(1)
			if strings.HasSuffix(f.Stats().Epoch, "2") {
				epoch = 2
			}
			want := append(slices.Clone(tt.want), "end")
			if got := f.all(t, epoch, last+1); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// If History fails, it is called again. If it does not answer, it is given up after five seconds. Meanwhile no
// publisher, no reader and no Shutdown waits for it.
func TestHoleWhenHistoryFails(t *testing.T) {
	following(t, "for a while", nil, func(t *testing.T, f *followed) {
		began := time.Now()
		f.broker.history = func(ctx context.Context, after gpoll.Position, limit int) ([]gpoll.Record, error) {
			if time.Since(began) < 3*time.Second {
				return nil, errors.New("no leader")
			}
			return keeps(1, 101, 102)(ctx, after, limit)
		}
		f.broker.at(1, 103)
		if got, want := f.all(t, 1, 104), []string{"1-101", "1-102", "1-103", "end"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
	hangs := func(ctx context.Context, _ gpoll.Position, _ int) ([]gpoll.Record, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	following(t, "for good", nil, func(t *testing.T, f *followed) {
		f.broker.at(1, 101)
		f.broker.history = hangs
		began := time.Now()
		delivered := make(chan time.Duration)
		go func() { // ends when the hole is given up
			f.broker.to.Deliver([]gpoll.Record{recordOf(said(1, 103))})
			delivered <- time.Since(began)
		}()
		synctest.Wait()
		v := f.get(t, "/poll"+query("client-id", f.id, "after", f.after, "format", "json")).batch(t)
		if got := v.payloads(t); !slices.Equal(got, []string{"1-101"}) {
			t.Errorf("who reads meanwhile gets %q", got)
		}
		f.Send("m")
		if took := time.Since(began); took != 0 {
			t.Errorf("they waited for %v", took)
		}
		if took := <-delivered; took != 5*time.Second {
			t.Errorf("given up after %v", took)
		}
		if got, want := f.all(t, 1, 104), []string{"1-101", "gap 102..102 broker", "1-103", "end"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
	following(t, "beside Shutdown", nil, func(t *testing.T, f *followed) {
		f.broker.history = hangs
		delivered := make(chan struct{})
		go func() { // ends with Shutdown
			defer close(delivered)
			f.broker.to.Deliver([]gpoll.Record{recordOf(said(1, 103))})
		}()
		synctest.Wait()
		began := time.Now()
		shutdown(t, f.Broadcaster)
		<-delivered
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}

// A new epoch is told to every client when the broker reports it, once, and not again with its first message.
func TestEpochIsReported(t *testing.T) {
	following(t, "", nil, func(t *testing.T, f *followed) {
		sse := f.events(t, "/poll/events"+query("after", f.after))
		sse.next(t)
		v1 := f.socket(t, "/poll/ws", "gpoll.v1")
		say(t, v1, `{"hello":{"after":"`+f.after+`"}}`)
		frame(t, v1)
		other, _ := f.register(t)
		plain := f.later(t, "/poll"+query("client-id", f.id, "after", f.after))
		json := f.later(t, "/poll"+query("client-id", other, "after", f.after, "format", "json"))
		f.settle()
		f.broker.to.Epoch(gpoll.Position{Epoch: 2})
		f.broker.to.Epoch(gpoll.Position{Epoch: 2})
		f.broker.to.Epoch(gpoll.Position{Epoch: 1, Seq: 500}) // which is over
		f.settle()
		const gap = "gap 101..0 epoch"
		if ev := sse.next(t); ev.name != "gap" || shortGap(t, gapOfJSON(t, ev.data)) != gap {
			t.Errorf("SSE: %+v", ev)
		}
		if got := seenElement(t, elementOf(t, frame(t, v1))); got != gap {
			t.Errorf("gpoll.v1: %q", got)
		}
		a := <-json
		v := a.batch(t)
		if len(v.Messages) != 1 || seenElement(t, v.Messages[0]) != gap || v.Position != "0000000000000002-0" {
			t.Errorf("JSON poll: %s", a.body)
		}
		f.broker.at(2, 1)
		f.broker.at(1, 102)
		f.broker.at(2, 2)
		f.settle()
		if ev := sse.next(t); ev.data != "2-1" {
			t.Errorf("SSE: %+v", ev)
		}
		if e := elementOf(t, frame(t, v1)); e.Data != "2-1" {
			t.Errorf("gpoll.v1: %+v", e)
		}
		next := f.get(t, "/poll"+query("client-id", other, "after", v.Position, "format", "json")).batch(t)
		if got := next.payloads(t); !slices.Equal(got, []string{"2-1", "2-2"}) {
			t.Errorf("JSON poll: %q", got)
		}
		p := <-plain
		var got []string
		for len(got) < 2 {
			for _, g := range p.header.Values("Gpoll-Gap") {
				got = append(got, shortGap(t, g))
			}
			if p.status == http.StatusOK {
				got = append(got, p.body)
			} else {
				p = f.get(t, "/poll"+query("client-id", f.id, "after", p.position()))
			}
		}
		if want := []string{gap, "2-1"}; !slices.Equal(got, want) {
			t.Errorf("plain poll: %q, want %q", got, want)
		}
		if got, want := f.all(t, 2, 3), []string{gap, "2-1", "2-2", "end"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// Records that are no messages take their place in the order and nothing else: the cursor moves past them. What
// should have been a message and cannot be read is a gap.
func TestRecordsOfOtherKinds(t *testing.T) {
	following(t, "", nil, func(t *testing.T, f *followed) {
		sse := f.events(t, "/poll/events"+query("after", f.after))
		sse.next(t)
		record := func(seq uint64, kind gpoll.RecordKind, b ...byte) {
			f.broker.to.Deliver([]gpoll.Record{{Position: gpoll.Position{Epoch: 1, Seq: seq}, Kind: kind, Bytes: b}})
		}
		record(101, 77, 1, 2, 3)
		f.settle()
		time.Sleep(2 * time.Second)
		v := f.get(t, "/poll"+query("client-id", f.id, "after", f.after, "format", "json")).batch(t)
		if v.Position != "0000000000000001-101" || len(v.Messages) != 0 {
			t.Errorf("behind a record of an unknown kind: %+v", v)
		}
		f.broker.at(1, 102)
		record(103, 77)
		f.broker.at(1, 104)
		record(105, gpoll.RecordMessage, 2, 0, 0, 0, 'x') // a later form
		f.broker.at(1, 106)
		record(107, 0) // which the broker could not read
		f.broker.at(1, 108)
		want := []string{"1-102", "1-104", "gap 105..105 broker", "1-106", "gap 107..107 broker", "1-108", "end"}
		if got := f.all(t, 1, 109); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if ev := sse.next(t); ev.data != "1-102" {
			t.Errorf("live: %+v", ev)
		}
		synctest.Wait()
		if n := strings.Count(f.log.String(), "kind=77"); n != 1 {
			t.Errorf("the unknown kind is in the log %d times:\n%s", n, &f.log)
		}
	})
}

// A RecordEpoch is the first of its epoch, whatever its number: nothing is missing before it.
func TestEpochRecord(t *testing.T) {
	following(t, "", nil, func(t *testing.T, f *followed) {
		f.broker.at(1, 101)
		f.broker.to.Deliver([]gpoll.Record{
			{Position: gpoll.Position{Epoch: 2, Seq: 102}, Kind: gpoll.RecordEpoch},
			recordOf(said(2, 103)),
		})
		if got, want := f.all(t, 2, 104), []string{"gap 101..0 epoch", "2-103", "end"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// An outage is in Stats and in the log of the operator for as long as it lasts, and clients notice nothing.
func TestOutageIsReported(t *testing.T) {
	following(t, "", nil, func(t *testing.T, f *followed) {
		f.broker.at(1, 101)
		f.broker.to.Outage(errors.New("connection refused"))
		f.broker.to.Outage(errors.New("connection refused again"))
		if got := f.Stats().Outage; got != "connection refused again" {
			t.Errorf("Stats say %q", got)
		}
		f.broker.fail = fmt.Errorf("%w: down", gpoll.ErrUnavailable)
		if _, err := f.Publish(t.Context(), gpoll.Message{}); !errors.Is(err, gpoll.ErrUnavailable) {
			t.Errorf("Publish: %v", err)
		}
		if n := f.Stats().Refused["publish-unavailable"]; n != 1 {
			t.Errorf("counted %d times", n)
		}
		f.broker.to.Outage(nil)
		f.broker.to.Outage(nil)
		if got := f.Stats().Outage; got != "" {
			t.Errorf("afterwards Stats say %q", got)
		}
		synctest.Wait()
		if n := strings.Count(f.log.String(), "\n"); n != 2 {
			t.Errorf("the log has %d lines, want one for the beginning and one for the end:\n%s", n, &f.log)
		}
		f.broker.at(1, 102)
		if got, want := f.all(t, 1, 103), []string{"1-101", "1-102", "end"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// Messages of other servers wait as Send does while a routine is RoutineBufferSize messages behind.
func TestDeliveryWaitsForRoutines(t *testing.T) {
	const buffer = 10
	small := func(b *gpoll.Broadcaster) { b.RoutineBufferSize = buffer }
	batch := func(from, to uint64) (records []gpoll.Record) {
		for seq := from; seq <= to; seq++ {
			records = append(records, recordOf(said(1, seq)))
		}
		return records
	}
	following(t, "", small, func(t *testing.T, f *followed) {
		letGo := f.HoldRounds()
		delivered := make(chan struct{})
		go func() { // ends when the routine goes on
			defer close(delivered)
			f.broker.to.Deliver(batch(101, 150))
		}()
		synctest.Wait()
		if got := f.Stats().WindowHigh; got != 100+buffer {
			t.Errorf("the log has come to %d, want %d", got, 100+buffer)
		}
		letGo()
		<-delivered
		got := f.all(t, 1, 151)
		if len(got) != 51 || got[0] != "1-101" || got[49] != "1-150" {
			t.Errorf("%q", got)
		}
	})
	following(t, "beside Shutdown", small, func(t *testing.T, f *followed) {
		letGo := f.HoldRounds()
		delivered := make(chan struct{})
		go func() { // ends with Shutdown
			defer close(delivered)
			f.broker.to.Deliver(batch(101, 150))
		}()
		synctest.Wait()
		time.AfterFunc(time.Second, letGo)
		shutdown(t, f.Broadcaster)
		<-delivered
	})
}

// Broadcasters that share a MemoryBroker wait for each other's routines and lose nothing. If the context of a Publish
// ends while it waits, its message has been published.
func TestSharedMemoryBrokerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := gpoll.NewMemoryBroker()
		here := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { b.Broker = broker }})
		there := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Broker, b.RoutineBufferSize = broker, 5
		}})
		id, after := there.register(t)
		letGo := there.HoldRounds()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		var want []string
		for i := 0; time.Since(began) == 0; i++ {
			want = append(want, fmt.Sprint("m", i))
			pos, err := here.Publish(ctx, gpoll.Message{Data: []byte(want[i])})
			if err != nil || pos.Seq != uint64(i+1) {
				t.Fatalf("message %d: %v, %v", i, pos, err)
			}
			if i > 20 {
				t.Fatal("it does not wait")
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it waited for %v", took)
		}
		sent := make(chan struct{})
		go func() { // ends when the routine goes on
			defer close(sent)
			here.Send("end")
		}()
		synctest.Wait()
		select {
		case <-sent:
			t.Error("Send did not wait")
		default:
		}
		if got := here.Stats().WindowHigh; got != uint64(len(want))+1 {
			t.Errorf("here the log has come to %d, want %d", got, len(want)+1)
		}
		letGo()
		<-sent
		if got := there.readBatches(t, id, after); !slices.Equal(got, append(want, "end")) {
			t.Errorf("there: %q", got)
		}
	})
}

// Each record that is published has a nonce of its own and names the newest record that was read.
func TestPublishedRecordsNameTheirPast(t *testing.T) {
	following(t, "", nil, func(t *testing.T, f *followed) {
		f.Send("first")
		r := recordOf(said(1, 101))
		r.Nonce = 4711
		f.broker.to.Deliver([]gpoll.Record{r})
		f.Send("second")
		f.Send("third")
		var nonces []uint64
		for i, want := range []gpoll.Link{{}, {Position: r.Position, Nonce: 4711}, {Position: r.Position, Nonce: 4711}} {
			got := f.broker.added[i]
			if got.Prev != want || got.Nonce == 0 || slices.Contains(nonces, got.Nonce) || got.Kind != gpoll.RecordMessage {
				t.Errorf("record %d: kind %d, nonce %d, prev %v; want prev %v", i, got.Kind, got.Nonce, got.Prev, want)
			}
			nonces = append(nonces, got.Nonce)
		}
	})
}

// A broker that has given the place of a record to another is not followed any further in this epoch: clients hold
// Positions that name other messages now. A new epoch cures it.
func TestForkIsSeen(t *testing.T) {
	chained := func(seq, nonce, prev, prevNonce uint64) gpoll.Record {
		r := recordOf(said(1, seq))
		r.Nonce = nonce
		if prev != 0 {
			r.Prev = gpoll.Link{Position: gpoll.Position{Epoch: 1, Seq: prev}, Nonce: prevNonce}
		}
		return r
	}
	for _, tt := range []struct {
		name  string
		third gpoll.Record
		forks bool
	}{
		{"in order", chained(103, 13, 102, 12), false},
		{"a publisher that reads late", chained(103, 13, 101, 11), false},
		{"a publisher that has read nothing", chained(103, 13, 0, 0), false},
		{"a record without a nonce", chained(103, 0, 102, 12), false},
		{"a link without a nonce", chained(103, 13, 102, 0), false},
		{"a repeat", chained(102, 12, 101, 11), false},
		{"a link to what was never read", chained(103, 13, 50, 99), false},
		{"another view", chained(103, 13, 102, 99), true},
		{"the same place again", chained(102, 99, 101, 11), true},
		{"a link ahead", chained(103, 13, 110, 20), true},
	} {
		following(t, tt.name, nil, func(t *testing.T, f *followed) {
			f.broker.to.Deliver([]gpoll.Record{chained(101, 11, 0, 0), chained(102, 12, 101, 11)})
			f.broker.to.Deliver([]gpoll.Record{tt.third, chained(104, 14, 0, 0)})
			_, err := f.Publish(t.Context(), gpoll.Message{})
			if forks := errors.Is(err, gpoll.ErrUnavailable); forks != tt.forks {
				t.Errorf("Publish: %v", err)
			}
			want := []string{"1-101", "1-102"}
			if tt.forks {
				f.broker.at(2, 1)
				if _, err := f.Publish(t.Context(), gpoll.Message{}); err != nil {
					t.Errorf("Publish in the next epoch: %v", err)
				}
				want = []string{"gap 101..0 epoch", "2-1", "end"}
				if got := f.all(t, 2, 2); !slices.Equal(got, want) {
					t.Errorf("%q, want %q", got, want)
				}
				synctest.Wait()
				if n := strings.Count(f.log.String(), "level=ERROR"); n != 1 {
					t.Errorf("%d errors in the log:\n%s", n, &f.log)
				}
				return
			}
			if got := f.all(t, 1, 105); !slices.Equal(got[:2], want) || strings.Contains(f.log.String(), "ERROR") {
				t.Errorf("%q, %s", got, &f.log)
			}
		})
	}
}

// A Broadcaster begins when it has all records that the broker held, even if they come one after another.
func TestFollowAwaitsTheBacklog(t *testing.T) {
	for _, comes := range []bool{true, false} {
		inBubble(t, fmt.Sprint(comes), func(t *testing.T) {
			inner := gpoll.NewMemoryBroker()
			for i := range 5 {
				publishTo(t, inner, gpoll.Message{Data: fmt.Append(nil, i)})
			}
			b := gpoll.NewBroadcaster()
			b.Broker = tardyBroker{inner, comes}
			defer shutdown(t, b)
			began := time.Now()
			high, took := b.Stats().WindowHigh, time.Since(began)
			if comes && (high != 5 || took != 5*time.Second) {
				t.Errorf("it begins at %d after %v", high, took)
			}
			if !comes && took != 10*time.Second {
				t.Errorf("it begins after %v", took)
			}
		})
	}
}

// A tardyBroker takes a second for each record, or delivers none.
type tardyBroker struct {
	*gpoll.MemoryBroker
	comes bool
}

func (b tardyBroker) Subscribe(ctx context.Context, after gpoll.Position, to gpoll.Subscriber) (func(), error) {
	return b.MemoryBroker.Subscribe(ctx, after, listens{func(records []gpoll.Record) {
		for i := range records {
			if b.comes {
				time.Sleep(time.Second)
				to.Deliver(records[i : i+1])
			}
		}
	}})
}
