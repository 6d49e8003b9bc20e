package gpoll

import (
	"sync"
	"time"

	"github.com/corvuscrypto/gpoll/internal/socket"
)

// A write may take as long as its client makes progress: WriteTimeout bounds the time without. Where gpoll has the
// connection, a pace looks at what the client's system has taken. Where net/http has it, nobody can look: gpoll writes
// piece by piece, and each piece has a deadline of its own.

const (
	// The least that a client takes in WriteTimeout, where a pace looks. A client that takes a byte now and then holds
	// what waits for it no longer than one that takes nothing.
	leastTaken = 8 << 10

	// How much is written at a time to a connection that is no plain socket: one record of TLS.
	recordPiece = 16 << 10
)

// A pace watches a goroutine that writes to a stream and waits. When the client makes no progress for WriteTimeout, it
// calls slow, once. One goroutine at a time starts and stops it.
type pace struct {
	s      *stream
	slow   func()
	frozen func() bool // progress no longer counts; nil: it always does
	timer  *time.Timer

	mu    sync.Mutex // guards the fields below; held while slow runs
	on    bool
	seen  bool      // mark is set
	mark  int64     // what had been taken when progress was seen last
	at    time.Time // when that was, or when the write began
	given int64     // stream.given when the write began
}

// pace returns a pace that is not started.
func (b *Broadcaster) pace(s *stream, slow func()) *pace {
	p := &pace{s: s, slow: slow}
	p.timer = b.after(s.timeout, p.look)
	p.timer.Stop() // should it fire first, it finds p not started
	return p
}

// start is called before the write.
func (p *pace) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on, p.seen, p.at, p.given = true, false, time.Now(), p.s.given.Load()
	p.timer.Reset(p.s.timeout / 4)
}

// stop is called after the write. Afterwards slow is not called.
func (p *pace) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = false
	p.timer.Stop()
}

// look is called four times in WriteTimeout.
func (p *pace) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on {
		return
	}
	now, taken := time.Now(), p.s.received()
	moved := p.seen && taken-p.mark >= leastTaken || !p.seen && p.s.given.Load()-p.given >= leastTaken
	if moved && !(p.frozen != nil && p.frozen()) {
		p.at = now
	}
	if moved || !p.seen {
		p.seen, p.mark = true, taken
	}
	left := p.s.timeout - now.Sub(p.at)
	if left <= 0 {
		p.on = false
		p.slow()
		return
	}
	p.timer.Reset(min(left, p.s.timeout/4))
}

// received counts the bytes that the peer's system has taken. Where the system does not say, it counts those that this
// system has taken. Only differences mean something.
func (s *stream) received() int64 {
	n := s.given.Load()
	if raw := socket.Below(s.Conn); raw != nil {
		n -= int64(socket.Unsent(raw))
	}
	return n
}

// writeAll writes p and waits for the socket. It counts in given what the system has taken.
func (s *stream) writeAll(p []byte) error {
	if s.raw != nil {
		return socket.Write(s.raw, p, func(n int) { s.given.Add(int64(n)) })
	}
	for len(p) > 0 {
		n, err := s.Conn.Write(p[:min(len(p), recordPiece)])
		s.given.Add(int64(n))
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// A pingMark says whether a ping may still be behind something that the peer is taking: PongTimeout is for a peer that
// has got the ping.
type pingMark struct {
	received int64 // when the ping was sent, or at the last look
	behind   bool  // at the last look
}

func (m *pingMark) begin(s *stream) { m.received, m.behind = s.received(), false }

// under is called a PongTimeout after begin, and after a call that returned true. It reports whether the peer has
// another PongTimeout: while it makes progress, and once afterwards.
func (m *pingMark) under(s *stream) bool {
	received, was := s.received(), m.behind
	m.behind = s.outstanding() && received-m.received >= leastTaken
	m.received = received
	return m.behind || was && !s.outstanding()
}

// outstanding reports whether the peer's system has still to receive something.
func (s *stream) outstanding() bool {
	if s.stalled.Load() {
		return true
	}
	raw := socket.Below(s.Conn)
	return raw != nil && socket.Unsent(raw) > 0
}
