package gpoll

import (
	"bytes"
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/corvuscrypto/gpoll/internal/socket"
)

// A stream is the write side of a connection that was taken over. Frames never interleave: the stream finishes a partly
// written one before anything else, then come the control frames, and nothing follows the last frame.
//
// mu is held for a moment, never during a wait for the socket, so that a routine may wait for mu. What the socket
// refuses stays in rest. Then one goroutine writes and waits (writeWaiting) until nothing is left; it also writes
// control frames and the last frame that come meanwhile. The others only queue while it writes.
type stream struct {
	// The fields that a routine touches come first, in one line of memory.
	mu       sync.Mutex
	lease    lease           // the routine's right to write; changed under its routine.mu, or by a claim
	stalled  atomic.Bool     // a goroutine writes, rest is not empty, or the connection is broken
	controls atomic.Bool     // control is not empty
	closing  atomic.Bool     // the last frame was queued: no data from here on
	given    atomic.Int64    // bytes that the system has taken to send
	raw      syscall.RawConn // nil where the socket cannot be watched: TLS, other systems

	net.Conn
	prefix  []byte        // bytes that were read but not handled yet
	timeout time.Duration // without progress, of a write that waits: see pace

	// Guarded by mu, as are writes to the flags above.
	rest     []byte    // what the socket refused
	control  []control // what waits to be written, one of each kind
	busy     bool      // a goroutine writes, and will write everything that is queued
	ended    bool      // the last frame has gone out, or never will
	broken   bool      // a write has failed
	lastRead bool      // the deadline of reading is final

	// The streamConn's, guarded likewise.
	unread    bool // nobody reads any more
	attachEnd bool // the last frame says why the attach ended
}

// A control is a frame that has no place of its own among the messages. A ping or a pong replaces an older one that has
// not gone out (by RFC 6455, section 5.5.3, an answer to the newest ping is enough). There is one last frame.
type control struct {
	kind  controlKind
	frame []byte
}

type controlKind uint8

const (
	ping controlKind = iota
	pong
	last // a close frame, or the event that ends SSE
)

// init takes over a connection. prefix has been read from it already.
func (s *stream) init(conn net.Conn, prefix []byte, timeout time.Duration) {
	s.Conn, s.prefix, s.timeout = conn, prefix, timeout
	s.raw = socket.Raw(conn)
}

// precede makes p the first thing that is written to the connection.
func (s *stream) precede(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = p
	s.stalled.Store(true)
}

// queue takes a control frame and never waits for the socket. left says that the frame waits for a call of
// writeWaiting, and that no goroutine is in one.
func (s *stream) queue(kind controlKind, frame []byte) (left bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() || s.broken {
		return false, nil
	}
	s.queueLocked(kind, frame)
	switch {
	case s.busy:
		return false, nil
	case s.raw == nil || len(s.rest) > 0:
		return true, nil
	}
	return s.writeNowLocked(s.takeControlLocked(nil))
}

// queueLastLocked queues the last frame. It reports false when there is one already. The caller holds mu, sets the
// deadline of writing afterwards, and calls writeWaiting.
func (s *stream) queueLastLocked(frame []byte) bool {
	if s.closing.Load() {
		return false
	}
	s.closing.Store(true)
	s.queueLocked(last, frame)
	return true
}

func (s *stream) queueLocked(kind controlKind, frame []byte) {
	s.controls.Store(true)
	for i := range s.control {
		if s.control[i].kind == kind {
			s.control[i].frame = frame
			return
		}
	}
	s.control = append(s.control, control{kind, frame})
}

// takeControlLocked appends the control frames that wait to p.
func (s *stream) takeControlLocked(p []byte) []byte {
	for _, c := range s.control {
		p = append(p, c.frame...)
	}
	s.control = nil
	s.controls.Store(false)
	return p
}

// pending reports whether something other than data of the log waits to be written.
func (s *stream) pending() bool { return s.stalled.Load() || s.controls.Load() }

var (
	// errEnding is what writeWaiting returns when the last frame goes out instead of p.
	errEnding = errors.New("gpoll: the connection is being closed")
	errBroken = errors.New("gpoll: a write to the connection has failed")
)

// writeWaiting writes what is left over, then p, which may be empty, then the control frames that wait and those that
// come meanwhile. It waits for the socket without a limit of its own: the caller sets one. told is true for the one
// call that wrote the last frame, or found out that it cannot be written. Without an error p has gone out.
//
// claim, unless it is nil, says whether p may be written. It is called with mu. Once it says so, p goes out, and goes
// out before the last frame, unless a write fails.
func (s *stream) writeWaiting(p []byte, claim func() bool) (told bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return false, errEnding // the other goroutine that writes tells the end
	}
	dropped := len(p) > 0 && (s.closing.Load() || claim != nil && !claim())
	if dropped {
		p = nil
	}
	s.writeOutLocked(p)
	s.stalled.Store(s.broken)
	if s.closing.Load() && !s.ended {
		s.ended, told = true, true
	}
	switch {
	case s.broken:
		err = errBroken
	case dropped:
		err = errEnding
	}
	return told, err
}

// writeOutLocked writes in the order of writeWaiting, until nothing is left or a write has failed. The caller holds mu,
// which writeOutLocked frees while it waits for the socket, and sets stalled afterwards.
func (s *stream) writeOutLocked(p []byte) {
	s.busy = true
	s.stalled.Store(true)
	for !s.broken {
		out := p
		if len(s.rest) > 0 {
			out = append(s.rest, p...)
		}
		out = s.takeControlLocked(out)
		if s.rest, p = nil, nil; len(out) == 0 {
			break
		}
		s.broken = s.writeUnlocked(out) != nil
	}
	s.busy = false
}

// writeUnlocked writes p without mu, which the caller holds. After a panic of the connection the stream is broken.
func (s *stream) writeUnlocked(p []byte) error {
	returned := false
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		if !returned {
			s.busy, s.broken = false, true
		}
	}()
	err := s.writeAll(p)
	returned = true
	return err
}

// cut closes the connection below TLS, without the farewell of TLS, which would wait for the socket once more.
func (s *stream) cut() {
	if over, ok := s.Conn.(interface{ NetConn() net.Conn }); ok {
		_ = over.NetConn().Close()
	}
}

// A server that shuts down waits this long for a peer whose system receives nothing more.
const stillness = 3 * time.Second

// awaitReceived waits until the peer's system has received everything that was written, at most timeout, and discards
// what arrives meanwhile. If the socket were closed earlier and the peer sent something, the system would answer with a
// reset, which overtakes the data under way and loses it (RFC 1122, section 4.2.2.13). The peer need not read or
// answer, as long as its buffer has room. awaitReceived does not wait for a peer that sends no more or has gone, nor,
// once down is closed, for one whose system has received nothing for stillness.
func (s *stream) awaitReceived(down <-chan struct{}) {
	raw := socket.Below(s.Conn)
	if raw == nil {
		return
	}
	begun := time.Now()
	moved, left := begun, math.MaxInt
	pause := 100 * time.Microsecond
	for ; socket.Discard(raw) && time.Since(begun) < s.timeout; pause = min(2*pause, 20*time.Millisecond) {
		now := socket.Unsent(raw)
		if now == 0 {
			return
		}
		if now < left {
			moved, left = time.Now(), now
		}
		select {
		case <-down:
			if time.Since(moved) > stillness {
				return
			}
		default:
		}
		time.Sleep(pause)
	}
}

// How long a peer may go on sending after it was told that what it sends is wrong.
const lingerWait = time.Second

// linger ends what the server says, and discards what the peer goes on to send, until it closes the connection or
// lingerWait is over. Otherwise the system would answer what comes with a reset. It does not wait once down is closed.
func (s *stream) linger(down <-chan struct{}) {
	raw := socket.Below(s.Conn)
	if raw == nil {
		return
	}
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it fails only where the connection is gone
	}
	begun := time.Now()
	pause := 100 * time.Microsecond
	for ; socket.Discard(raw) && time.Since(begun) < lingerWait; pause = min(2*pause, 20*time.Millisecond) {
		select {
		case <-down:
			return
		case <-time.After(pause):
		}
	}
}

// readBy sets the deadline of reading; the zero time is none. It does nothing once the deadline is final.
func (s *stream) readBy(by time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastRead {
		return nil
	}
	return s.SetReadDeadline(by)
}

// readLast sets the deadline of reading for good.
func (s *stream) readLast(by time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastRead = true
	_ = s.SetReadDeadline(by) // it fails only where the connection is gone
}

// readsLast reports whether the deadline of reading is final.
func (s *stream) readsLast() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastRead
}

// writeNowLocked is tryWriteLocked. It also marks a broken stream as stalled; left says that something is left over.
func (s *stream) writeNowLocked(p []byte) (left bool, err error) {
	defer func() {
		if s.broken {
			s.stalled.Store(true)
		}
	}()
	err = s.tryWriteLocked(p)
	return len(s.rest) > 0, err
}

// tryWriteLocked writes p as far as the socket takes it at once, and keeps the rest. After an error, and after a panic,
// the stream is broken. The caller holds mu, and rest is empty.
func (s *stream) tryWriteLocked(p []byte) error {
	if s.broken {
		return errBroken
	}
	s.broken = true
	n, err := s.try(p)
	if err != nil {
		return err
	}
	s.broken = false
	if n < len(p) {
		s.rest = bytes.Clone(p[n:])
		s.stalled.Store(true)
	}
	return nil
}

func (s *stream) try(p []byte) (n int, err error) {
	if s.raw == nil {
		n, err = s.Conn.(tryWriter).TryWrite(p)
	} else {
		n, err = socket.TryWrite(s.raw, p)
	}
	s.given.Add(int64(n))
	return n, err
}

// A tryWriter is a connection of Listener that is no socket but in memory, for tests. Each has its own LocalAddr
// pointer.
type tryWriter interface {
	// TryWrite writes what the connection takes without waiting.
	TryWrite(p []byte) (int, error)
}

// isUnread reports whether nobody reads any more.
func (s *stream) isUnread() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unread
}
