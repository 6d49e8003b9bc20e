package gpoll

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPresence measures a second of 100,000 clients in 1,000 topics, of whom 1 % go and as many come. The watchers
// of each topic are told by SSE over loopback. The metrics are parts of a core, by the clock of the benchmark's own
// thread: %telling is the end of the batch with its writes to the sockets; %moving is to remove the clients and to
// register others, which costs presence what it is above that of watchers=0. B/member is the memory of the book, and
// B/member-asked that of the members' JSON while watchers ask for it.
func BenchmarkPresence(b *testing.B) {
	const clients, topics, moves = 100_000, 1000, 1000
	for _, watchers := range []int{0, 1, 4} { // of each topic
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			broadcaster := &Broadcaster{MaxClients: 2 * clients, AttachTimeout: time.Hour, ClientTTL: time.Hour,
				RegisterRate: -1, Authorize: func(*http.Request) (Grant, error) {
					return Grant{Presence: func(string) bool { return true }}, nil
				}}
			server := httptest.NewServer(http.HandlerFunc(broadcaster.ServeHTTP))
			b.Cleanup(server.Close)
			b.Cleanup(broadcaster.Reset)
			come := func(i int) *Client {
				c, refused := broadcaster.register(registration{user: fmt.Sprintf("user-%d", i),
					named: []string{fmt.Sprintf("topic-%d", i%topics)}})
				if refused != nil {
					b.Fatal(refused.code)
				}
				a, err := c.open(&attachOptions{named: c.named})
				if err != nil {
					b.Fatal(err)
				}
				a.close(Position{}, nil)
				return c
			}
			if err := broadcaster.start(); err != nil {
				b.Fatal(err)
			}
			p := &broadcaster.present
			p.batching = true // the loop below ends the batches
			here := make([]*Client, 0, clients)
			for i := range clients {
				here = append(here, come(i))
			}
			before, member, asked := liveHeap(), 0.0, 0.0
			if watchers > 0 {
				for i := range topics {
					p.record(fmt.Sprintf("topic-%d", i))
				}
				member = float64(liveHeap()-before) / clients
			}
			for i := range watchers * topics {
				watchForBenchmark(b, server.Listener.Addr().String(), i%topics)
			}
			if watchers > 0 {
				p.mu.Lock()
				before = 0
				for _, t := range p.topics {
					before += cap(p.snapshotLocked(t))
				}
				p.mu.Unlock()
				asked = float64(before) / clients
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			n := 0
			move := func() {
				for range moves {
					i := n * 7919 % clients
					n++
					broadcaster.remove(here[i], endLeft)
					here[i] = come(i)
				}
			}
			told, moved := time.Duration(0), time.Duration(0)
			b.ResetTimer()
			for b.Loop() {
				begun := threadTime(b)
				move()
				moved += threadTime(b) - begun
				begun = threadTime(b)
				for _, w := range p.takeBatch() {
					w.client.tellPresence()
				}
				told += threadTime(b) - begun
			}
			b.ReportMetric(100*told.Seconds()/float64(b.N), "%telling")
			b.ReportMetric(100*moved.Seconds()/float64(b.N), "%moving")
			if watchers > 0 {
				b.ReportMetric(member, "B/member")
				b.ReportMetric(asked, "B/member-asked")
			}
		})
	}
}

// threadTime is the processor time of this thread.
func threadTime(b *testing.B) time.Duration {
	const thisThread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(thisThread, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watchForBenchmark opens an SSE response that watches a topic, and reads it until the benchmark ends.
func watchForBenchmark(b *testing.B, address string, topic int) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "GET /?format=json&presence=topic-%d HTTP/1.1\r\nHost: %s\r\n"+
		"Accept: text/event-stream\r\n\r\n", topic, address)
	if err != nil {
		b.Fatal(err)
	}
	first := make([]byte, 1)
	if _, err := conn.Read(first); err != nil {
		b.Fatal(err)
	}
	go func() { // ends with the connection
		_, _ = io.Copy(io.Discard, conn)
	}()
}
