// Command gorilla measures github.com/gorilla/websocket with a hub as most programs have it: one goroutine that reads
// and one that writes per client, and a buffered channel between hub and writer. It drops a client that does not keep
// up.
package main

import (
	"bytes"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
	"github.com/corvuscrypto/gpoll/peers/internal/web"
)

const (
	writeWait  = 10 * time.Second
	pingPeriod = 54 * time.Second
)

type client struct {
	conn *websocket.Conn
	send chan []byte
}

type hub struct {
	mu      sync.Mutex
	clients map[*client]struct{}
}

func main() {
	h := &hub{clients: map[*client]struct{}{}}
	var heard atomic.Uint64
	mux := http.NewServeMux()
	mux.Handle("/ws", h)
	mux.Handle("/in", read(func(*websocket.Conn, int, []byte) { heard.Add(1) }))
	mux.Handle("/echo", read(func(c *websocket.Conn, kind int, p []byte) {
		_ = c.WriteMessage(kind, p) // the reader sees a closed connection
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
	for c := range h.clients {
		select {
		case c.send <- msg:
		default:
			delete(h.clients, c)
			close(c.send)
		}
	}
	return nil
}

func (h *hub) remove(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.clients[c]; ok {
		delete(h.clients, c)
		close(c.send)
	}
}

var upgrader = websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &client{conn: conn, send: make(chan []byte, 256)}
	h.mu.Lock()
	h.clients[c] = struct{}{}
	h.mu.Unlock()
	go c.write()
	go func() {
		defer h.remove(c)
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				return
			}
		}
	}()
}

// read hands each message to hear.
func read(hear func(c *websocket.Conn, kind int, p []byte)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		go func() { // ends with the connection
			defer conn.Close()
			for {
				kind, p, err := conn.ReadMessage()
				if err != nil {
					return
				}
				hear(conn, kind, p)
			}
		}()
	})
}

func (c *client) write() {
	defer c.conn.Close()
	ping := time.NewTicker(pingPeriod)
	defer ping.Stop()
	for {
		select {
		case msg, ok := <-c.send:
			_ = c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if !ok {
				_ = c.conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseTryAgainLater, "slow"))
				return
			}
			if err := c.conn.WriteMessage(websocket.TextMessage, msg); err != nil {
				return
			}
		case <-ping.C:
			_ = c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if err := c.conn.WriteMessage(websocket.PingMessage, nil); err != nil {
				return
			}
		}
	}
}
