package gpoll_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// Things that are measured side by side take turns within one run, so that other work of the machine falls on both. The
// figures are medians. The ns/op of a benchmark is gpoll's own part.

var benchMessage = strings.Repeat("m", 128)

// A crowd is consumers inside the process, in the order in which their routines serve them.
type crowd struct {
	b        *gpoll.Broadcaster
	channels []chan string
	last     []chan string // of each routine: when it has the message, the others have it too
	heap     int           // bytes that the clients take, channels included
}

// newCrowd registers clients with the channels of GetChannel, topic by topic when topics is not 0.
func newCrowd(tb testing.TB, clients, buffer, topics int) *crowd {
	tb.Helper()
	before := heapBytes()
	c := &crowd{channels: make([]chan string, clients), b: &gpoll.Broadcaster{
		ClientBufferSize: buffer, MaxClients: clients, RegisterRate: -1,
		ClientTTL: time.Hour, AttachTimeout: time.Hour,
	}}
	tb.Cleanup(func() {
		if err := c.b.Shutdown(context.Background()); err != nil {
			tb.Errorf("Shutdown: %v", err)
		}
	})
	for i := range c.channels {
		ch, err := c.b.GetChannel(c.register(tb, i, topics))
		if err != nil {
			tb.Fatal(err)
		}
		c.channels[i] = ch
		if (i+1)%1000 == 0 || i+1 == clients { // RoutineMaxClients
			c.last = append(c.last, ch)
		}
	}
	c.heap = heapBytes() - before
	return c
}

func (c *crowd) register(tb testing.TB, i, topics int) (uuid string, routine int) {
	tb.Helper()
	if topics == 0 {
		return c.b.AddClient()
	}
	w := httptest.NewRecorder()
	c.b.HandleRequests(w, httptest.NewRequest(http.MethodGet, fmt.Sprintf("/poll?client-id=0&topic=%d", i%topics), nil))
	id := strings.ReplaceAll(idOf(tb, w.Body.String()), "$", " ")
	if _, err := fmt.Sscanf(id, "%d %s", &routine, &uuid); err != nil {
		tb.Fatal(err)
	}
	return uuid, routine
}

// heapBytes returns the bytes of live heap objects.
func heapBytes() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// broadcast sends a message and returns the time until the last client had it. Then it takes the message from all
// channels.
func (c *crowd) broadcast(tb testing.TB) time.Duration {
	began := time.Now()
	c.b.Send(benchMessage)
	return c.took(tb, began)
}

func (c *crowd) took(tb testing.TB, began time.Time) time.Duration {
	for _, ch := range c.last {
		if got := <-ch; got != benchMessage {
			tb.Fatalf("got %q", got)
		}
	}
	took := time.Since(began)
	next := 0
	for _, ch := range c.channels {
		if ch == c.last[next] {
			next++
			continue
		}
		select {
		case got := <-ch:
			if got != benchMessage {
				tb.Fatalf("got %q", got)
			}
		default:
			tb.Fatal("a client did not get the message")
		}
	}
	return took
}

// newChannels makes as many channels as a crowd has, without other memory between them.
func newChannels(clients, buffer int) []chan string {
	channels := make([]chan string, clients)
	for i := range channels {
		channels[i] = make(chan string, buffer)
	}
	return channels
}

// bareSends makes a twin of a crowd: as many goroutines as the crowd has routines. Each sends what it is given on 1,000
// of the channels. bareSends returns a function that measures such a broadcast.
func bareSends(tb testing.TB, channels []chan string) (broadcast func() time.Duration) {
	c := &crowd{channels: channels}
	var wakes []chan string
	for part := range slices.Chunk(c.channels, 1000) {
		wake := make(chan string, 1)
		wakes = append(wakes, wake)
		c.last = append(c.last, part[len(part)-1])
		go func() { // ends when wake is closed
			for msg := range wake {
				for _, ch := range part {
					select { // as a routine does: it waits for nobody
					case ch <- msg:
					default:
						panic("a channel is full")
					}
				}
			}
		}()
	}
	tb.Cleanup(func() {
		for _, wake := range wakes {
			close(wake)
		}
	})
	return func() time.Duration {
		began := time.Now()
		for _, wake := range wakes {
			wake <- benchMessage
		}
		return c.took(tb, began)
	}
}

// setProcs sets GOMAXPROCS until the benchmark ends. A Broadcaster reads it when it starts.
func setProcs(tb testing.TB, n int) {
	old := runtime.GOMAXPROCS(n)
	tb.Cleanup(func() { runtime.GOMAXPROCS(old) })
}

// A series is measurements of one thing.
type series []time.Duration

func (s series) percentile(p int) float64 {
	sorted := slices.Sorted(slices.Values(s))
	return float64(sorted[(len(sorted)-1)*p/100])
}

// BenchmarkFanOut measures broadcasts inside the process beside a bare loop of channel sends, with one processor. The
// bare loop first has channels of its own and then those of the crowd. The first ratio includes the effect of where the
// channels lie in memory; the second does not.
func BenchmarkFanOut(b *testing.B) {
	for _, clients := range []int{1000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			setProcs(b, 1)
			buffer := 100
			if clients > 100_000 {
				buffer = 4 // a channel of 100 takes 1.7 KB
			}
			c := newCrowd(b, clients, buffer, 0)
			sends := bareSends(b, newChannels(clients, buffer))
			sendsToSame := bareSends(b, c.channels)
			for range buffer { // every slot of the channels has been touched
				c.broadcast(b)
				sends()
			}
			// The two take turns of several broadcasts, because the first broadcast of a turn finds the other's clients
			// in the caches. If a broadcast takes long, the turns are short, so that other work of the machine falls on
			// both.
			turn, rounds := 8, 1
			if clients >= 100_000 {
				turn = 2
			}
			if clients > 100_000 {
				rounds = 10 // the time for a benchmark would be over after one
			}
			var own, limit, same series
			runtime.GC() // and not while something is measured
			b.ReportAllocs()
			for b.Loop() {
				for range rounds {
					for range turn {
						own = append(own, c.broadcast(b))
					}
					for range turn {
						limit = append(limit, sends())
					}
					for range turn {
						same = append(same, sendsToSame())
					}
				}
			}
			over := func(bare series) float64 { // the median of the turns'
				var ratios []float64
				for i := 0; i < len(own); i += turn {
					ratios = append(ratios, own[i:i+turn].percentile(50)/bare[i:i+turn].percentile(50))
				}
				slices.Sort(ratios)
				return ratios[len(ratios)/2]
			}
			n := float64(clients)
			b.ReportMetric(own.percentile(50), "ns/op")
			b.ReportMetric(own.percentile(50)/n, "ns/delivery")
			b.ReportMetric(limit.percentile(50)/n, "bare-ns/delivery")
			b.ReportMetric(over(limit), "x-bare")
			b.ReportMetric(over(same), "x-bare-same-channels")
			b.ReportMetric(1e9*n/own.percentile(50), "deliveries/s")
			b.ReportMetric(float64(c.heap)/n, "B/client")
		})
	}
}

// BenchmarkTwoCores measures a broadcast to clients of several routines with one processor and with two, and the same
// for bare goroutines that send. It reports the fastest tenth beside the median, because two processors are seldom left
// alone.
func BenchmarkTwoCores(b *testing.B) {
	if runtime.NumCPU() < 2 {
		b.Skip("there is one processor")
	}
	for _, clients := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			setProcs(b, 2)
			double := newCrowd(b, clients, 10, 0)
			runtime.GOMAXPROCS(1)
			single := newCrowd(b, clients, 10, 0)
			sends := bareSends(b, newChannels(clients, 10))
			round := func(procs int, broadcast func() time.Duration) (s series) {
				runtime.GOMAXPROCS(procs)
				for i := range 25 {
					if took := broadcast(); i >= 5 { // the first wake what has slept
						s = append(s, took)
					}
				}
				return s
			}
			var one, two, bareOne, bareTwo series
			for b.Loop() {
				one = append(one, round(1, func() time.Duration { return single.broadcast(b) })...)
				two = append(two, round(2, func() time.Duration { return double.broadcast(b) })...)
				bareOne = append(bareOne, round(1, sends)...)
				bareTwo = append(bareTwo, round(2, sends)...)
			}
			b.ReportMetric(two.percentile(50), "ns/op")
			b.ReportMetric(two.percentile(50)/float64(clients), "ns/delivery")
			b.ReportMetric(one.percentile(50)/two.percentile(50), "x-one-core")
			b.ReportMetric(one.percentile(10)/two.percentile(10), "x-one-core-best")
			b.ReportMetric(bareOne.percentile(50)/bareTwo.percentile(50), "bare-x-one-core")
			b.ReportMetric(bareOne.percentile(10)/bareTwo.percentile(10), "bare-x-one-core-best")
		})
	}
}

// BenchmarkTopic measures a message to one of many topics with one processor, until no work is left, beside a smaller
// server.
func BenchmarkTopic(b *testing.B) {
	for _, size := range []struct{ clients, topics int }{
		{10_000, 1000}, {100_000, 10_000}, {100_000, 1000}, {100_000, 100},
	} {
		b.Run(fmt.Sprintf("clients=%d/topics=%d", size.clients, size.topics), func(b *testing.B) {
			setProcs(b, 1)
			c := newCrowd(b, size.clients, 10, size.topics)
			members := make([][]chan string, size.topics)
			for i, ch := range c.channels {
				members[i%size.topics] = append(members[i%size.topics], ch)
			}
			subscribers := float64(len(members[0]))
			n := 0
			publish := func() []chan string {
				topic := n * 7919 % size.topics
				n++
				m := gpoll.Message{Topic: fmt.Sprint(topic), Data: []byte(benchMessage)}
				if _, err := c.b.Publish(b.Context(), m); err != nil {
					b.Fatal(err)
				}
				return members[topic]
			}
			for _, ch := range publish() {
				select {
				case <-ch:
				case <-time.After(patience):
					b.Fatal("a subscriber did not get its message")
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				for _, ch := range publish() {
					<-ch
				}
			}
			if got := c.b.Stats().Delivered; got != uint64(n)*uint64(subscribers) {
				b.Errorf("%d deliveries of %d messages to %v subscribers each", got, n, subscribers)
			}
			b.ReportMetric(subscribers, "subscribers")
			b.ReportMetric(float64(b.Elapsed())/float64(n)/subscribers, "ns/delivery")
		})
	}
}

// Send while 10,000 clients are attached, with and without 100 that never read.
func BenchmarkSend(b *testing.B) {
	const clients, dead = 10_000, 100
	setProcs(b, 1)
	all := newCrowd(b, clients, 100, 0)
	some := newCrowd(b, clients, 100, 0)
	some.stopReading(b, dead)
	more := some.allocations(b) - newCrowd(b, 100, 100, 0).allocations(b)
	send := func(c *crowd) time.Duration {
		began := time.Now()
		c.b.Send(benchMessage)
		took := time.Since(began)
		c.took(b, began)
		return took
	}
	var without, with series
	b.ReportAllocs()
	for b.Loop() {
		without = append(without, send(all))
		with = append(with, send(some))
	}
	b.ReportMetric(with.percentile(50), "ns/op")
	b.ReportMetric(without.percentile(50), "p50-ns")
	b.ReportMetric(without.percentile(99), "p99-ns")
	b.ReportMetric(with.percentile(50), "dead-p50-ns")
	b.ReportMetric(with.percentile(99), "dead-p99-ns")
	b.ReportMetric(more, "more-allocs")
	b.ReportMetric(with.percentile(50)/without.percentile(50), "x-p50")
	b.ReportMetric(with.percentile(99)/without.percentile(99), "x-p99")
}

// stopReading leaves n clients, spread over the routines, with full channels that nobody reads.
func (c *crowd) stopReading(tb testing.TB, n int) {
	every := len(c.channels) / n
	var reading []chan string
	for i, ch := range c.channels {
		if i%every != 0 {
			reading = append(reading, ch)
		}
	}
	dead := c.channels[0]
	c.channels = reading
	for range 2 * cap(dead) {
		c.broadcast(tb)
	}
	if len(dead) != cap(dead) {
		tb.Fatalf("%d messages wait for who does not read, of %d", len(dead), cap(dead))
	}
}

// Publish without a client: the log, the memory broker and the checks.
func BenchmarkPublish(b *testing.B) {
	broadcaster := gpoll.NewBroadcaster()
	b.Cleanup(func() { _ = broadcaster.Shutdown(context.Background()) }) // it has no client to wait for
	m := gpoll.Message{Data: []byte(benchMessage)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := broadcaster.Publish(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}

// Send allocates for the message, not for the clients: neither for those who read nor for those who do not.
func TestSendAllocations(t *testing.T) {
	few := newCrowd(t, 100, 10, 0).allocations(t)
	for _, dead := range []int{0, 100} {
		c := newCrowd(t, 10_000, 10, 0)
		if dead > 0 {
			c.stopReading(t, dead)
		}
		if got := c.allocations(t); got > few+0.5 {
			t.Errorf("a broadcast to 10,000 clients, %d of whom do not read: %v allocations, to 100 clients %v", dead, got, few)
		}
	}
}

// allocations returns how many a broadcast takes, from the call of Send until the clients have it.
func (c *crowd) allocations(tb testing.TB) float64 {
	for range 20 {
		c.broadcast(tb) // everything has the size that it needs
	}
	return testing.AllocsPerRun(50, func() { c.broadcast(tb) })
}
