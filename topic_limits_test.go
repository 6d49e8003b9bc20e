package gpoll_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// While TopicLimits runs for a topic, only the first publisher to that topic waits for it. No other publisher, no
// reader and no other server of the broker waits.
func TestTopicLimitsHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := gpoll.NewMemoryBroker()
		release := make(chan struct{})
		var asked atomic.Int32
		setting := setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Broker = broker
			b.TopicLimits = func(topic string) gpoll.Limits {
				if topic == "slow" {
					asked.Add(1)
					<-release
				}
				return gpoll.Limits{Count: 2}
			}
		}}
		here, there := start(t, setting), start(t, setting)
		id, after := here.register(t)
		far, _ := there.register(t)

		published := make(chan error, 1)
		go func() { // ends when the limits are known
			_, err := here.Publish(t.Context(), gpoll.Message{Topic: "slow", Data: []byte("s1")})
			published <- err
		}()
		synctest.Wait()
		here.Send("m1")
		here.mustPublish(t, "quick", "m2")
		if got := here.readBatchesUntil(t, "m2", id, after, "quick", "slow"); !slices.Equal(got, []string{"m1", "m2"}) {
			t.Errorf("here: %q", got)
		}
		select {
		case err := <-published:
			t.Fatalf("Publish to the topic whose limits are not known returned %v", err)
		default:
		}
		// The other server hears of the topic by its messages; they are not held up.
		for i := range 5 {
			publishTo(t, broker, gpoll.Message{Topic: "slow", Data: fmt.Append(nil, "far", i)})
		}
		there.Send("m3")
		want := []string{"m1", "m2", "far0", "far1", "far2", "far3", "far4", "m3"}
		if got := there.readBatchesUntil(t, "m3", far, after, "quick", "slow"); !slices.Equal(got, want) {
			t.Errorf("there: %q, want %q", got, want)
		}
		close(release)
		if err := <-published; err != nil {
			t.Error(err)
		}
		here.Send("end")
		synctest.Wait()
		// From here on each topic has its own window, which also holds its earlier messages.
		want = []string{"m1", "m2", "gap 3..6 evicted", "far4", "m3", "s1", "end"}
		for name, s := range map[string]*server{"here": here, "there": there} {
			id, _ := s.register(t)
			if got := s.readBatches(t, id, after, "quick", "slow"); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if n := asked.Load(); n > 3 { // who publishes here, and for the messages from elsewhere one here and one there
			t.Errorf("TopicLimits was asked %d times", n)
		}
	})
}

// readBatchesUntil is readBatches up to another last message.
func (s *server) readBatchesUntil(t testing.TB, last, id, after string, topics ...string) (seen []string) {
	t.Helper()
	pairs := []string{"client-id", id, "after", after, "format", "json"}
	for _, topic := range topics {
		pairs = append(pairs, "topic", topic)
	}
	for len(seen) == 0 || seen[len(seen)-1] != last {
		v := s.get(t, "/poll"+query(pairs...)).batch(t)
		for _, e := range v.Messages {
			seen = append(seen, seenElement(t, e))
		}
		pairs[3] = v.Position
	}
	return seen
}

// If TopicLimits returns impossible limits for a topic, the operator's log has one error, and the topic's messages are
// in the window that all topics share.
func TestTopicLimitsAreChecked(t *testing.T) {
	var log bytes.Buffer
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.History.Count = 5
		b.Logger = slog.New(slog.NewTextHandler(&log, nil))
		b.TopicLimits = func(topic string) gpoll.Limits {
			return map[string]gpoll.Limits{
				"count": {Count: -1},
				"bytes": {Bytes: -1},
				"age":   {Age: -time.Second},
				"many":  {Count: math.MaxInt},
				"large": {Bytes: math.MaxInt, Count: 1},
				"good":  {Count: 1},
			}[topic]
		}
	}})
	id, after := s.register(t)
	topics := []string{"count", "bytes", "age", "many", "large", "good"}
	for range 3 {
		for _, topic := range topics {
			s.mustPublish(t, topic, topic)
		}
	}
	s.Send("end")
	for _, topic := range topics {
		want := 1
		if topic == "good" {
			want = 0
		}
		if n := strings.Count(log.String(), "topic="+topic+" "); n != want {
			t.Errorf("%d errors in the log about topic %s, want %d:\n%s", n, topic, want, &log)
		}
	}
	want := []string{"gap 1..13 evicted", "bytes", "age", "many", "large", "good", "end"}
	if got := s.readBatches(t, id, after, topics...); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The windows of topics have bounds that they share: however many there are, they hold no more than History allows.
func TestTopicWindowsTogether(t *testing.T) {
	for _, c := range []struct {
		name     string
		history  gpoll.Limits
		size     int
		messages int // of topics that may be held
	}{
		{"count", gpoll.Limits{Count: 10}, 10, 160},
		{"bytes", gpoll.Limits{Bytes: 1 << 20}, 10_000, 105},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
				b.History = c.history
				b.TopicLimits = func(string) gpoll.Limits { return gpoll.Limits{Count: 1} }
			}})
			id, after := s.register(t)
			const topics = 1000
			data := strings.Repeat("x", c.size)
			for i := range topics {
				s.mustPublish(t, fmt.Sprint("topic-", i), data)
			}
			s.Send("end")
			st := s.Stats()
			if st.WindowMessages > c.messages+1 || st.WindowMessages < c.messages*8/10 {
				t.Errorf("the windows hold %d messages, want about %d", st.WindowMessages, c.messages)
			}
			// What has left is announced, what is there comes.
			if got := s.readBatches(t, id, after, "topic-0"); !slices.Equal(got, []string{"gap 1..1 evicted", "end"}) {
				t.Errorf("the oldest: %.200q", got)
			}
			if got := s.readBatches(t, id, after, fmt.Sprint("topic-", topics-1)); !slices.Equal(got, []string{data, "end"}) {
				t.Errorf("the newest: %.200q", got)
			}
		})
	}
}

// Stats, which a page may ask for every second, costs the same however many topics, users and clients there have been.
func TestStatsCost(t *testing.T) {
	cost := func(topics int) time.Duration {
		b := gpoll.NewBroadcaster()
		b.TopicLimits = func(string) gpoll.Limits { return gpoll.Limits{Count: 1} }
		for i := range topics {
			if _, err := b.Publish(t.Context(), gpoll.Message{Topic: fmt.Sprint("topic-", i), Data: []byte("m")}); err != nil {
				t.Fatal(err)
			}
		}
		least := time.Hour
		for range 200 {
			began := time.Now()
			b.Stats()
			least = min(least, time.Since(began))
		}
		return least
	}
	few, many := cost(1), cost(20_000)
	if many > 20*few+20*time.Microsecond {
		t.Errorf("Stats takes %v with one topic and %v with 20,000", few, many)
	}
}
