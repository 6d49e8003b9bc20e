package gpoll

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// BenchmarkVisit measures how a routine visits each client of a broadcast before it writes: its work for WebSockets
// that keep up, without the system call.
func BenchmarkVisit(b *testing.B) {
	for _, clients := range []int{1000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			before := liveHeap()
			broadcaster := &Broadcaster{MaxClients: clients, AttachTimeout: time.Hour, ClientTTL: time.Hour}
			if err := broadcaster.start(); err != nil {
				b.Fatal(err)
			}
			attaches := make([]*attach, 0, clients)
			b.Cleanup(func() {
				for _, a := range attaches {
					a.close(Position{}, nil) // there is no connection to be closed
				}
				broadcaster.Reset()
			})
			var routines []*routine
			for range clients {
				c, refused := broadcaster.register(registration{})
				if refused != nil {
					b.Fatal(refused.code)
				}
				s := &streamConn{b: broadcaster, form: formFrame, attach: new(attach)}
				s.stream.raw = brokenConn{}
				a, err := c.open(&attachOptions{transport: webSocket, by: s, memory: s.attach})
				if err != nil {
					b.Fatal(err)
				}
				if ev, _ := a.step(); ev != gotHandedOver {
					b.Fatalf("the routine did not take over: %d", ev)
				}
				attaches = append(attaches, a)
				if len(routines) == 0 || routines[len(routines)-1] != c.routine {
					routines = append(routines, c.routine)
				}
			}
			bytes := liveHeap() - before - 8*clients
			// With all turns taken the routines themselves wait.
			turns := make([]*scratch, cap(broadcaster.turns))
			for i := range turns {
				turns[i] = <-broadcaster.turns
			}
			seq := uint64(0)
			batch := make([]*record, 1)
			visit := func() (visited int) {
				seq++
				batch[0] = &record{pos: Position{1, seq}, data: "hello"}
				for _, r := range routines {
					r.mu.Lock()
					r.scratch = turns[0]
					r.offerLocked(batch)
					r.mu.Unlock()
					visited += len(r.writes)
					r.reset()
				}
				return visited
			}
			visit() // the memory of a turn has its size
			b.ReportAllocs()
			for b.Loop() {
				if visited := visit(); visited != clients {
					b.Fatalf("%d of %d clients were to be written to", visited, clients)
				}
			}
			for _, t := range turns {
				broadcaster.turns <- t
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(clients), "ns/client")
			b.ReportMetric(float64(bytes)/float64(clients), "B/client")
		})
	}
}

func liveHeap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// An append to a full window, with no routine that reads.
func BenchmarkLogAppend(b *testing.B) {
	l := newMessageLog(Position{1, 0}, Limits{Count: 10_000, Bytes: 16 << 20}, nil, 200)
	m := Message{Data: []byte("hello"), Position: Position{1, 0}}
	b.ReportAllocs()
	for b.Loop() {
		m.Position.Seq++
		if l.appendMessage(&m) == dropped {
			b.Fatal("refused")
		}
	}
}

// A read of the one message of a quiet topic, behind 10,000 messages of others.
func BenchmarkLogReadQuiet(b *testing.B) {
	for _, others := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			l := newMessageLog(Position{1, 0}, Limits{Count: 20_000, Bytes: 16 << 20}, nil, 200)
			at := uint64(1)
			l.appendMessage(&Message{Topic: "quiet", Data: []byte("hello"), Position: Position{1, at}})
			for i := range others {
				at++
				l.appendMessage(&Message{Topic: fmt.Sprintf("busy-%d", i%100), Data: []byte("hello"), Position: Position{1, at}})
			}
			want := &interest{topics: []string{"quiet"}, client: "somebody"}
			var items []item
			b.ReportAllocs()
			for b.Loop() {
				items, _, _ = l.read(Position{1, 0}, want, replay{500, 1 << 20}, items[:0])
				if len(items) != 1 || items[0].rec == nil {
					b.Fatalf("%d items", len(items))
				}
			}
		})
	}
}

// A percentile is the smallest value that so many percent do not exceed.
func TestBenchmarkPercentiles(t *testing.T) {
	for _, tt := range []struct {
		n             int
		p50, p90, p99 time.Duration
	}{{1, 1, 1, 1}, {2, 1, 2, 2}, {5, 3, 5, 5}, {100, 50, 90, 99}, {101, 51, 91, 100}} {
		r := BenchmarkResult{Clients: 1}
		for i := range tt.n {
			r.Broadcasts = append(r.Broadcasts, TestStruct{Ns: int64(tt.n - i)})
		}
		r.summarize()
		if r.P50 != tt.p50 || r.P90 != tt.p90 || r.P99 != tt.p99 || r.Min != 1 || r.Max != time.Duration(tt.n) {
			t.Errorf("of 1 to %d ns: min %d, p50 %d, p90 %d, p99 %d, max %d", tt.n, r.Min, r.P50, r.P90, r.P99, r.Max)
		}
	}
}
