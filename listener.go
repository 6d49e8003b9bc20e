package gpoll

import (
	"io"
	"net"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// Listener wraps ln so that a poll which repeats the one before it on its connection is answered without net/http, at two fifths of the
// processor time: srv.Serve(b.Listener(ln)). Nothing else changes. Everything that is not such a repeat reaches the server as if ln had
// not been wrapped, and the connections stay the server's.
//
// A connection remembers a poll that has passed through net/http, the middleware and Authorize. While the server waits for the
// connection's next request, one that repeats those bytes exactly, but for the digits of its cursor, is answered here:
//
//   - Authorize is asked for each, with the remembered request (its URL has the old cursor). When it refuses, the server
//     gets the request.
//   - Middleware around the mount sees one poll in 30 s of each client. What it added to the head of the answer is added to
//     the others, except cookies: a Set-Cookie line goes with the answer that it was made for and with no other. An answer
//     whose body the middleware changed is never repeated.
//   - A session that is prolonged by use, in a cookie or on the server, is therefore prolonged after 30 s and one PollWait
//     at the latest: it must live longer than that, which is a minute by default. A cookie with a new value is safe: it
//     makes the client's next poll another request, which the server gets.
//   - To the server the connection is idle: its IdleTimeout runs between two polls, not during one, and its Shutdown and
//     Close answer a poll that waits with 503 and "shutdown", as the Broadcaster's Shutdown does. Either may come first.
//     An answer that the client's socket has not taken yet goes out before the connection is closed, for at most
//     WriteTimeout; the Broadcaster's Shutdown waits for that.
//   - A connection has one answer under way at most. Requests behind it are looked at when it has gone out.
//
// A connection that a proxy shares between clients remembers a few polls. TLS, HTTP/2, and listeners whose connections
// are neither TCP nor Unix sockets, gain nothing and lose nothing. The connections have a method NetConn() net.Conn that returns
// what ln accepted.
//
// Listener panics when a setting is bad.
func (b *Broadcaster) Listener(ln net.Listener) net.Listener {
	if err := b.prepare(); err != nil {
		panic(err)
	}
	return &pollListener{ln, b}
}

type pollListener struct {
	net.Listener
	b *Broadcaster
}

func (l *pollListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.b.wrap(conn), nil
}

// wrap returns conn itself where it cannot be written to without waiting.
func (b *Broadcaster) wrap(conn net.Conn) net.Conn {
	c := &pollConn{b: b, fresh: true}
	c.init(conn, nil, b.set.writeTimeout)
	if _, inMemory := conn.(tryWriter); !inMemory && c.raw == nil {
		return conn
	}
	b.conns.add(c)
	return c
}

// A pollConn is a connection of Listener, between net/http and the socket. Its life as a connection is here, what it remembers
// in repeat.go, and what it does with a poll in parked.go.
//
// net/http reads from one goroutine at a time and waits in Read while the connection is idle: that goroutine is the reader.
//
// stream.mu is the right to write an answer of gpoll's own, and guards the fields that say so. It is held by the reader, by
// a handler that claims the connection, by Close, by drain when it ends, by finish and resume, and by a routine from the
// moment it collects an answer until it has written it. Nobody waits while holding it, except for a routine's mu.
//
// A routine only tries stream.mu. When it fails, the routine itself sees to the parked poll: resume waits for the lock and
// takes the poll on (see parked.go). The holder owes that poll nothing, whoever it is.
//
// net/http writes without the lock: it writes only after Read has returned, and Read returns when no answer is under way.
type pollConn struct {
	stream
	b        *Broadcaster
	deadline atomic.Int64 // of reading, as net/http has set it last: a moment, or 0

	// What was handed to net/http.
	fresh bool   // all of it belongs to requests that are over: what comes next begins a request
	whole bool   // its end is the end of a request's head
	lost  bool   // seen is not all of it
	seen  []byte // since fresh
	reads uint32 // counts

	repeats []*repeat // least recently remembered first

	// The poll that is answered here. Its reader begins it; the routine answers it while its mode is parked.
	parked   *attach // until it is answered; guarded by stream.mu
	refused  bool    // the answer says only that the poll has ended; guarded by stream.mu
	closed   bool    // Close was called; guarded by stream.mu
	poll     poll
	first    [1]item // where poll.items begins
	current  *repeat
	draining chan struct{} // closed when what the socket refused has gone out; nil: it never did
	idle     time.Duration // the server's time-out between two requests; 0: none

	watching atomic.Pointer[claim] // of the handler whose answer is being written; nil: none
}

// NetConn returns the connection that was accepted.
func (c *pollConn) NetConn() net.Conn { return c.Conn }

// SetDeadline is net.Conn's.
func (c *pollConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.Conn.SetWriteDeadline(t)
}

// SetReadDeadline is net.Conn's.
func (c *pollConn) SetReadDeadline(t time.Time) error {
	c.deadline.Store(int64(c.b.momentOf(t)))
	return c.Conn.SetReadDeadline(t)
}

// Read is net.Conn's.
func (c *pollConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	answers := c.fresh && len(c.repeats) > 0
	if answers {
		c.idle = 0
		if at := moment(c.deadline.Load()); at != 0 {
			c.idle = time.Duration(max(at-c.b.now(), 1))
		}
	}
	c.mu.Unlock()
	if answers {
		return c.readOn(p)
	}
	n, err := c.Conn.Read(p)
	c.handUp(p[:n])
	return n, err
}

// readOn reads while the server waits for the next request, and answers repeats meanwhile.
func (c *pollConn) readOn(p []byte) (int, error) {
	r := repeatReader{c: c, p: p}
	for r.read(); !r.done; {
		c.drained() // here, and not while the socket is held for reading: Close would wait
		early := r.early
		if r.early = false; !early || r.take(r.n, r.err) {
			r.read()
		}
	}
	c.handUp(p[:r.n])
	c.drained() // an answer goes out whole before net/http writes
	return r.n, r.err
}

// A repeatReader is one Read that answers repeats.
type repeatReader struct {
	c     *pollConn
	p     []byte
	held  int   // bytes of a request that waits for its answer, at the beginning of p
	n     int   // what Read returns
	err   error // the same
	done  bool  // Read returns
	early bool  // n and err came while an answer was under way: they are looked at when it has gone out
}

// read reads until Read returns or an answer is under way.
func (r *repeatReader) read() {
	c := r.c
	if c.raw == nil || c.b.Authorize != nil {
		// The application is not called while the socket is held for reading: Close would wait for it.
		for r.next(c.Conn.Read(r.p[r.held:])) {
		}
	} else if err := readEach(c.raw, func() []byte { return r.p[r.held:] }, r.next); err != nil {
		r.next(0, err)
	}
}

// next takes n bytes that have been read behind the held ones, and reports whether to read on.
func (r *repeatReader) next(n int, err error) (more bool) {
	c := r.c
	if r.held > 0 {
		if c.takeBack(err == io.EOF) {
			if n > 0 { // else the client has gone, or will send no more
				r.n = r.held + n
			}
			r.err, r.done = err, true
			return false
		}
		copy(r.p, r.p[r.held:r.held+n])
		r.held = 0
	}
	if c.stalled.Load() {
		r.n, r.err, r.early = n, err, true
		return false
	}
	return r.take(n, err)
}

// take looks at n bytes that have been read while no answer is under way, and reports whether to read on.
func (r *repeatReader) take(n int, err error) (more bool) {
	c := r.c
	if err == nil && n < len(r.p) {
		if rep, after := c.match(r.p[:n]); rep != nil {
			switch c.begin(rep, after) {
			case pollAnswered:
				return !c.stalled.Load()
			case pollParked:
				r.held = n
				return true
			}
		}
	}
	r.n, r.err, r.done = n, err, true
	return false
}

// Write is net.Conn's.
func (c *pollConn) Write(p []byte) (int, error) {
	if k := c.watching.Load(); k != nil {
		k.see(p)
	}
	return c.Conn.Write(p)
}

// ReadFrom is net.TCPConn's; net/http looks for it, and has the system send a file without reading it.
func (c *pollConn) ReadFrom(from io.Reader) (int64, error) {
	if to, ok := c.Conn.(io.ReaderFrom); ok && c.watching.Load() == nil {
		return to.ReadFrom(from)
	}
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{from}, buf[:])
}

// copyBuffers are for what the system cannot send by itself.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// Close is net.Conn's. A poll that waits is told that the server goes down: nobody else closes a connection meanwhile. An
// answer that is under way goes out first, for at most WriteTimeout; Close does not wait for it.
func (c *pollConn) Close() error {
	c.mu.Lock()
	c.dismissLocked()
	c.closed = true
	last := !c.stalled.Load()
	c.mu.Unlock()
	c.b.conns.remove(c)
	if !last {
		return nil // drain does
	}
	return c.Conn.Close()
}

// shut closes the connection at once.
func (c *pollConn) shut() {
	c.b.conns.remove(c)
	_ = c.Conn.Close() // once more than needed, perhaps
}

// CloseWrite is net.TCPConn's; net/http looks for it.
func (c *pollConn) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// release returns the connection that was accepted, for whoever has taken it from net/http.
func (c *pollConn) release() net.Conn {
	c.b.conns.remove(c)
	return c.Conn
}

// pollConns finds the connection of a request. net/http tells a handler the LocalAddr of its connection, which is a pointer of its
// own for each.
type pollConns struct {
	mu     sync.RWMutex
	byAddr map[net.Addr]*pollConn
}

func (s *pollConns) add(c *pollConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byAddr == nil {
		s.byAddr = map[net.Addr]*pollConn{}
	}
	s.byAddr[c.LocalAddr()] = c
}

func (s *pollConns) remove(c *pollConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byAddr, c.LocalAddr())
}

// of returns the connection of r, or nil when it is none of Listener's.
func (s *pollConns) of(r *http.Request) *pollConn {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.byAddr) == 0 {
		return nil
	}
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || reflect.TypeOf(addr).Kind() != reflect.Pointer { // what is no key of the map may be none of any
		return nil
	}
	return s.byAddr[addr]
}
