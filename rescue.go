package gpoll

import (
	"io"
	"log/slog"
	"runtime/debug"
	"time"
)

// A panic inside gpoll costs the clients whose work was under way, and never ends the process. gpoll logs it as an
// error with its stack. The attaches that it may have touched end with "internal", which Stats counts: their clients
// come back with their cursors. No lock stays held: a deferred call unlocks it, or it is noted where the functions
// below find it.
//
// These are the roots: run of a routine (rescue around each round and sweep), the other goroutines of gpoll (rescue
// of what they serve, and group.start for all of them), and the handlers, which net/http recovers (abandon).

// logPanic tells the operator of a panic. It is called by the deferred function that recovered it.
func (b *Broadcaster) logPanic(where string, v any) {
	b.note(slog.LevelError, "gpoll: a panic in "+where, "panic", v, "stack", string(debug.Stack()))
}

// contained runs a part f of the cleaning up after a panic, and reports whether f returned.
func (b *Broadcaster) contained(where string, f func()) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			b.logPanic(where, v)
		}
	}()
	f()
	return true
}

// after runs f on a goroutine of its own in d, unless the timer is stopped.
func (b *Broadcaster) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { b.contained("a timer", f) })
}

// rescue is deferred around each round and each sweep. After a panic nobody knows what each of the routine's clients
// got. So all their attaches end, at a cursor from which nothing is missing, and the routine goes on with the next
// records. from is where the routine stood before.
func (r *routine) rescue(from Position) {
	v := recover()
	if v == nil {
		return
	}
	b := r.b
	b.logPanic("a routine", v)
	var overfull []*Client
	if t := r.scratch; t != nil {
		overfull = t.overfull
		r.abandonAnswers()
		r.scratch = nil
		b.turns <- &scratch{} // t may hold anything
	}
	r.beats, r.expired = nil, nil
	r.endAll(from)
	for _, c := range overfull { // countLocked has marked them as removed
		b.contained("a rescue", func() { b.remove(c, endBufferFull) })
	}
}

// abandonAnswers unlocks the connections whose answers were collected in the failed round, and tells their clients.
func (r *routine) abandonAnswers() {
	b := r.b
	if conn := r.holding; conn != nil { // its poll is still attached: endAll ends it
		conn.poll.items = nil
		conn.mu.Unlock()
	}
	for i := range r.answers {
		conn := r.answers[i].conn
		if conn == nil {
			continue // written
		}
		b.contained("a rescue", func() {
			r.unsend(conn.poll.attach)
			b.countEnd(endInternal)
			if i < r.begun { // some of it may have gone out
				b.spawn(conn.shut) // the reader ends with it
			} else {
				conn.refuseLocked(refuseInternal)
			}
		})
		conn.mu.Unlock()
	}
}

// endAll ends the attaches of all clients. It counts the messages of the routine's last round as not written.
func (r *routine) endAll(from Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before, r.at = from, from
	for i, c := range r.clients {
		h := &r.hot[i]
		if a := c.attach; a != nil && !r.b.contained("a rescue", func() { r.endLocked(a, endInternal) }) && c.attach == a {
			c.queue = nil
			r.detachLocked(a, endInternal)
		}
		if c.attach == nil && h.mode != counting { // nothing may be offered to it
			h.by, h.direct, h.mode = nil, nil, away
		}
		c.scheduleLocked()
	}
	r.before, r.at = r.reached, r.reached
	r.round++
}

// rescue is deferred in a goroutine that serves a, which ends with "internal" after a panic.
func (a *attach) rescue() {
	if v := recover(); v != nil {
		a.client.routine.b.logPanic("a goroutine of a client", v)
		a.end(endInternal)
	}
}

// rescue is deferred in a goroutine that answers a.
func (c *pollConn) rescue(a *attach) {
	if v := recover(); v != nil {
		c.b.logPanic("a goroutine of a connection", v)
		if a.ending.Load() != nil { // the panic came while telling its end
			c.shut()
			return
		}
		a.end(endInternal)
	}
}

// rescue is deferred in a goroutine that writes to the session's stream.
func (s *session) rescue() {
	if v := recover(); v != nil {
		s.b.logPanic("a goroutine of a connection", v)
		if s.attach == nil || s.attach.ending.Load() != nil { // the panic came while telling its end
			_ = s.stream.Close() // the reader ends with it
			return
		}
		s.attach.end(endInternal)
	}
}

// rescueReader is deferred in the goroutine that reads. It goes on reading until the peer was told, or cannot be.
func (s *session) rescueReader() {
	v := recover()
	if v == nil {
		return
	}
	s.b.logPanic("the reader of a connection", v)
	s.b.contained("a rescue", func() {
		if s.attach != nil {
			s.attach.end(endInternal)
		} else {
			s.refuse(endInternal)
		}
		_ = s.stream.SetReadDeadline(time.Now().Add(s.b.set.writeTimeout + closeWait)) // reading reports a closed connection
		_, _ = io.Copy(io.Discard, s.stream.Conn)                                      // the data has no use
	})
	s.over(io.ErrUnexpectedEOF)
}

// rescueDrain is deferred in drain. An answer that did not go out whole ends its connection.
func (c *pollConn) rescueDrain() {
	if v := recover(); v != nil {
		c.b.logPanic("a goroutine of a connection", v)
		c.shut()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.stalled.Load() { // else it had ended before
			c.drainedLocked()
		}
	}
}
