package gpoll_test

import (
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

const maxSeq = 1<<53 - 1

// A seq is a number that every client can hold, 2^53−1 at most. More is refused wherever a Position comes in.
func TestSeqBeyondTheLimit(t *testing.T) {
	const epoch = "9f86d081884c7d65-"
	for _, seq := range []uint64{maxSeq - 1, maxSeq, maxSeq + 1, 1<<63 + 1, 1<<64 - 1} {
		good := seq <= maxSeq
		text := epoch + strconv.FormatUint(seq, 10)
		if p, err := gpoll.ParsePosition(text); (err == nil) != good || good && p.Seq != seq {
			t.Errorf("ParsePosition(%q) is %v, %v", text, p, err)
		}
	}
	for _, listener := range []bool{false, true} {
		s := start(t, setup{listener: listener, broadcaster: func(b *gpoll.Broadcaster) {
			b.PollWait = 50 * time.Millisecond
		}})
		refused := func(by string, a answer) {
			t.Helper()
			if a.status != http.StatusBadRequest || a.code(t) != "bad-position" {
				t.Errorf("%s: %d %s", by, a.status, a.body)
			}
		}
		id, _ := s.register(t)
		now := s.mustPublish(t, "", "m1")
		for _, after := range []string{strconv.FormatUint(maxSeq+1, 10), "18446744073709551615"} {
			after = now.String()[:17] + after
			// What a connection of Listener remembers is the poll with other digits.
			if a := s.get(t, "/poll"+query("client-id", id, "after", now.String()[:17]+"0")); a.body != "m1" {
				t.Fatalf("%d %s", a.status, a.body)
			}
			for _, by := range gets {
				refused(by.name, s.get(t, by.path+query("client-id", id, "after", after), by.header...))
			}
			refused("Last-Event-ID", s.get(t, "/poll/events"+query("client-id", id), "Last-Event-ID", after))
			refused("POST", s.post(t, "/poll", id, `{"after":"`+after+`"}`))
			c := s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, c, `{"hello":{"after":"`+after+`"}}`)
			if code, reason := closing(t, c); code != 1008 || reason != "bad-position" {
				t.Errorf("hello: close %d %q", code, reason)
			}
		}
	}
}

// If a broker gives a message an impossible Position, the operator's log has an error, and nothing else happens: the
// numbers do not wrap.
func TestBrokerBeyondTheLimit(t *testing.T) {
	var log lockedBuffer
	broker := &scriptedBroker{before: gpoll.Position{Epoch: 1, Seq: maxSeq - 2}}
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.Broker, b.Logger = broker, slog.New(slog.NewTextHandler(&log, nil))
	}})
	id, after := s.register(t)
	broker.at(1, maxSeq-1)
	broker.at(1, maxSeq+1)
	broker.at(1, 1<<64-1)
	broker.at(3, 0)
	broker.at(3, 1<<64-1)
	broker.at(1, maxSeq)
	await(t, "4 errors in the log", func() bool { return strings.Count(log.String(), "level=ERROR") == 4 })
	v := s.get(t, "/poll"+query("client-id", id, "after", after, "format", "json")).batch(t)
	want := []string{"1-9007199254740990", "1-9007199254740991"}
	if got := v.payloads(t); !slices.Equal(got, want) || len(v.Messages) != 2 {
		t.Errorf("%+v, want %q", v.Messages, want)
	}
	broker.at(4, 1)
	v = s.get(t, "/poll"+query("client-id", id, "after", v.Position, "format", "json")).batch(t)
	if len(v.Messages) != 2 || v.Messages[0].Gap == nil || v.Messages[1].Data != "4-1" {
		t.Errorf("a new epoch: %+v", v.Messages)
	}
	if g := v.Messages[0].Gap; g != nil {
		for _, bound := range []string{g.From, g.To} {
			if _, err := gpoll.ParsePosition(bound); err != nil {
				t.Errorf("the gap's %q is no Position", bound)
			}
		}
	}
}

// A broker whose window makes no sense is refused when the Broadcaster begins.
func TestBrokerWindowIsChecked(t *testing.T) {
	for name, before := range map[string]gpoll.Position{
		"no epoch":         {},
		"beyond the limit": {Epoch: 1, Seq: maxSeq + 1},
	} {
		b := gpoll.NewBroadcaster()
		b.Broker = &scriptedBroker{before: before}
		if _, err := b.Publish(t.Context(), gpoll.Message{}); err == nil || !strings.Contains(err.Error(), "window") {
			t.Errorf("%s: Publish returns %v", name, err)
		}
	}
}
