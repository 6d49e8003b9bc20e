package gpoll

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// The states of a Broadcaster.
const (
	stateOpen int32 = iota
	stateDraining
	stateClosed
)

// Shutdown ends the Broadcaster in order: registrations and new attaches are refused; every poll that waits is
// answered, and SSE and WebSockets are closed, with "shutdown" and each with its own moment at which to come back,
// within ShutdownSpread; then publishes are refused, the Broker is let go of (closed, where Broadcaster.Broker was
// nil), and Shutdown waits until all goroutines have ended.
//
// Call it before the http.Server's Shutdown, which does not end what waits here. The error is the cause of ctx when
// that came first, or the Broker's; what was told to end then ends all the same. A second call waits likewise, and
// returns the same.
func (b *Broadcaster) Shutdown(ctx context.Context) error {
	if err := b.prepare(); err != nil {
		return err
	}
	if b.state.CompareAndSwap(stateOpen, stateDraining) {
		b.shutErr = b.shutDown(ctx)
		close(b.shut)
	}
	select {
	case <-b.shut:
	case <-ctx.Done():
		return fmt.Errorf("gpoll: shutdown: %w", context.Cause(ctx))
	}
	if err := b.goroutines.wait(ctx); err != nil {
		return fmt.Errorf("gpoll: shutdown: %w", err)
	}
	if b.shutErr != nil {
		return fmt.Errorf("gpoll: shutdown: closing the broker: %w", b.shutErr)
	}
	return nil
}

// shutDown tells everybody to end, and lets go of the broker. Its error is the broker's.
func (b *Broadcaster) shutDown(ctx context.Context) error {
	b.clients.mu.Lock()
	b.clients.closed = true
	b.clients.mu.Unlock()
	for _, c := range b.clients.all(func(*Client) bool { return true }) {
		b.remove(c, b.endShutdown())
	}
	b.state.Store(stateClosed)
	b.cancel()
	b.trialMu.Lock()
	t := b.trial
	b.trialMu.Unlock()
	if t != nil { // it was cancelled, and ends by itself what it may have begun
		select {
		case <-t.done:
		case <-ctx.Done():
		}
	}
	if b.ready.Load() {
		b.unfollow()
	}
	if !b.ownsBroker {
		return nil
	}
	return b.Broker.Close(ctx)
}

func (b *Broadcaster) refuseShutdown() *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: "shutdown",
		retry:   spread(time.Second, b.set.shutdownSpread),
		message: "the server is going down; come back after retry_ms with your last position"}
}

func (b *Broadcaster) endShutdown() *ending {
	return &ending{b.refuseShutdown(), websocket.StatusGoingAway}
}
