package gpoll

import (
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
func (b *Broadcaster) logPanic(where string, v any) { b.tellPanic(where, v) }

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
		if r.answers != nil {
			r.answers.abandon(r)
		}
		r.scratch = nil
		b.turns <- &scratch{} // t may hold anything
	}
	r.beats, r.expired = nil, nil
	r.endAll(from)
	for _, c := range overfull { // countLocked has marked them as removed
		b.contained("a rescue", func() { b.remove(c, endBufferFull) })
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
