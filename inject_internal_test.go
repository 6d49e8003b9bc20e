package gpoll

import (
	"fmt"
	"net"
	"syscall"
)

// BreakRound registers a client that makes its routine panic: "offer" while messages are handed out, "answer" while
// the answer of a parked poll is collected, "write" when the routine writes to sockets and holds the connections of
// such answers, "socket" when it has begun to write to one, "sweep" in the next sweep.
func (b *Broadcaster) BreakRound(where string) {
	c, refused := b.register(registration{})
	if refused != nil {
		panic(refused)
	}
	r := c.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	h := c.hot()
	switch where {
	case "offer":
		h.mode = queued // without an attach
	case "write":
		h.by, h.mode = (*streamConn)(nil), inline
	case "socket":
		near, _ := net.Pipe()
		s := &streamConn{b: b, form: formFrame}
		s.stream.Conn, s.stream.raw = near, brokenConn{}
		c.attach = &attach{client: c, transport: webSocket, by: s}
		s.attach, h.by, h.form, h.mode = c.attach, s, s.form, inline
	case "answer":
		conn := &pollConn{b: b} // without a poll
		h.by, h.mode = conn, parked
		c.attach = &attach{client: c, by: conn}
	case "sweep":
		c.attach = &attach{client: c, by: &streamConn{}, due: 1} // without a connection
		h.due = 1
	}
	if c.attach != nil {
		b.attachCount[c.attach.transport].Add(1)
	}
}

type brokenConn struct{ syscall.RawConn }

func (brokenConn) Control(func(uintptr)) error { panic("a socket") }

// LocksHeld says what is not free while nothing happens.
func (b *Broadcaster) LocksHeld() (held []string) {
	try := func(name string, lock interface {
		TryLock() bool
		Unlock()
	}) {
		if !lock.TryLock() {
			held = append(held, name)
			return
		}
		lock.Unlock()
	}
	try("registry", &b.clients.mu)
	try("topics", &b.topics.mu)
	try("log", &b.messages.mu)
	b.clients.each(func(r *routine) {
		try(fmt.Sprint("routine ", r.id), &r.mu)
	})
	b.conns.mu.RLock()
	defer b.conns.mu.RUnlock()
	for _, c := range b.conns.byAddr {
		try("connection of Listener", &c.(*pollConn).mu)
	}
	for _, c := range b.clients.all(func(*Client) bool { return true }) {
		if c.routine.mu.TryLock() {
			if s := socketOf(c); s != nil {
				try("stream", &s.stream.mu)
			}
			c.routine.mu.Unlock()
		}
	}
	if len(b.turns) != cap(b.turns) {
		held = append(held, "a turn to hand out")
	}
	return held
}

// Carried returns how many clients the routines carry without a goroutine.
func (b *Broadcaster) Carried() (n int) {
	for _, c := range b.clients.all(func(*Client) bool { return true }) {
		c.routine.mu.Lock()
		if !c.removed && c.hot().mode.carried() {
			n++
		}
		c.routine.mu.Unlock()
	}
	return n
}

// Stalled returns how many connections have a goroutine that writes and waits for the socket.
func (b *Broadcaster) Stalled() (n int) {
	for _, c := range b.clients.all(func(*Client) bool { return true }) {
		c.routine.mu.Lock()
		if s := socketOf(c); s != nil && s.stream.stalled.Load() {
			n++
		}
		c.routine.mu.Unlock()
	}
	return n
}

// socketOf returns the session that carries c; nil: another carrier, or none. routine.mu is held.
func socketOf(c *Client) *streamConn {
	if c.attach == nil {
		return nil
	}
	s, _ := c.attach.by.(*streamConn)
	return s
}
