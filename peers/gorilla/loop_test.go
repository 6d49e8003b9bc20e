package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/corvuscrypto/gpoll/eventloop"
)

// counter is a handler that waits for so many messages.
type counter struct {
	left int
	all  chan struct{}
}

func (c *counter) ConnAccepted(*eventloop.Loop, uint64)            {}
func (c *counter) ConnClosed(*eventloop.Loop, uint64)              {}
func (c *counter) EventLoopTimeout(*eventloop.Loop)                {}
func (c *counter) MessageReceived(*eventloop.Loop, uint64, []byte) { c.heard() }

func (c *counter) heard() {
	if c.left--; c.left == 0 {
		close(c.all)
	}
}

// The messages of 50 plain WebSockets go through one event loop, and through a loop as one writes it with gorilla: a
// goroutine reads each connection, and one takes what they read from a channel. -cpu 1 is one core, which the clients
// share: they write frames that are made beforehand.
func BenchmarkLoop(b *testing.B) {
	const conns, size = 50, 32
	loops := map[string]func(*testing.B, *counter) string{"eventloop": serveEventLoop, "gorilla": serveGorilla}
	for name, serve := range loops {
		b.Run(name, func(b *testing.B) {
			per := max(b.N/conns, 1)
			c := &counter{left: per * conns, all: make(chan struct{})}
			addr := serve(b, c)
			frames := make([]byte, 0, per*(size+6))
			for range per {
				frames = append(frames, 0x82, 0x80|size)
				frames = binary.BigEndian.AppendUint32(frames, 0) // the key of a mask that changes nothing
				frames = append(frames, make([]byte, size)...)
			}
			socks := make([]net.Conn, conns)
			for i := range socks {
				ws, _, err := websocket.DefaultDialer.Dial("ws://"+addr, nil)
				if err != nil {
					b.Fatal(err)
				}
				socks[i] = ws.NetConn()
				defer socks[i].Close()
			}
			var writers sync.WaitGroup
			b.ResetTimer()
			for _, sock := range socks {
				writers.Go(func() {
					if _, err := sock.Write(frames); err != nil {
						b.Error(err)
					}
				})
			}
			<-c.all
			b.ReportMetric(float64(per*conns)/b.Elapsed().Seconds(), "messages/s")
			writers.Wait()
		})
	}
}

func serveEventLoop(b *testing.B, c *counter) string {
	l := eventloop.New(c)
	l.Broadcaster().Logger = slog.New(slog.DiscardHandler)
	addr, err := l.Listen("127.0.0.1:0", nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go l.Run(ctx) // ends with ctx
	b.Cleanup(func() {
		cancel()
		_ = l.Shutdown(context.Background()) // the sockets are closed
	})
	return addr.String()
}

func serveGorilla(b *testing.B, c *counter) string {
	type message struct {
		conn *websocket.Conn
		data []byte
	}
	messages := make(chan message, 1024)
	ended := make(chan struct{})
	go func() { // the loop
		for {
			select {
			case <-messages:
				c.heard()
			case <-ended:
				return
			}
		}
	}()
	upgrader := websocket.Upgrader{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			_, data, err := conn.ReadMessage()
			if err != nil {
				return
			}
			select {
			case messages <- message{conn, data}:
			case <-ended:
				return
			}
		}
	}))
	b.Cleanup(func() {
		close(ended)
		srv.CloseClientConnections()
		srv.Close()
	})
	return fmt.Sprint(srv.Listener.Addr())
}
