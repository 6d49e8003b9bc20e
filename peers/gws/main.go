// Command gws measures github.com/lxzan/gws with its Broadcaster.
package main

import (
	"bytes"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/lxzan/gws"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
	"github.com/corvuscrypto/gpoll/peers/internal/web"
)

type handler struct {
	gws.BuiltinEventHandler
	mu    sync.Mutex
	conns map[*gws.Conn]struct{}
}

func (h *handler) OnOpen(c *gws.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[c] = struct{}{}
}

func (h *handler) OnClose(c *gws.Conn, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

func (h *handler) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

func (h *handler) broadcast(p []byte) error {
	b := gws.NewBroadcaster(gws.OpcodeText, bytes.Clone(p))
	defer b.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		if err := b.Broadcast(c); err != nil {
			return err
		}
	}
	return nil
}

// A listener counts what clients say.
type listener struct {
	gws.BuiltinEventHandler
	heard atomic.Uint64
}

func (l *listener) OnMessage(_ *gws.Conn, m *gws.Message) {
	l.heard.Add(1)
	_ = m.Close() // which gives its memory back
}

func (l *listener) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

// An echo answers what clients say with the same.
type echo struct{ listener }

func (e *echo) OnMessage(c *gws.Conn, m *gws.Message) {
	_ = c.WriteMessage(m.Opcode, m.Bytes()) // the reader sees a closed connection
	_ = m.Close()
}

func main() {
	h := &handler{conns: map[*gws.Conn]struct{}{}}
	l := &listener{}
	mux := http.NewServeMux()
	mux.Handle("/ws", upgrade(h))
	mux.Handle("/in", upgrade(l))
	mux.Handle("/echo", upgrade(&echo{}))
	serve.Main(serve.Peer{Heard: l.heard.Load, Start: func(ln net.Listener) (func([]byte) error, error) {
		web.Serve(ln, "/", mux)
		return h.broadcast, nil
	}})
}

func upgrade(h gws.Event) http.Handler {
	up := gws.NewUpgrader(h, &gws.ServerOption{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r)
		if err != nil {
			return
		}
		go c.ReadLoop() // ends with the connection; the handler's own goroutine gives its stack back
	})
}
