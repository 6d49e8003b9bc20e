package gpoll

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corvuscrypto/gpoll/internal/socket"
)

// Listener wraps ln so that a poll which repeats the one before it on its connection is answered without net/http, at
// two fifths of the processor time and a quarter of the memory: srv.Serve(b.Listener(ln)). Everything that is not such
// a repeat reaches the server as if ln had not been wrapped.
//
// A connection remembers a poll that has passed through net/http, the middleware and Authorize. When the server then
// waits for the connection's next request, Listener keeps the connection: to the server it has ended. A request that
// repeats the remembered bytes exactly, but for the digits of its cursor, is answered here. With any other bytes,
// Accept returns the connection again, as a new one that begins with them.
//
//   - Authorize is asked for each repeat, with the remembered request (its URL has the old cursor). When it refuses,
//     the server gets the request.
//   - Middleware around the mount sees one poll in 30 s of each client. What it added to the head of the answer is
//     added to the others, except cookies: a Set-Cookie line goes with the answer that it was made for and with no
//     other. An answer whose body the middleware changed is never repeated. A poll that passes through net/http waits
//     there, at net/http's cost in memory: where messages are rare, one poll in three does.
//   - A session that is prolonged by use, in a cookie or on the server, is therefore prolonged after 30 s and one
//     PollWait at the latest: it must live longer than that, which is a minute by default. A cookie with a new value
//     is safe: it makes the client's next poll another request, which the server gets.
//   - The server's ConnState hook sees StateClosed when a connection is kept, and StateNew when the server gets it
//     back; ConnContext is called again. The server does not count the kept connections among its own.
//     SetKeepAlivesEnabled(false) reaches them when a poll passes through net/http again.
//   - The server's IdleTimeout (or ReadTimeout, where that is none) holds for a kept connection too: it runs between
//     two polls, not during one.
//   - Close of the listener, and so the server's Shutdown and Close, answers a poll that waits with 503 and
//     "shutdown", as the Broadcaster's Shutdown does, and closes the connections that are kept. Either Shutdown may
//     come first. An answer that the client's socket has not taken yet goes out before the connection is closed, for
//     at most WriteTimeout; the Broadcaster's Shutdown waits for that, the server's does not.
//   - A connection has one answer under way at most. Requests behind it are looked at when it has gone out.
//
// An application's own listener goes below, as ln. If it wraps this one instead, to count connections or to read a
// header before the first request, it sees one connection end and begin several times.
//
// A connection that a proxy shares between clients remembers a few polls. TLS, HTTP/2, and listeners whose connections
// are neither TCP nor Unix sockets, gain nothing and lose nothing. The connections have a method NetConn() net.Conn
// that returns what ln accepted. A goroutine calls Accept of ln. It accepts at most one connection more than was asked
// for, and ends with Close.
//
// Listener panics when a setting is bad.
func (b *Broadcaster) Listener(ln net.Listener) net.Listener {
	if err := b.prepare(); err != nil {
		panic(err)
	}
	return &pollListener{
		Listener: ln,
		b:        b,
		accepted: make(chan accepted),
		back:     make(chan net.Conn),
		closed:   make(chan struct{}),
		watches:  make([]socket.Watch[*pollConn], runtime.GOMAXPROCS(0)),
	}
}

// A pollListener hands connections to an http.Server: new ones from the listener below, and kept ones that the server
// has to see again.
type pollListener struct {
	net.Listener
	b *Broadcaster

	begin    sync.Once
	accepted chan accepted // from below
	back     chan net.Conn // with a request that the server has to see
	end      sync.Once
	closed   chan struct{} // by Close

	watches []socket.Watch[*pollConn] // one for each processor
	turn    atomic.Uint32
}

// accepted is what Accept of the listener below has returned.
type accepted struct {
	conn net.Conn
	err  error
}

// Accept is net.Listener's.
func (l *pollListener) Accept() (net.Conn, error) {
	l.begin.Do(func() { go l.acceptBelow() }) // ends with Close
	select {
	case got := <-l.accepted:
		return got.conn, got.err
	case conn := <-l.back:
		return conn, nil
	case <-l.closed:
		return l.Listener.Accept() // its error says that it is closed
	}
}

// acceptBelow accepts one connection, or one error, at a time: the next one when Accept has returned this one.
func (l *pollListener) acceptBelow() {
	for {
		var got accepted
		if got.conn, got.err = l.Listener.Accept(); got.err == nil {
			got.conn = l.wrap(got.conn)
		}
		select {
		case l.accepted <- got:
		case <-l.closed:
			if got.err == nil {
				_ = got.conn.Close() // as the system closes connections that nobody has accepted
			}
			return
		}
	}
}

// wrap returns conn itself where nobody can write to it without waiting.
func (l *pollListener) wrap(conn net.Conn) net.Conn {
	c := &pollConn{b: l.b, listener: l}
	c.init(conn, nil, l.b.set.writeTimeout)
	if _, inMemory := conn.(tryWriter); !inMemory && c.raw == nil {
		return conn
	}
	c.served = newServedConn(c, nil)
	l.b.conns.add(c)
	return c.served
}

// Close is net.Listener's. It tells the polls on kept connections that the server shuts down.
func (l *pollListener) Close() error {
	l.end.Do(func() { close(l.closed) })
	err := l.Listener.Close()
	for _, conn := range l.b.conns.all() {
		if c := conn.(*pollConn); c.listener == l {
			c.dismiss()
		}
	}
	for i := range l.watches {
		l.watches[i].Close()
	}
	return err
}

func (l *pollListener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// A pollConn is a connection of Listener. At any time it is in one of two hands:
//
//   - The server has it, as a servedConn (see poll_served.go). It remembers polls that pass (see poll_repeat.go).
//   - It is kept: no goroutine of net/http knows it. Its reader looks at what the client sends, and answers repeats
//     (see poll_kept.go and poll_parked.go).
//
// stream.mu is the right to write an answer of gpoll's own, and guards the fields that say so. Its holders are the
// reader, a handler that claims the connection, dismiss, drain when it ends, finish, resume, and a routine from the
// moment it collects an answer until it has written the answer. A holder waits for nothing but a routine's mu.
//
// A routine only tries stream.mu. When it fails, the routine gives the parked poll to resume, which waits for the lock
// (see poll_parked.go). The holder of the lock has no duty to that poll.
type pollConn struct {
	stream
	b        *Broadcaster
	listener *pollListener
	served   *servedConn // nil: it is kept. Guarded by stream.mu
	repeats  []*repeat   // least recently remembered first; changed while the server has the connection

	// The poll that is answered here. Its reader begins it; the routine answers it while its mode is parked.
	parked   *attach // until it is answered; guarded by stream.mu
	refused  bool    // the answer says only that the poll has ended; guarded by stream.mu
	closed   bool    // drain closes the connection; guarded by stream.mu
	poll     poll
	first    [1]item // where poll.items begins
	current  *repeat
	draining chan struct{} // closed when what the socket refused has gone out; nil: it never did
	idle     time.Duration // the server's time-out between two requests; 0: none

	// Of a connection that is kept. See poll_kept.go.
	waits     bool                     // nothing came since the request of poll. Touched by the reader
	watch     *socket.Watch[*pollConn] // nil: a goroutine waits instead. Set under stream.mu
	watched   int32                    // the place that watch has for it. Guarded by stream.mu
	hungUp    atomic.Bool              // the watch has seen that the client sends no more
	looks     atomic.Int32             // looks that were asked for since there was no reader
	idleEnd   atomic.Int64             // a moment: when the connection is closed; 0: never
	idleTimer *time.Timer              // calls look then; nil: none yet
}

// dismiss answers the poll of a kept connection and closes the connection, when its listener is closed: nobody else
// would. An answer that is under way goes out first, for at most WriteTimeout; dismiss does not wait for it.
func (c *pollConn) dismiss() {
	c.mu.Lock()
	kept := c.served == nil
	if kept {
		c.dismissLocked(c.b.refuseShutdown())
	}
	last := kept && !c.stalled.Load()
	c.mu.Unlock()
	if last { // else drain does, or the server
		c.shut()
	}
}

// shut closes the connection at once. Its reader ends with that.
func (c *pollConn) shut() {
	c.b.conns.remove(c)
	watched := c.unwatch()
	_ = c.Conn.Close() // it may be closed already
	if watched {
		c.look()
	}
}
