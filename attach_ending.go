package gpoll

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// An ending says why an attach ended, for each transport. docs/protocol.md has the table.
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

	// A client that comes again after one of these ends is always told unknown-client. The codes differ in Stats and for
	// an attach that is open at that moment.
	endRemoved = &ending{&refusal{status: http.StatusNotFound, code: "removed",
		message: "the application removed this client; stop"}, closeRemoved}
	endExpired = &ending{&refusal{status: http.StatusNotFound, code: "expired",
		message: refuseUnknownClient.message}, closeUnknown}
	endBufferFull = &ending{&refusal{status: http.StatusNotFound, code: "buffer-full",
		message: refuseUnknownClient.message}, closeUnknown}

	endSlow = &ending{&refusal{status: http.StatusServiceUnavailable, code: "slow",
		message: "the connection did not keep up; come back with the cursor"}, closeSlow}
	// The client has asked for it.
	endLeft = &ending{&refusal{status: http.StatusNotFound, code: "left",
		message: "the client has left"}, websocket.StatusNormalClosure}
	// The connection is gone: nobody is there to be told.
	endGone = &ending{&refusal{code: "gone"}, 0}

	endTimeout = &ending{&refusal{status: http.StatusServiceUnavailable, code: "timeout",
		message: "no answer to the server's ping; come back with the cursor"}, closeSlow}
)

// endLocked ends a client's attach from outside. It tells why to the goroutine that serves the attach, or to the
// carrier that needs none.
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

// detachLocked takes a from its client. Every attach ends through it. why is what Stats counts; nil: nothing.
func (r *routine) detachLocked(a *attach, why *ending) {
	c := a.client
	h := c.hot()
	h.by, h.direct, h.mode = nil, nil, away
	c.attach, c.streamed = nil, a.transport != longPoll
	a.overLocked()
	a.roomLocked()
	c.idleSince = r.b.now()
	c.scheduleLocked()
	if why != nil && why != endGone { // first, so that Stats never lacks both the attach and its end
		r.b.countEnd(why)
	}
	r.b.attachCount[a.transport].Add(-1)
}

// denies reports whether e says that the client may not do this.
func (e *refusal) denies() bool {
	switch e.code {
	case "unauthorized", "forbidden", "topic-forbidden", "presence-forbidden", "refused":
		return true
	}
	return false
}

// stops reports whether a client does not come back after e.
func (e *refusal) stops() bool {
	return e.denies() || e.code == "superseded" || e.code == "removed" || e.code == "left"
}

// reason is what OnClose gets.
func (why *ending) reason() string {
	if why.closeCode == closeRemoved && why != endRemoved {
		return why.refusal.message // of Client.Close
	}
	return why.refusal.code
}

// soon is when a client comes back that is refused for a reason that passes.
func soon() time.Duration { return spread(time.Second, 5*time.Second) }

// spread returns a random duration from least to most, so that clients do not all come back at once.
func spread(least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + rand.N(most-least)
}

// refused returns the ending of a WebSocket for a refusal.
func refused(why *refusal) *ending {
	end := &ending{why, websocket.StatusPolicyViolation}
	switch {
	case why == refuseUnknownClient:
		return endUnknown
	case why == refuseSuperseded:
		return endSuperseded
	case why == refuseInternal:
		return endInternal
	case why.denies():
		end.closeCode = closeUnauthorized
	case why.code == "rate":
		end.closeCode = closeRate
	case why.code == "shutdown":
		end.closeCode = websocket.StatusGoingAway
	case why.status == http.StatusServiceUnavailable || why.status == http.StatusTooManyRequests:
		end.closeCode = websocket.StatusTryAgainLater
	}
	return end
}

func (b *Broadcaster) refuseShutdown() *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: "shutdown",
		retry:   spread(time.Second, b.set.shutdownSpread),
		message: "the server is going down; come back after retry_ms with your last position"}
}

// refuseUnknown is the answer to an id that names no client. While the Broadcaster shuts down the answer is "shutdown"
// instead: Shutdown may have removed the client after admit, and the client must not register anew at once.
func (b *Broadcaster) refuseUnknown() *refusal {
	if b.state.Load() != stateOpen {
		return b.refuseShutdown()
	}
	return refuseUnknownClient
}

func (b *Broadcaster) endShutdown() *ending {
	return &ending{b.refuseShutdown(), websocket.StatusGoingAway}
}

// end ends the attach, if it is still there.
func (a *attach) end(why *ending) {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.client.attach == a {
		r.endLocked(a, why)
	}
}
