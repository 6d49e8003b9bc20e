package gpoll

import (
	"net/http"
	"sync/atomic"
	"time"
)

// The server, middleware and gpoll set deadlines of a connection. A poll may wait for longer than the others allow, so
// gpoll lifts theirs, and gives the answer WriteTimeout. Setting a deadline costs a microsecond; most servers and
// handlers set none, and most answers fit the socket at once. So a poll on a server without time-outs leaves the
// deadlines alone while it is young, which is for a second; a deadline of middleware has to be longer than that. When
// the poll waits on, its handler lifts them. When an answer is still being written after that second, or when the
// attach is ended, a guard sets its deadline. From then on each piece of the answer has one.
type deadlines struct {
	conn  deadliner // nil: the deadlines were lifted at once
	rest  time.Duration
	state atomic.Uint32
	set   chan struct{} // the guard closes it when it has set the deadline; made with the guard
}

// The values of deadlines.state. A holder of the routine's mu may change it while the attach is open: the poll is
// alive.
const (
	young    uint32 = iota // the poll waits
	grown                  // the poll waits, and its handler is to lift them
	lifted                 // the poll waits
	writing                // its answer is being written
	guarded                // its answer is being written, and a guard is about to set the deadline
	guarding               // the guard sets the deadline
	over                   // nobody touches the deadlines any more: the connection is another request's
)

// A deadliner is a ResponseWriter that can set deadlines.
type deadliner interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// deadlinesLater returns what sets the deadlines of a poll that may leave them alone for now, or nil. In HTTP/1
// deadlines are the connection's: net/http lifts its own for reading while a handler runs, and all of them when the
// handler has returned. In HTTP/2 they are the stream's, and end it when they pass. A WriteTimeout that is short beside
// a sweep's tick has to be set at once. So have the deadlines of a POST, whose body had one.
func (b *Broadcaster) deadlinesLater(w http.ResponseWriter, r *http.Request) deadliner {
	if b.set.youth < b.set.tick || r.ProtoMajor != 1 || r.Method != http.MethodGet {
		return nil
	}
	s, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok || s.ReadTimeout > 0 || s.WriteTimeout > 0 {
		return nil
	}
	for {
		switch t := w.(type) {
		case deadliner:
			return t
		case interface{ SetReadDeadline(time.Time) error }, interface{ SetWriteDeadline(time.Time) error }:
			return nil
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return nil
		}
	}
}

// until returns the first part of a wait, at most youth, and notes the rest.
func (d *deadlines) until(due, youth time.Duration) time.Duration {
	d.rest = max(due-youth, 0)
	return due - d.rest
}

// elapsed is called when a's time has come, and reports whether only its youth is over. The routine's mu is held.
func (d *deadlines) elapsed(a *attach) bool {
	if d.rest == 0 {
		return false
	}
	a.due += moment(d.rest)
	d.rest = 0
	d.age(a)
	return true
}

// age ends the youth of a poll. The routine's mu is held.
func (d *deadlines) age(a *attach) {
	switch {
	case d.state.CompareAndSwap(young, grown):
		a.wake()
	case d.state.Load() == writing:
		d.set = make(chan struct{})
		if d.state.CompareAndSwap(writing, guarded) {
			b := a.client.routine.b
			b.spawn(func() { d.guard(b.set.writeTimeout) })
		}
	}
}

// guard gives an answer that is being written its deadline.
func (d *deadlines) guard(timeout time.Duration) {
	if d.state.CompareAndSwap(guarded, guarding) {
		defer close(d.set)
		_ = d.conn.SetWriteDeadline(time.Now().Add(timeout)) // as in waitingPoll.write
	}
}

// lift lifts the deadlines when the poll is no longer young.
func (d *deadlines) lift() {
	if d.state.CompareAndSwap(grown, lifted) {
		_ = d.conn.SetReadDeadline(time.Time{}) // it fails only where the connection is gone
		_ = d.conn.SetWriteDeadline(time.Time{})
	}
}

// write notes that the answer is being written, and reports whether it may be written without a deadline: a guard will
// set one when it takes long. The state tells when it has.
func (d *deadlines) write() bool { return d.conn != nil && d.state.CompareAndSwap(young, writing) }

// end returns when nobody touches the deadlines any more. It reports whether from now on only the handler looks at
// them.
func (d *deadlines) end() (alone bool) {
	for {
		switch s := d.state.Load(); s {
		case guarding:
			<-d.set // the guard is about to close it
			d.state.Store(over)
			return false
		default:
			if d.state.CompareAndSwap(s, over) {
				return s != guarded
			}
		}
	}
}
