package gpoll_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
)

// seqOf returns the seq of a Position as it stands on the wire.
func seqOf(t testing.TB, position string) uint64 {
	t.Helper()
	p, err := gpoll.ParsePosition(position)
	if err != nil {
		t.Fatalf("%q: %v", position, err)
	}
	return p.Seq
}

// readPlain polls in the plain form from a cursor on until it has seen the message "end". It returns the bodies and
// gaps in order.
func (s *server) readPlain(t testing.TB, id, after string, topics ...string) (seen []string) {
	t.Helper()
	for len(seen) == 0 || seen[len(seen)-1] != "end" {
		pairs := []string{"client-id", id, "after", after}
		for _, topic := range topics {
			pairs = append(pairs, "topic", topic)
		}
		a := s.get(t, "/poll"+query(pairs...))
		if a.status != http.StatusOK && a.status != http.StatusNoContent {
			t.Fatalf("%d %s", a.status, a.body)
		}
		for _, gap := range a.header.Values("Gpoll-Gap") {
			seen = append(seen, shortGap(t, gap))
		}
		if a.status == http.StatusOK {
			seen = append(seen, a.body)
		}
		after = a.position()
	}
	return seen
}

// readBatches does the same in the JSON form.
func (s *server) readBatches(t testing.TB, id, after string, topics ...string) (seen []string) {
	t.Helper()
	for len(seen) == 0 || seen[len(seen)-1] != "end" {
		pairs := []string{"client-id", id, "after", after, "format", "json"}
		for _, topic := range topics {
			pairs = append(pairs, "topic", topic)
		}
		v := s.get(t, "/poll"+query(pairs...)).batch(t)
		for _, e := range v.Messages {
			seen = append(seen, seenElement(t, e))
		}
		after = v.Position
	}
	return seen
}

// readEvents does the same by SSE.
func (s *server) readEvents(t testing.TB, id, after string, topics ...string) (seen []string) {
	t.Helper()
	pairs := []string{"client-id", id, "after", after}
	for _, topic := range topics {
		pairs = append(pairs, "topic", topic)
	}
	e := s.events(t, "/poll/events"+query(pairs...))
	defer e.close()
	for len(seen) == 0 || seen[len(seen)-1] != "end" {
		switch ev := e.next(t); ev.name {
		case "gap":
			seen = append(seen, shortGap(t, gapOfJSON(t, ev.data)))
		case "message":
			seen = append(seen, ev.data)
		}
	}
	return seen
}

// shortGap writes <from>..<to>;<reason> without the epochs.
func shortGap(t testing.TB, gap string) string {
	t.Helper()
	bounds, reason, _ := strings.Cut(gap, ";")
	from, to, _ := strings.Cut(bounds, "..")
	if from == "" && to == "" {
		return "gap " + reason
	}
	return fmt.Sprintf("gap %d..%d %s", seqOf(t, from), seqOf(t, to), reason)
}

func seenElement(t testing.TB, e element) string {
	t.Helper()
	if e.Gap == nil {
		return e.payload(t)
	}
	return shortGap(t, e.Gap.From+".."+e.Gap.To+";"+e.Gap.Reason)
}

// A plain answer ends with its message. A gap behind the message belongs to the next answer, and puts no other message
// in the place of the first.
func TestPlainPollWithTopicWindow(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.TopicLimits = func(string) gpoll.Limits { return gpoll.Limits{Count: 1} }
	}})
	id, after := s.register(t)
	for _, m := range [][2]string{{"", "A"}, {"tick", "t1"}, {"", "B"}, {"tick", "t2"}, {"", "C"}, {"", "end"}} {
		s.mustPublish(t, m[0], m[1])
	}
	want := []string{"A", "gap 2..2 evicted", "B", "t2", "C", "end"}
	if got := s.readPlain(t, id, after, "tick"); !slices.Equal(got, want) {
		t.Errorf("plain poll: %q, want %q", got, want)
	}
	if got := s.readBatches(t, id, after, "tick"); !slices.Equal(got, want) {
		t.Errorf("JSON poll: %q, want %q", got, want)
	}
	if got := s.readEvents(t, id, after, "tick"); !slices.Equal(got, want) {
		t.Errorf("SSE: %q, want %q", got, want)
	}
}

// However a client reads, it sees the same messages and the same gaps. It does not matter what has left the windows of
// the topics, what the broker has lost, or where the client's cursor stands.
func TestEveryTransportReadsTheSame(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { readTheSame(t, rand.New(rand.NewPCG(uint64(seed), 8))) })
		})
	}
}

func readTheSame(t *testing.T, rnd *rand.Rand) {
	topics := []string{"a", "a.b", "b.b", "a.b.c"}
	patterns := map[string][]string{"a.>": {"a.b", "a.b.c"}, "*.b": {"a.b", "b.b"}, "*": {"a"}, ">": topics}
	limits := map[string]gpoll.Limits{}
	for _, topic := range topics {
		few, age := 1+rnd.IntN(5), time.Duration(1+rnd.IntN(60))*time.Second
		limits[topic] = []gpoll.Limits{{}, {Count: 1}, {Count: few}, {Count: 30}, {Age: age}}[rnd.IntN(5)]
	}
	broker := &scriptedBroker{before: gpoll.Position{Epoch: 1}}
	s := start(t, setup{memory: true, listener: rnd.IntN(2) == 0, broadcaster: func(b *gpoll.Broadcaster) {
		b.Broker = broker
		b.History = gpoll.Limits{Count: 3 + rnd.IntN(40)}
		b.TopicLimits = func(topic string) gpoll.Limits { return limits[topic] }
		b.ClientTTL, b.AttachTimeout, b.Wildcards = time.Hour, time.Hour, true
	}})
	id, _ := s.register(t)
	public := gpoll.PublicID(id)
	epoch, seq, first := uint64(1), uint64(0), uint64(0)
	for range 20 + rnd.IntN(150) {
		switch rnd.IntN(40) {
		case 0:
			epoch, seq = epoch+1, uint64(rnd.IntN(2)*rnd.IntN(5))
			first = seq
		case 1, 2:
			seq += uint64(rnd.IntN(4)) // the broker loses some
		case 3:
			advance(time.Duration(rnd.IntN(10)) * time.Second)
		}
		seq++
		m := gpoll.Message{Position: gpoll.Position{Epoch: epoch, Seq: seq}, Data: fmt.Append(nil, "m", seq)}
		switch rnd.IntN(8) {
		case 0, 1:
		case 2:
			m.Except = []string{public}
		case 3:
			m.To = gpoll.ToClient(public)
		default:
			m.Topic = topics[rnd.IntN(len(topics))]
		}
		broker.mu.Lock()
		broker.deliver(m)
		broker.mu.Unlock()
		if rnd.IntN(4) == 0 {
			synctest.Wait()
		}
	}
	seq++
	broker.mu.Lock()
	broker.deliver(gpoll.Message{Position: gpoll.Position{Epoch: epoch, Seq: seq}, Data: []byte("end")})
	broker.mu.Unlock()
	s.settle()

	for range 6 {
		after := gpoll.Position{Epoch: epoch, Seq: first + uint64(rnd.Int64N(int64(seq-first)))}
		if rnd.IntN(4) == 0 {
			after = gpoll.Position{Epoch: epoch + 9, Seq: uint64(rnd.IntN(20))} // of another epoch
		}
		var named []string
		for _, topic := range topics {
			if rnd.IntN(3) > 0 {
				named = append(named, topic)
			}
		}
		want := s.readBatches(t, id, after.String(), named...)
		if rnd.IntN(2) == 0 { // a pattern is as good as the topics that it matches
			pattern := slices.Sorted(maps.Keys(patterns))[rnd.IntN(len(patterns))]
			want = s.readBatches(t, id, after.String(), append(patterns[pattern], named...)...)
			named = append(named, pattern)
			if got := s.readBatches(t, id, after.String(), named...); !slices.Equal(got, want) {
				t.Fatalf("from %v with %v, limits %v: %q, by topics: %q", after, named, limits, got, want)
			}
		}
		for how, read := range map[string]func(testing.TB, string, string, ...string) []string{
			"plain poll": s.readPlain, "SSE": s.readEvents, "plain poll without cursor": s.readOn,
			"gpoll.v1": s.readFrames, "plain WebSocket": s.readMessages,
		} {
			if got := read(t, id, after.String(), named...); !slices.Equal(got, want) {
				t.Fatalf("from %v with topics %v, limits %v\n%s: %q\nJSON poll: %q", after, named, limits, how, got, want)
			}
		}
	}
}

// readOn is readPlain with the server's own cursor, which is the last one that the client brought.
func (s *server) readOn(t testing.TB, id, after string, topics ...string) (seen []string) {
	t.Helper()
	pairs := []string{"client-id", id, "after", after}
	for _, topic := range topics {
		pairs = append(pairs, "topic", topic)
	}
	s.get(t, "/poll"+query(pairs...))
	for len(seen) == 0 || seen[len(seen)-1] != "end" {
		a := s.get(t, "/poll"+query("client-id", id))
		if a.status != http.StatusOK && a.status != http.StatusNoContent {
			t.Fatalf("%d %s", a.status, a.body)
		}
		for _, gap := range a.header.Values("Gpoll-Gap") {
			seen = append(seen, shortGap(t, gap))
		}
		if a.status == http.StatusOK {
			seen = append(seen, a.body)
		}
	}
	return seen
}

// readFrames reads by gpoll.v1.
func (s *server) readFrames(t testing.TB, id, after string, topics ...string) (seen []string) {
	t.Helper()
	c := s.socket(t, "/poll/ws", "gpoll.v1")
	defer c.CloseNow()
	named := strings.Join(append(slices.Clone(topics), "none"), `","`)
	say(t, c, fmt.Sprintf(`{"hello":{"client-id":%s,"after":"%s","topics":["%s"]}}`, jsonString(t, id), after, named))
	frame(t, c)
	for len(seen) == 0 || seen[len(seen)-1] != "end" {
		seen = append(seen, seenElement(t, elementOf(t, frame(t, c))))
	}
	return seen
}

// readMessages reads by plain WebSockets: a gap is the reason of a close, and the next connect goes on behind it.
func (s *server) readMessages(t testing.TB, id, after string, topics ...string) (seen []string) {
	t.Helper()
	pairs := []string{"client-id", id, "after", after}
	for _, topic := range topics {
		pairs = append(pairs, "topic", topic)
	}
	for len(seen) == 0 || seen[len(seen)-1] != "end" {
		c := s.socket(t, "/poll/ws"+query(pairs...), "")
		frame(t, c)
		for {
			_, data, err := c.Read(t.Context())
			if err == nil {
				if seen = append(seen, string(data)); string(data) == "end" {
					break
				}
				continue
			}
			closed, ok := errors.AsType[websocket.CloseError](err)
			if !ok || closed.Code != 4010 {
				t.Fatalf("plain WebSocket: %v", err)
			}
			seen = append(seen, shortGap(t, closed.Reason))
			break
		}
		c.CloseNow()
		pairs = []string{"client-id", id}
		synctest.Wait()
	}
	return seen
}

// Messages that the broker dropped before a Broadcaster began to follow it are missing there. A gap says so, and it
// ends exactly where the log begins.
func TestEdgeOfTheBrokersWindow(t *testing.T) {
	for _, c := range []struct {
		name      string
		published uint64
		count     int    // History.Count of the Broadcaster that comes later
		before    uint64 // where its log begins
		limits    gpoll.Limits
	}{
		{"the broker's window", 3000, 0, 2000, gpoll.Limits{}},
		{"the log's own window", 3000, 10, 2990, gpoll.Limits{}},
		{"with windows of topics", 3000, 0, 2000, gpoll.Limits{Count: 2000}},
		{"everything is there", 1000, 0, 0, gpoll.Limits{}},
		{"one message", 1, 0, 0, gpoll.Limits{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			broker := gpoll.NewMemoryBroker()
			all := []string{""} // by seq
			var last gpoll.Position
			for seq := uint64(1); seq <= c.published; seq++ {
				m := gpoll.Message{Data: fmt.Append(nil, "m", seq), Topic: []string{"", "odd"}[seq%2]}
				if seq == c.published {
					m = gpoll.Message{Data: []byte("end")}
				}
				all = append(all, string(m.Data))
				last = publishTo(t, broker, m)
			}
			s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
				b.Broker, b.History.Count = broker, c.count
				b.TopicLimits = func(string) gpoll.Limits { return c.limits }
			}})
			id, now := s.register(t)
			if now != last.String() {
				t.Fatalf("the log ends at %s, want %v", now, last)
			}
			for _, after := range []uint64{0, 500, c.before - 1, c.before, c.before + 1} {
				if after >= c.published { // also one before 0
					continue
				}
				cursor := gpoll.Position{Epoch: last.Epoch, Seq: after}.String()
				var gap []string
				if after < c.before {
					gap = []string{fmt.Sprintf("gap %d..%d evicted", after+1, c.before)}
				}
				want := slices.Concat(gap, all[max(after, c.before)+1:])
				if got := s.readBatches(t, id, cursor, "odd"); !slices.Equal(got, want) {
					t.Errorf("after %d: %.200q, want %.200q", after, got, want)
				}
				if got := s.readEvents(t, id, cursor, "odd"); !slices.Equal(got, want) {
					t.Errorf("after %d, SSE: %.200q, want %.200q", after, got, want)
				}
				// Nobody knows whether it had messages.
				if got := s.readBatches(t, id, cursor, "quiet"); slices.Contains(got, strings.Join(gap, "")) != (gap != nil) {
					t.Errorf("after %d, a topic of which nothing is there: %.200q", after, got)
				}
			}
			// A cursor of another epoch: one gap says so, and another what is missing of the present one.
			want := []string{"gap 8..0 epoch"}
			if c.before > 0 {
				want = append(want, fmt.Sprintf("gap 1..%d evicted", c.before))
			}
			want = append(want, all[c.before+1:]...)
			if got := s.readBatches(t, id, "00000000000000ff-7", "odd"); !slices.Equal(got, want) {
				t.Errorf("another epoch: %.200q, want %.200q", got, want)
			}
		})
	}
}

// A Broadcaster without a past has lost nothing.
func TestNoGapAtTheBeginning(t *testing.T) {
	s := start(t, setup{})
	id, after := s.register(t)
	if seq := seqOf(t, after); seq != 0 {
		t.Fatalf("the log begins at %d", seq)
	}
	s.mustPublish(t, "news", "m1")
	s.mustPublish(t, "", "end")
	want := []string{"m1", "end"}
	if got := s.readBatches(t, id, after, "news", "quiet"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	want = []string{"gap 1..0 epoch", "m1", "end"}
	if got := s.readPlain(t, id, "00000000000000ff-0", "news", "quiet"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Where the log began anew, last adds nothing: all of the new epoch is owed anyway, behind the gap that says so.
func TestLastAcrossEpochs(t *testing.T) {
	broker := &scriptedBroker{before: gpoll.Position{Epoch: 1}}
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.Broker = broker }})
	deliver := func(epoch, seq uint64, topic, data string) {
		broker.mu.Lock()
		defer broker.mu.Unlock()
		broker.deliver(gpoll.Message{Position: gpoll.Position{Epoch: epoch, Seq: seq}, Topic: topic, Data: []byte(data)})
	}
	for seq := range uint64(10) {
		deliver(1, seq+1, "", "old")
	}
	id, _ := s.register(t)
	deliver(2, 1, "news", "n1")
	deliver(2, 2, "news", "n2")
	deliver(2, 3, "", "end")
	want := []string{"gap 11..0 epoch", "n1", "n2", "end"}
	var got []string
	path := "/poll" + query("client-id", id, "topic", "news", "last", "1")
	for len(got) == 0 || got[len(got)-1] != "end" {
		a := s.get(t, path)
		for _, gap := range a.header.Values("Gpoll-Gap") {
			got = append(got, shortGap(t, gap))
		}
		got = append(got, a.body)
		path = "/poll" + query("client-id", id)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Gaps that come together go out in answers of a bounded head: beyond that they do not wait for a message.
func TestManyGapsInPlainPolls(t *testing.T) {
	for _, listener := range []bool{false, true} {
		inBubble(t, fmt.Sprint("listener=", listener), func(t *testing.T) {
			broker := &scriptedBroker{before: gpoll.Position{Epoch: 1}}
			s := start(t, setup{memory: true, listener: listener, broadcaster: func(b *gpoll.Broadcaster) { b.Broker = broker }})
			id, after := s.register(t)
			var want []string
			for seq := uint64(2); seq <= 200; seq += 2 { // each second message is lost, and the others are not for this client
				broker.mu.Lock()
				broker.deliver(gpoll.Message{Position: gpoll.Position{Epoch: 1, Seq: seq}, Topic: "other"})
				broker.mu.Unlock()
				want = append(want, fmt.Sprintf("gap %d..%d broker", seq-1, seq-1))
			}
			s.settle()
			var got []string
			for len(got) < len(want) {
				a := s.get(t, "/poll"+query("client-id", id, "after", after))
				gaps := a.header.Values("Gpoll-Gap")
				if a.status != http.StatusNoContent || len(gaps) == 0 || len(gaps) > 32 {
					t.Fatalf("%d with %d gaps", a.status, len(gaps))
				}
				for _, gap := range gaps {
					got = append(got, shortGap(t, gap))
				}
				after = a.position()
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			// A few wait, and come with the message.
			answered := s.later(t, "/poll"+query("client-id", id, "after", after))
			s.settle()
			broker.mu.Lock()
			broker.deliver(gpoll.Message{Position: gpoll.Position{Epoch: 1, Seq: 203}, Topic: "other"})
			broker.mu.Unlock()
			s.settle()
			broker.at(1, 204)
			a := <-answered
			if a.body != "1-204" || len(a.header.Values("Gpoll-Gap")) != 1 {
				t.Errorf("%d %q %v", a.status, a.body, a.header)
			}
		})
	}
}
