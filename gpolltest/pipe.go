package gpolltest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// DefaultBuffer is how many bytes a [Conn] holds in each direction until its reader takes them, unless said otherwise.
const DefaultBuffer = 64 << 10

// A Conn is one end of an in-memory connection with a buffer in each direction: Write returns once its bytes are in
// the buffer and waits while the buffer is full, as on a socket whose peer does not read. Deadlines, half close and the
// errors are those of a *net.TCPConn. All methods are safe for concurrent use.
//
// A Conn waits on channels and timers only, so that a testing/synctest bubble sees when it is idle.
type Conn struct {
	in, out       *flow
	readBy        deadline
	writeBy       deadline
	local, remote memoryAddr
	gone          func() // called once by the first Close or Cut; may be nil
	once          sync.Once
}

// Pipe returns the two ends of a connection that holds size bytes in each direction; size ≤ 0 means [DefaultBuffer].
func Pipe(size int) (*Conn, *Conn) {
	if size <= 0 {
		size = DefaultBuffer
	}
	x, y := newFlow(size), newFlow(size)
	return &Conn{in: x, out: y, local: "client", remote: "server"}, &Conn{in: y, out: x, local: "server", remote: "client"}
}

// Read reads what the peer wrote. After the peer's Close or CloseWrite it returns what is left and then io.EOF.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p, &c.readBy)
	if err != nil && err != io.EOF {
		err = c.opError("read", err)
	}
	return n, err
}

// Write copies p into the buffer and waits for room as often as it must. It returns how many bytes the buffer took.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p, &c.writeBy)
	if err != nil {
		err = c.opError("write", err)
	}
	return n, err
}

// TryWrite copies as much of p as fits into the buffer, without waiting, and returns how many bytes that was. Because
// it has TryWrite, and a LocalAddr that is a pointer of its own, gpoll.Broadcaster.Listener can answer on a Conn.
func (c *Conn) TryWrite(p []byte) (int, error) {
	n, err := c.out.try(p)
	if err != nil {
		err = c.opError("write", err)
	}
	return n, err
}

// CloseWrite ends the stream to the peer, which reads io.EOF after what was written; reading goes on.
func (c *Conn) CloseWrite() error {
	c.out.end(errPipe)
	return nil
}

// Close closes both directions. The peer can still read the bytes that were written; its own writes fail from now on.
func (c *Conn) Close() error {
	c.out.end(net.ErrClosed)
	c.in.abandon(net.ErrClosed, errPipe)
	c.forget()
	return nil
}

// Cut breaks the connection as a reset does: buffered bytes are lost and both ends fail with ECONNRESET.
func (c *Conn) Cut() {
	c.in.abandon(errReset, errReset)
	c.out.abandon(errReset, errReset)
	c.forget()
}

func (c *Conn) forget() {
	c.once.Do(func() {
		if c.gone != nil {
			c.gone()
		}
	})
}

// LocalAddr returns an address of network "memory".
func (c *Conn) LocalAddr() net.Addr { return &c.local }

// RemoteAddr returns an address of network "memory".
func (c *Conn) RemoteAddr() net.Addr { return &c.remote }

// SetDeadline sets both deadlines. The zero time means none.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}

// SetReadDeadline ends present and future Reads with os.ErrDeadlineExceeded at t.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readBy.set(t)
	return nil
}

// SetWriteDeadline ends present and future Writes with os.ErrDeadlineExceeded at t.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeBy.set(t)
	return nil
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

type memoryAddr string

func (memoryAddr) Network() string  { return "memory" }
func (a memoryAddr) String() string { return string(a) }

// A flow is one direction of a connection: a bounded queue of bytes.
type flow struct {
	mu       sync.Mutex // guards the fields below; never held across a wait
	buf      []byte     // a ring, made at the first write
	start, n int
	size     int
	changed  chan struct{} // closed at the next change; nil while nobody waits
	ended    bool          // the writer is done: io.EOF after what is buffered
	writeErr error         // what Write returns, nil while it may write
	readErr  error         // what Read returns at once, nil while it may read
}

func newFlow(size int) *flow { return &flow{size: size} }

func (f *flow) read(p []byte, by *deadline) (int, error) {
	for {
		passed := by.wait()
		f.mu.Lock()
		switch {
		case f.readErr != nil:
			defer f.mu.Unlock()
			return 0, f.readErr
		case isClosed(passed):
			f.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			f.mu.Unlock()
			return 0, nil
		case f.n > 0:
			defer f.mu.Unlock()
			n := copy(p, f.buf[f.start:min(f.start+f.n, len(f.buf))])
			if n < len(p) && n < f.n { // the rest stands at the beginning of the ring
				n += copy(p[n:], f.buf[:f.n-n])
			}
			f.start = (f.start + n) % len(f.buf)
			f.n -= n
			f.wakeLocked()
			return n, nil
		case f.ended:
			f.mu.Unlock()
			return 0, io.EOF
		}
		changed := f.waitLocked()
		f.mu.Unlock()
		select {
		case <-changed:
		case <-passed:
		}
	}
}

func (f *flow) write(p []byte, by *deadline) (written int, err error) {
	for {
		passed := by.wait()
		f.mu.Lock()
		switch {
		case f.writeErr != nil:
			defer f.mu.Unlock()
			return written, f.writeErr
		case isClosed(passed):
			f.mu.Unlock()
			return written, os.ErrDeadlineExceeded
		}
		n := f.putLocked(p)
		written += n
		p = p[n:]
		if len(p) == 0 {
			f.mu.Unlock()
			return written, nil
		}
		changed := f.waitLocked()
		f.mu.Unlock()
		select {
		case <-changed:
		case <-passed:
		}
	}
}

func (f *flow) try(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writeErr != nil {
		return 0, f.writeErr
	}
	return f.putLocked(p), nil
}

// putLocked appends what fits of p and wakes the reader.
func (f *flow) putLocked(p []byte) int {
	p = p[:min(len(p), f.size-f.n)]
	if need := f.n + len(p); need > len(f.buf) {
		grown := make([]byte, min(f.size, max(need, 2*len(f.buf), 512)))
		n := copy(grown, f.buf[f.start:min(f.start+f.n, len(f.buf))])
		copy(grown[n:], f.buf[:f.n-n])
		f.buf, f.start = grown, 0
	}
	if len(p) > 0 {
		end := (f.start + f.n) % len(f.buf)
		n := copy(f.buf[end:], p)
		copy(f.buf, p[n:])
		f.n += len(p)
		f.wakeLocked()
	}
	return len(p)
}

// end stops the writer: the reader gets what is buffered and then io.EOF.
func (f *flow) end(writeErr error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended, f.writeErr = true, writeErr
	f.wakeLocked()
}

// abandon drops the buffered bytes and fails both sides, each with its own error.
func (f *flow) abandon(readErr, writeErr error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readErr == nil {
		f.readErr = readErr
	}
	if f.writeErr == nil {
		f.writeErr = writeErr
	}
	f.ended, f.buf, f.start, f.n = true, nil, 0, 0
	f.wakeLocked()
}

func (f *flow) waitLocked() <-chan struct{} {
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

func (f *flow) wakeLocked() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// A deadline is a moment that may be moved while somebody waits for it. Its zero value is no moment.
type deadline struct {
	mu     sync.Mutex // guards the fields below
	timer  *time.Timer
	passed chan struct{} // closed when the moment has come
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // the timer has fired and closes it without mu
	}
	d.timer = nil
	if d.passed == nil || isClosed(d.passed) {
		d.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	passed := d.passed
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { close(passed) })
		return
	}
	close(passed)
}

// wait returns a channel that is closed once the deadline has passed.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	return d.passed
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
