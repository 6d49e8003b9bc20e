// Command coder measures github.com/coder/websocket with a goroutine per client that takes messages from a buffered
// channel.
package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
	"github.com/corvuscrypto/gpoll/peers/internal/web"
)

type hub struct {
	mu      sync.Mutex
	clients map[chan []byte]func()
}

func main() {
	h := &hub{clients: map[chan []byte]func(){}}
	var heard atomic.Uint64
	mux := http.NewServeMux()
	mux.Handle("/ws", h)
	mux.Handle("/in", read(func(*websocket.Conn, websocket.MessageType, []byte) { heard.Add(1) }))
	mux.Handle("/echo", read(func(c *websocket.Conn, kind websocket.MessageType, p []byte) {
		_ = c.Write(context.Background(), kind, p) // the reader sees a closed connection
	}))
	serve.Main(serve.Peer{Heard: heard.Load, Start: func(ln net.Listener) (func([]byte) error, error) {
		web.Serve(ln, "/", mux)
		return h.broadcast, nil
	}})
}

func (h *hub) broadcast(p []byte) error {
	msg := bytes.Clone(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	for c, slow := range h.clients {
		select {
		case c <- msg:
		default:
			go slow() // ends when the close handshake does
			delete(h.clients, c)
		}
	}
	return nil
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx := conn.CloseRead(context.Background())
	c := make(chan []byte, 256)
	h.mu.Lock()
	h.clients[c] = func() { _ = conn.Close(websocket.StatusPolicyViolation, "slow") }
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.clients, c)
	}()
	for {
		select {
		case msg := <-c:
			if err := write(ctx, conn, msg); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// read hands each message to hear.
func read(hear func(c *websocket.Conn, kind websocket.MessageType, p []byte)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			kind, p, err := conn.Read(context.Background())
			if err != nil {
				return
			}
			hear(conn, kind, p)
		}
	})
}

func write(ctx context.Context, conn *websocket.Conn, msg []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, msg)
}
