package gpolltest

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// A Listener is a net.Listener whose connections exist in memory only. Use it with http.Server.Serve, and reach it
// with Client or DialContext. It works inside a testing/synctest bubble, to which it then belongs.
type Listener struct {
	// Buffer is how many bytes a connection holds in each direction until they are read; 0 means DefaultBuffer.
	// A small one shows how a server treats a client that does not read. Set it before the first dial.
	Buffer int

	backlog chan net.Conn
	done    chan struct{}
	close   sync.Once

	mu    sync.Mutex // guards conns
	conns map[*Conn]struct{}
}

// NewListener returns a Listener that accepts connections until it is closed.
func NewListener() *Listener {
	return &Listener{
		backlog: make(chan net.Conn, 128),
		done:    make(chan struct{}),
		conns:   map[*Conn]struct{}{},
	}
}

// Accept returns the server's end of the next connection, or net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, l.opError("accept", net.ErrClosed)
	default:
	}
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.done:
		return nil, l.opError("accept", net.ErrClosed)
	}
}

// DialContext returns the client's end of a new connection, whatever network and address say: it fits
// http.Transport.DialContext. It waits while 128 connections wait for Accept.
func (l *Listener) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	near, far := Pipe(l.Buffer)
	near.gone = func() { l.forget(near) }
	if isClosed(l.done) {
		return nil, l.opError("dial", net.ErrClosed)
	}
	select {
	case l.backlog <- far:
	case <-l.done:
		return nil, l.opError("dial", net.ErrClosed)
	case <-ctx.Done():
		return nil, l.opError("dial", context.Cause(ctx))
	}
	if isClosed(l.done) {
		l.Close() // once more: the select may have chosen the backlog after the first Close emptied it
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[near] = struct{}{}
	return near, nil
}

func (l *Listener) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// Client returns an HTTP client whose every connection, whatever host the URL names, leads to l. It keeps idle
// connections: call its CloseIdleConnections at the end.
func (l *Listener) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: l.DialContext, MaxIdleConnsPerHost: 1 << 20}}
}

// Cut breaks every connection that was dialed and not yet closed, as a failing network does: what is under way in
// either direction is lost. New connections can be made.
func (l *Listener) Cut() {
	l.mu.Lock()
	var all []*Conn
	for c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		c.Cut()
	}
}

// Close ends Accept and refuses new connections; present ones go on. Connections that nobody accepted are closed.
func (l *Listener) Close() error {
	l.close.Do(func() { close(l.done) })
	for {
		select {
		case c := <-l.backlog:
			c.Close()
		default:
			return nil
		}
	}
}

// Addr returns an address of network "memory".
func (l *Listener) Addr() net.Addr { return memoryAddr("server") }

func (l *Listener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "memory", Addr: l.Addr(), Err: err}
}
