package gpoll

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"
)

// TestStruct is one broadcast of a benchmark, under the name of the 2015 package.
type TestStruct struct {
	Ns       int64 // from the call of Send until the last client had the message
	Clients  int
	Routines int
}

// BenchmarkResult is what a benchmark found.
type BenchmarkResult struct {
	MessageSize int // bytes
	Clients     int
	Routines    int
	Broadcasts  []TestStruct // in order

	Min, Avg, Max, P50, P90, P99 time.Duration // of one broadcast to all clients

	PerDelivery    time.Duration // Avg divided by the clients
	BytesPerClient int           // heap of a registered client with its channel
}

// Benchmark registers virtual clients, sends them numMsgs messages of msgSize bytes and prints what it found: see
// [Broadcaster.MeasureFanOut]. The 2015 package had it, without percentiles and memory.
func (b *Broadcaster) Benchmark(msgSize int, clients int, numMsgs int) error {
	result, err := b.MeasureFanOut(msgSize, clients, numMsgs)
	if err != nil {
		return err
	}
	result.print(os.Stdout)
	return nil
}

// MeasureFanOut measures broadcasts to virtual clients: each has the channel of GetChannel, and a broadcast is over
// when the last of them has the message. It uses a Broadcaster of its own with b's sizes: it disturbs no real client
// and leaves nothing behind. It takes about clients × numMsgs × 0.1 µs.
//
// The error says which value is bad: each must be above 0, numMsgs at most ClientBufferSize, as in the 2015 package,
// and msgSize at most MaxMessage.
func (b *Broadcaster) MeasureFanOut(msgSize, clients, numMsgs int) (BenchmarkResult, error) {
	var none BenchmarkResult
	if err := b.start(); err != nil {
		return none, err
	}
	switch {
	case msgSize <= 0 || msgSize > b.set.maxMessage:
		return none, fmt.Errorf("gpoll: benchmark: a message size of %d bytes; it must be 1 to %d (MaxMessage)",
			msgSize, b.set.maxMessage)
	case clients <= 0:
		return none, fmt.Errorf("gpoll: benchmark: %d clients; there must be at least one", clients)
	case numMsgs <= 0:
		return none, fmt.Errorf("gpoll: benchmark: %d messages; there must be at least one", numMsgs)
	case numMsgs > b.set.clientBuffer:
		return none, fmt.Errorf("gpoll: benchmark: %d messages; the limit is ClientBufferSize, %d: raise it or send fewer",
			numMsgs, b.set.clientBuffer)
	}
	twin := &Broadcaster{
		RoutineMaxClients: b.RoutineMaxClients,
		ClientBufferSize:  b.ClientBufferSize,
		RoutineBufferSize: b.RoutineBufferSize,
		SyncDelayMs:       b.SyncDelayMs,
		MaxMessage:        b.MaxMessage,
		MaxClients:        max(clients, 1),
	}
	defer func() { _ = twin.Shutdown(context.Background()) }()

	before := heapInUse()
	channels := make([]chan string, clients)
	for i := range channels {
		ch, err := twin.GetChannel(twin.AddClient())
		if err != nil {
			return none, fmt.Errorf("gpoll: benchmark: %w", err)
		}
		channels[i] = ch
	}
	result := BenchmarkResult{
		MessageSize:    msgSize,
		Clients:        clients,
		BytesPerClient: max(heapInUse()-before-8*clients, 0) / clients,
		Broadcasts:     make([]TestStruct, numMsgs),
	}
	result.Routines = twin.Stats().Routines
	msg := string(make([]byte, msgSize))
	for i := range result.Broadcasts {
		began := time.Now()
		twin.Send(msg)
		for _, ch := range channels {
			if got, ok := <-ch; !ok || len(got) != msgSize {
				return none, fmt.Errorf("gpoll: benchmark: broadcast %d was lost", i)
			}
		}
		result.Broadcasts[i] = TestStruct{time.Since(began).Nanoseconds(), clients, result.Routines}
	}
	result.summarize()
	return result, nil
}

// heapInUse returns the bytes of live heap objects.
func heapInUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func (res *BenchmarkResult) summarize() {
	sorted := slices.SortedFunc(slices.Values(res.Broadcasts),
		func(a, b TestStruct) int { return cmp.Compare(a.Ns, b.Ns) })
	n := len(sorted)
	at := func(percent int) time.Duration { // the smallest value that percent of them do not exceed
		return time.Duration(sorted[max((n*percent+99)/100-1, 0)].Ns)
	}
	res.Min, res.P50, res.P90, res.P99, res.Max = at(0), at(50), at(90), at(99), at(100)
	total := int64(0)
	for _, broadcast := range sorted {
		total += broadcast.Ns
	}
	res.Avg = time.Duration(total / int64(n))
	res.PerDelivery = res.Avg / time.Duration(res.Clients)
}

func (res *BenchmarkResult) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, `%d broadcasts of %d bytes to %d clients in %d routines
minimum  %d ns
average  %d ns
maximum  %d ns
p50 %v   p90 %v   p99 %v
%d ns for each client and message, %d bytes for each client
`, len(res.Broadcasts), res.MessageSize, res.Clients, res.Routines,
		res.Min.Nanoseconds(), res.Avg.Nanoseconds(), res.Max.Nanoseconds(),
		res.P50, res.P90, res.P99, res.PerDelivery.Nanoseconds(), res.BytesPerClient)
}
