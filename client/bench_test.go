package client_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
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
			data := fmt.Appendf(nil, "%0128d", 7)
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

// Frames that were prepared, so that the client alone is measured, and the program that takes them.
func BenchmarkReceivePrepared(b *testing.B) {
	for name, element := range map[string]string{
		"plain":   `{"id":"9f86d081884c7d65-%d","topic":"news","data":"%0120d"}`,
		"escaped": `{"id":"9f86d081884c7d65-%d","topic":"news","data":"\\n%0120d"}`,
	} {
		b.Run(name, func(b *testing.B) {
			var frames bytes.Buffer
			frame := func(text string) {
				frames.Write([]byte{0x81, 126})
				_ = binary.Write(&frames, binary.BigEndian, uint16(len(text)))
				frames.WriteString(text)
			}
			frame(`{"welcome":{"client-id":"0$6ba7b811-9dad-41d1-80b4-00c04fd430c8","position":"9f86d081884c7d65-0",` +
				`"heartbeat_ms":15000,"spread_ms":100}}`)
			for i := range b.N {
				frame(fmt.Sprintf(element, i+1, i))
			}
			begin := make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
				fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
					"Sec-WebSocket-Protocol: gpoll.v1\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
				_ = rw.Flush()
				all := frames.Bytes()
				welcome := 4 + int(binary.BigEndian.Uint16(all[2:]))
				_, _ = conn.Write(all[:welcome])
				<-begin
				_, _ = conn.Write(all[welcome:])
				_, _ = io.Copy(io.Discard, conn)
			}))
			defer srv.Close()
			c, err := client.Dial(b.Context(), srv.URL, client.Options{Transports: []client.Transport{client.WebSocket}})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			b.ReportAllocs()
			b.ResetTimer()
			close(begin)
			n := 0
			for m, err := range c.Messages(b.Context()) {
				if err != nil || m.Gap != nil || len(m.Data) < 120 {
					b.Fatal(m, err)
				}
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
