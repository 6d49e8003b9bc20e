package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// drain sends the clients away and waits for them, at most for limit. The Broadcaster goes first: http.Server.Shutdown
// alone would wait for polls and streams that nobody ends.
func drain(b *gpoll.Broadcaster, srv *http.Server, limit time.Duration, logger *slog.Logger) int {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := errors.Join(b.Shutdown(ctx), b.Broker.Close(ctx), srv.Shutdown(ctx))
	if err != nil {
		srv.Close()
		logger.Warn("not everybody left in time; raise -drain to wait longer", "error", err)
		return exitServe
	}
	logger.Info("drained")
	return exitOK
}

// unused holds the connections that have carried nothing yet. Browsers open some ahead of need. http.Server.Shutdown
// gives each of them five seconds to send its first request, which would be refused.
type unused struct {
	mu     sync.Mutex // guards the fields below
	conns  map[net.Conn]struct{}
	closed bool
}

// watch makes srv's Shutdown close the connections that are unused. It is for a srv that does not serve yet.
func (u *unused) watch(srv *http.Server) {
	u.conns = map[net.Conn]struct{}{}
	srv.ConnState = u.state
	srv.RegisterOnShutdown(u.close) // called when the listeners are closed: what state sees later was accepted before
}

func (u *unused) state(conn net.Conn, state http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(u.conns, conn)
	case u.closed:
		conn.Close()
	default:
		u.conns[conn] = struct{}{}
	}
}

func (u *unused) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for conn := range u.conns {
		conn.Close()
	}
}
