package client

import "time"

const (
	young  = 5 * time.Second  // an attach that breaks before has died young
	lives  = 3                // how often that may happen in a row
	leftBy = 10 * time.Minute // how long a transport is left alone
)

// A ladder says which transports may be tried. A transport that fails is suspect. It is left alone only when one below
// it works: while none works, it is the server or the network that fails, and not the transport. Only the session's
// goroutine touches it.
type ladder []rung

// A rung is one transport.
type rung struct {
	transport Transport
	lives     int
	reason    string    // why it is suspect or left; "": it is neither
	until     time.Time // it is left alone; zero: it may be tried
}

func newLadder(transports []Transport) ladder {
	if len(transports) == 0 {
		transports = allTransports
	}
	l := make(ladder, len(transports))
	for i, t := range transports {
		l[i] = rung{transport: t, lives: lives}
	}
	return l
}

// usable reports whether the rung may be tried.
func (r *rung) usable(now time.Time) bool { return r.until.IsZero() || !now.Before(r.until) }

// fails makes the transport suspect.
func (r *rung) fails(reason string) { r.lives, r.reason = 0, reason }

// suffers takes a life, and makes the transport suspect if that was the last.
func (r *rung) suffers(reason string) {
	if r.lives--; r.lives <= 0 {
		r.fails(reason)
	}
}

// thrives says that an attach by the transport has grown old.
func (r *rung) thrives() { r.lives, r.reason, r.until = lives, "", time.Time{} }

// works says that t does, and leaves those above it that are suspect.
func (l ladder) works(t Transport, now time.Time) {
	for i := range l {
		r := &l[i]
		if r.transport == t {
			r.reason, r.until = "", time.Time{}
			return
		}
		if r.reason != "" && r.usable(now) {
			r.until = now.Add(leftBy)
		}
	}
}

// forgive lets every transport be tried again, for the one below does not work any more.
func (l ladder) forgive() {
	for i := range l {
		l[i].until = time.Time{}
	}
}

// reasons say why what stands above t is not used; "" stands below all.
func (l ladder) reasons(t Transport) (all []string) {
	for _, r := range l {
		if r.transport == t {
			break
		}
		if r.reason != "" {
			all = append(all, r.reason)
		}
	}
	return all
}

// above returns the rung of t, if it is above that of below.
func (l ladder) above(below, t Transport) *rung {
	for i := range l {
		switch l[i].transport {
		case below:
			return nil
		case t:
			return &l[i]
		}
	}
	return nil
}

// due reports whether SSE, above t, is to be tried again. A WebSocket is tried beside t.
func (l ladder) due(t Transport, now time.Time) bool {
	r := l.above(t, SSE)
	return r != nil && !r.until.IsZero() && r.usable(now)
}

// reason names what is wrong with a transport, in the words of Status.Reasons.
func reason(t Transport, how course, err error) string {
	switch {
	case unreachable(err):
		return "unreachable"
	case t == LongPoll:
		return "poll_blocked"
	}
	prefix := "sse_"
	if t == WebSocket {
		prefix = "ws_"
	}
	switch _, silent := err.(*silentError); {
	case silent && t == SSE:
		return prefix + "buffered"
	case silent:
		return prefix + "silent"
	case how == goDown:
		return prefix + "refused"
	}
	return prefix + "died_young"
}
