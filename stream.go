package gpoll

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A stream is the write side of a hijacked connection. Data frames come from a routine, which never waits, or from the one
// goroutine that carries the client on when the socket is full; control frames come from anywhere. Frames never interleave, a
// partly written one is continued before anything else, and nothing follows a close frame.
type stream struct {
	// What a routine touches comes first, in one line of memory.
	mu       sync.Mutex      // the right to write; a routine only tries it
	wrote    atomic.Uint64   // the routine's last round that went out
	turn     uint32          // counts how often a goroutine took over from the routine; guarded by routine.mu
	stalled  atomic.Bool     // rest is not empty
	controls atomic.Bool     // control is not empty
	closing  atomic.Bool     // a close frame was queued: no data from here on
	raw      syscall.RawConn // nil where the socket cannot be watched: TLS, other systems

	net.Conn
	prefix  []byte        // was read but not yet handled
	timeout time.Duration // of one write that waits
	rest    []byte        // what the socket refused; guarded by mu

	controlMu sync.Mutex
	control   [][]byte // frames that wait for the right to write: one of each kind
}

// init takes over a connection. prefix has been read from it already.
func (s *stream) init(conn net.Conn, prefix []byte, timeout time.Duration) {
	s.Conn, s.prefix, s.timeout = conn, prefix, timeout
	s.raw = rawConn(conn)
}

// Read reads what has arrived already first.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.prefix) > 0 {
		n := copy(p, s.prefix)
		if s.prefix = s.prefix[n:]; len(s.prefix) == 0 {
			s.prefix = nil
		}
		return n, nil
	}
	return s.Conn.Read(p)
}

// Write queues one whole control frame, for coder/websocket. See queue.
func (s *stream) Write(frame []byte) (int, error) {
	s.queue(bytes.Clone(frame), frame[0] == 0x80|opClose)
	return len(frame), nil
}

// queue takes a control frame, or the event that ends SSE, and never waits for the socket. A newer frame of a kind replaces
// an older one that has not gone out. Nothing follows the last one.
func (s *stream) queue(frame []byte, last bool) {
	s.controlMu.Lock()
	defer s.controlMu.Unlock()
	if s.closing.Load() {
		return
	}
	s.closing.Store(last)
	s.controls.Store(true)
	for i := range s.control {
		if s.control[i][0] == frame[0] {
			s.control[i] = frame
			return
		}
	}
	s.control = append(s.control, frame)
}

// takeControl returns the control frames that wait, as bytes to write.
func (s *stream) takeControl() []byte {
	s.controlMu.Lock()
	defer s.controlMu.Unlock()
	if len(s.control) == 0 {
		return nil
	}
	frames := bytes.Join(s.control, nil)
	s.control = nil
	s.controls.Store(false)
	return frames
}

// pending reports whether something waits to be written that is no data of the log.
func (s *stream) pending() bool { return s.stalled.Load() || s.controls.Load() }

// writeWaiting writes what is left over, then p, waiting for the socket at most timeout. p may be empty. Control frames that
// wait go out too.
func (s *stream) writeWaiting(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		p = nil
	}
	p = append(p, s.takeControl()...)
	if len(s.rest) == 0 && len(p) == 0 {
		return nil
	}
	if err := s.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	if len(s.rest) > 0 {
		n, err := s.Conn.Write(s.rest)
		if s.rest = s.rest[n:]; err != nil {
			return err
		}
		s.rest = nil
		s.stalled.Store(false)
	}
	if n, err := s.Conn.Write(p); err != nil {
		s.rest = bytes.Clone(p[n:])
		return err
	}
	if s.raw != nil {
		return s.SetWriteDeadline(time.Time{}) // an expired one would refuse the routine
	}
	return nil
}

// tryWriteLocked writes p as far as the socket takes it at once, and keeps the rest. The caller holds mu, and rest is empty.
func (s *stream) tryWriteLocked(p []byte) error {
	n, err := s.try(p)
	if err != nil {
		return err
	}
	if n < len(p) {
		s.rest = bytes.Clone(p[n:])
		s.stalled.Store(true)
	}
	return nil
}

func (s *stream) try(p []byte) (int, error) {
	if s.raw == nil {
		return s.Conn.(tryWriter).TryWrite(p)
	}
	w := onceWriters.Get().(*onceWriter)
	defer onceWriters.Put(w)
	return w.write(s.raw, p)
}

// A tryWriter is a connection of Listener that is no socket: in memory, for tests. Its LocalAddr is a pointer of its own.
type tryWriter interface {
	// TryWrite writes what the connection takes without waiting.
	TryWrite(p []byte) (int, error)
}

// A onceWriter writes to a socket without waiting. The socket's descriptor is held meanwhile: it is not given to another connection when
// somebody closes this one.
type onceWriter struct {
	p   []byte
	n   int
	err error
	try func(fd uintptr) // made once, since it would be allocated at every write
}

var onceWriters = sync.Pool{New: func() any {
	w := &onceWriter{}
	w.try = func(fd uintptr) { w.n, w.err = writeOnce(int(fd), w.p) }
	return w
}}

// write tries write(2) once. It returns 0 bytes when the socket is full.
func (w *onceWriter) write(raw syscall.RawConn, p []byte) (int, error) {
	w.p = p
	err := raw.Control(w.try)
	w.p = nil
	if err != nil {
		return 0, err
	}
	return w.n, w.err
}
