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

// A stream is the write side of a connection that was taken over. Frames never interleave: a partly written one is
// finished before anything else, then come the control frames, and nothing follows the last frame.
//
// mu is held for a moment and never while somebody waits for the socket, so that a routine may wait for mu. What the
// socket refuses stays in rest, and then one goroutine writes and waits (writeWaiting): it writes until nothing is
// left, control frames that come meanwhile and the last frame included. Whoever finds it writing has nothing more to do
// than to queue.
type stream struct {
	// What a routine touches comes first, in one line of memory.
	mu       sync.Mutex
	lease    lease           // the routine's right to write; touched by its owner's routine.mu, or by a claim
	stalled  atomic.Bool     // a goroutine writes, rest is not empty, or the connection is broken
	controls atomic.Bool     // control is not empty
	closing  atomic.Bool     // the last frame was queued: no data from here on
	raw      syscall.RawConn // nil where the socket cannot be watched: TLS, other systems

	net.Conn
	prefix  []byte        // was read but not yet handled
	timeout time.Duration // of one write that waits

	// Guarded by mu, as are writes to the flags above.
	rest     []byte    // what the socket refused
	control  []control // what waits to be written, one of each kind
	busy     bool      // a goroutine writes: it sees to everything that is queued
	ended    bool      // the last frame has gone out, or never will
	broken   bool      // a write has failed
	lastRead bool      // the deadline of reading is final

	// Of the session, likewise.
	unread    bool // nobody reads any more
	attachEnd bool // the last frame says why the attach ended
}

// A control is a frame that belongs to no place among the messages. A ping or a pong takes the place of an older one
// that has not gone out (RFC 6455, section 5.5.3, has the answer to the newest ping do for all). There is one last
// frame.
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

// precede makes p the first thing that is written to the connection.
func (s *stream) precede(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = p
	s.stalled.Store(true)
}

// queue takes a control frame and never waits for the socket. left says that the frame waits for a goroutine that calls
// writeWaiting, and that there is none.
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

// pending reports whether something waits to be written that is no data of the log.
func (s *stream) pending() bool { return s.stalled.Load() || s.controls.Load() }

var (
	// errEnding is what writeWaiting returns when the last frame goes before what it was given.
	errEnding = errors.New("gpoll: the connection is being closed")
	errBroken = errors.New("gpoll: a write to the connection has failed")
)

// writeWaiting writes what is left over, then p, which may be empty, then the control frames that wait and those that
// come meanwhile. It waits for the socket without an end of its own: its caller sees to one. told is true for the one
// call that wrote the last frame, or found out that it cannot be written. Without an error p has gone out.
func (s *stream) writeWaiting(p []byte) (told bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return false, errEnding // only the end's goroutine meets another that writes: that one tells the end
	}
	dropped := s.writeOutLocked(p)
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

// writeOutLocked writes what writeWaiting says, until nothing is left or a write has failed, which is the last one
// then. dropped says that the last frame went in the place of p. The caller holds mu, which is free while the socket is
// waited for, and sets stalled afterwards.
func (s *stream) writeOutLocked(p []byte) (dropped bool) {
	s.busy = true
	s.stalled.Store(true)
	for !s.broken {
		if len(p) > 0 && s.closing.Load() {
			p, dropped = nil, true
		}
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
	return dropped
}

// writeUnlocked writes p without mu, which the caller holds. After a panic of the connection's the stream is broken.
func (s *stream) writeUnlocked(p []byte) error {
	returned := false
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		if !returned {
			s.busy, s.broken = false, true
		}
	}()
	_, err := s.Conn.Write(p)
	returned = true
	return err
}

// cut closes what carries the connection, without the farewell of TLS, which would wait for the socket once more.
func (s *stream) cut() {
	if over, ok := s.Conn.(interface{ NetConn() net.Conn }); ok {
		_ = over.NetConn().Close()
	}
}

// A server that goes down waits so long for a peer whose system receives nothing more of what was written.
const stillness = 3 * time.Second

// awaitReceived waits until the peer's system has received everything that was written, at most timeout, and forgets
// what arrives meanwhile. To close a socket earlier loses what is under way as soon as the peer sends something: the
// answer to that is a reset, which overtakes it (RFC 1122, section 4.2.2.13). Whether the peer reads, or answers, makes
// no difference, as long as its buffer has room. A peer that sends no more, or has gone, is not waited for; nor is one,
// once down is closed, whose system has received nothing for stillness.
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
	_ = s.SetReadDeadline(by) // a connection that is gone has no deadline
}

// writeNowLocked is tryWriteLocked. left says that something is left over.
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

func (s *stream) try(p []byte) (int, error) {
	if s.raw == nil {
		return s.Conn.(tryWriter).TryWrite(p)
	}
	return socket.TryWrite(s.raw, p)
}

// A tryWriter is a connection of Listener that is no socket: in memory, for tests. Its LocalAddr is a pointer of its
// own.
type tryWriter interface {
	// TryWrite writes what the connection takes without waiting.
	TryWrite(p []byte) (int, error)
}
