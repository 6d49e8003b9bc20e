package client_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
)

// serve starts a server on a socket of the system.
func serve(b *testing.B, set func(*gpoll.Broadcaster)) (*gpoll.Broadcaster, string) {
	s := gpoll.NewBroadcaster()
	set(s)
	mux := http.NewServeMux()
	s.ListenAndBroadcast("/poll", mux)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }() // ends with srv.Close
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			b.Error(err)
		}
		srv.Close()
		<-served
	})
	return s, "http://" + ln.Addr().String() + "/poll"
}

// Messages of 128 bytes from a server in the same process into one consumer. b.N is how many.
func BenchmarkReceive(b *testing.B) {
	for _, transport := range transports {
		b.Run(string(transport), func(b *testing.B) {
			s, address := serve(b, func(s *gpoll.Broadcaster) { s.History.Count, s.History.Bytes = 100_000, 256<<20 })
			c, err := client.Dial(b.Context(), address, client.Options{Transports: []client.Transport{transport}})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			data := []byte(fmt.Sprintf("%0128d", 7))
			room := make(chan struct{}, 20_000) // the window must not run out
			go func() {                         // ends when b.N messages are published
				for range b.N {
					room <- struct{}{}
					if _, err := s.Publish(context.Background(), gpoll.Message{Data: data}); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			b.ReportAllocs()
			b.ResetTimer()
			n := 0
			for m, err := range c.Messages(b.Context()) {
				if err != nil || m.Gap != nil || len(m.Data) != len(data) {
					b.Fatal(m, err)
				}
				<-room
				if n++; n == b.N {
					break
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// What a connected client that waits for messages costs in this process: goroutines, and bytes of heap and stacks.
func BenchmarkIdle(b *testing.B) {
	for _, transport := range transports {
		b.Run(string(transport), func(b *testing.B) {
			if b.N > 1 {
				b.Skip("one round")
			}
			child := serverProcess(b)
			measure := func() (goroutines int, bytes uint64) {
				runtime.GC()
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return runtime.NumGoroutine(), m.HeapAlloc + m.StackInuse
			}
			const clients = 500
			goroutines, bytes := measure()
			all := make([]*client.Client, clients)
			for i := range all {
				c, err := client.Dial(b.Context(), child, client.Options{Transports: []client.Transport{transport}})
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				all[i] = c
			}
			time.Sleep(2 * time.Second)
			after, afterBytes := measure()
			b.ReportMetric(float64(after-goroutines)/clients, "goroutines/client")
			b.ReportMetric(float64(afterBytes-bytes)/clients/1024, "KB/client")
			b.ReportMetric(0, "ns/op")
			runtime.KeepAlive(all)
		})
	}
}
