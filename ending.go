package gpoll

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// An ending says why an attach ended, for each transport (contract A3, the table of ends).
type ending struct {
	refusal   *refusal
	closeCode websocket.StatusCode
}

// WebSocket close codes.
const (
	closeUnauthorized = 4001
	closeRemoved      = 4004
	closeSlow         = 4008
	closeSuperseded   = 4009
	closeUnknown      = 4010 // also a gap, in the plain form
	closeRate         = 4029
)

var (
	endSuperseded   = &ending{refuseSuperseded, closeSuperseded}
	endUnauthorized = &ending{refuseUnauthorized, closeUnauthorized}
	endInternal     = &ending{refuseInternal, websocket.StatusInternalError}
	endUnknown      = &ending{refuseUnknownClient, closeUnknown}

	// To the client that comes again these are all the one unknown-client; the codes differ in Stats and in what is said
	// to an attach that is there when it happens.
	endRemoved = &ending{&refusal{status: http.StatusNotFound, code: "removed",
		message: "the application removed this client; stop"}, closeRemoved}
	endExpired = &ending{&refusal{status: http.StatusNotFound, code: "expired",
		message: refuseUnknownClient.message}, closeUnknown}
	endBufferFull = &ending{&refusal{status: http.StatusNotFound, code: "buffer-full",
		message: refuseUnknownClient.message}, closeUnknown}

	endSlow = &ending{&refusal{status: http.StatusServiceUnavailable, code: "slow",
		message: "the connection did not keep up; come back with the cursor"}, closeSlow}
	// The client has asked for it.
	endLeft = &ending{&refusal{code: "left"}, websocket.StatusNormalClosure}
	// The connection is gone: nobody is there to be told.
	endGone = &ending{&refusal{code: "gone"}, 0}

	endTimeout = &ending{&refusal{status: http.StatusServiceUnavailable, code: "timeout",
		message: "no answer to the server's ping; come back with the cursor"}, closeSlow}
)

// endLocked ends a client's attach from outside: the goroutine that serves it is told why, or what carries it without
// one is.
func (r *routine) endLocked(a *attach, why *ending) {
	c := a.client
	was := c.hot().mode
	a.ending.Store(why)
	if was.carried() {
		c.cursor = a.by.reached(r, c)
	}
	c.queue = nil
	r.detachLocked(a, why)
	a.wake()
	a.by.ended(r, a, was, why)
}

// detachLocked is the one way out of an attach: a's client has none from here on. why is nil when the attach ends by
// itself.
func (r *routine) detachLocked(a *attach, why *ending) {
	c := a.client
	h := c.hot()
	h.by, h.direct, h.mode = nil, nil, away
	c.attach, c.streamed = nil, a.transport != longPoll
	a.overLocked()
	a.roomLocked()
	c.idleSince = r.b.now()
	c.scheduleLocked()
	r.b.attachCount[a.transport].Add(-1)
	if why != nil && why != endGone {
		r.b.countEnd(why)
	}
}

// spread returns a random duration from least to most, so that those who are told to come back do not come back
// together.
func spread(least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + rand.N(most-least)
}
