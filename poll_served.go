package gpoll

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corvuscrypto/gpoll/internal/verbatim"
)

// A servedConn is a connection of Listener as net/http has it, from Accept to Close, or until Read says that it has
// ended. After such an end net/http closes the servedConn, which closes nothing, and the pollConn is kept.
//
// net/http reads from one goroutine at a time. It writes no answer after it has begun to wait for the next request.
type servedConn struct {
	net.Conn // that was accepted
	conn     *pollConn
	prefix   []byte       // bytes that were read while the connection was kept
	ended    atomic.Bool  // the connection is kept, or has another servedConn
	deadline atomic.Int64 // of reading, as it was set last: a moment, or 0

	handed verbatim.Handed // to net/http. Guarded by the pollConn's stream.mu

	watching atomic.Pointer[claim] // of the handler whose answer is being written; nil: none
}

func newServedConn(c *pollConn, prefix []byte) *servedConn {
	return &servedConn{Conn: c.Conn, conn: c, prefix: prefix}
}

// NetConn returns the connection that was accepted.
func (s *servedConn) NetConn() net.Conn { return s.Conn }

// SetDeadline is net.Conn's.
func (s *servedConn) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline is net.Conn's.
func (s *servedConn) SetReadDeadline(t time.Time) error {
	if s.ended.Load() {
		return net.ErrClosed
	}
	s.deadline.Store(int64(s.conn.b.momentOf(t)))
	return s.Conn.SetReadDeadline(t)
}

// SetWriteDeadline is net.Conn's.
func (s *servedConn) SetWriteDeadline(t time.Time) error {
	if s.ended.Load() {
		return net.ErrClosed
	}
	return s.Conn.SetWriteDeadline(t)
}

// Read is net.Conn's.
func (s *servedConn) Read(p []byte) (n int, err error) {
	switch {
	case len(s.prefix) > 0:
		n = copy(p, s.prefix)
		if s.prefix = s.prefix[n:]; len(s.prefix) == 0 {
			s.prefix = nil
		}
	case s.ended.Load() || s.end(len(p)):
		return 0, io.EOF
	default:
		n, err = s.Conn.Read(p)
	}
	s.handUp(p[:n])
	return n, err
}

// end ends the connection for net/http when net/http waits for a request that may repeat a poll. It reports whether it
// did. room is how much net/http reads at a time: one byte when it waits for a sign that the client has gone, not for a
// request.
func (s *servedConn) end(room int) bool {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.handed.Fresh() || len(c.repeats) == 0 || room <= 1 || c.listener.isClosed() {
		return false
	}
	c.idle = 0
	if at := moment(s.deadline.Load()); at != 0 {
		c.idle = time.Duration(max(at-c.b.now(), 1))
	}
	s.ended.Store(true)
	c.served = nil
	c.keepLocked()
	return true
}

// Write is net.Conn's.
func (s *servedConn) Write(p []byte) (int, error) {
	if s.ended.Load() {
		return 0, net.ErrClosed
	}
	if k := s.watching.Load(); k != nil {
		k.see(p)
	}
	return s.Conn.Write(p)
}

// ReadFrom is net.TCPConn's; net/http looks for it, and has the system send a file without reading it.
func (s *servedConn) ReadFrom(from io.Reader) (int64, error) {
	if to, ok := s.Conn.(io.ReaderFrom); ok && s.watching.Load() == nil && !s.ended.Load() {
		return to.ReadFrom(from)
	}
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{from}, buf[:])
}

// copyBuffers are for data that the system cannot send by itself.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// CloseWrite is net.TCPConn's; net/http looks for it.
func (s *servedConn) CloseWrite() error {
	if s.ended.Load() {
		return net.ErrClosed
	}
	return s.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// Close is net.Conn's.
func (s *servedConn) Close() error {
	if s.ended.Load() {
		return nil
	}
	s.conn.b.conns.remove(s.conn)
	return s.Conn.Close()
}

// release returns the accepted connection to a handler that has taken it from net/http.
func (s *servedConn) release() net.Conn {
	s.conn.b.conns.remove(s.conn)
	return s.Conn
}

// handUp notes the bytes that net/http gets.
func (s *servedConn) handUp(p []byte) {
	if len(p) == 0 {
		return
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.handed.Add(p)
}
