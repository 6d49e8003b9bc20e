// Command gws measures github.com/lxzan/gws with its Broadcaster.
package main

import (
	"bytes"
	"net"
	"net/http"
	"sync"

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

func main() {
	h := &handler{conns: map[*gws.Conn]struct{}{}}
	up := gws.NewUpgrader(h, &gws.ServerOption{})
	serve.Main(serve.Peer{Start: func(ln net.Listener) (func([]byte) error, error) {
		web.Serve(ln, "/ws", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := up.Upgrade(w, r)
			if err != nil {
				return
			}
			go c.ReadLoop() // ends with the connection; the handler's own goroutine gives its stack back
		}))
		return h.broadcast, nil
	}})
}
