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

// Shutdown ends the Broadcaster in order: registrations and new attaches are refused; every poll that waits is answered, and SSE and
// WebSockets are closed, with "shutdown" and each with its own moment at which to come back, within ShutdownSpread; then
// publishes are refused, the Broker is closed, and Shutdown waits until all goroutines have ended.
//
// Call it before the http.Server's Shutdown, which does not end what waits here. The error is the cause of ctx when that came
// first, or the Broker's; what was told to end then ends all the same. A second call waits likewise.
func (b *Broadcaster) Shutdown(ctx context.Context) error {
	if err := b.start(); err != nil {
		return err
	}
	var failed error
	if b.state.CompareAndSwap(stateOpen, stateDraining) {
		b.clients.mu.Lock()
		b.clients.closed = true
		b.clients.mu.Unlock()
		for _, c := range b.clients.all(func(*Client) bool { return true }) {
			b.remove(c, b.endShutdown())
		}
		b.state.Store(stateClosed)
		b.messages.close()
		b.cancel()
		failed = b.Broker.Close(ctx)
	}
	if err := b.goroutines.wait(ctx); err != nil {
		return fmt.Errorf("gpoll: shutdown: %w", err)
	}
	if failed != nil {
		return fmt.Errorf("gpoll: shutdown: closing the broker: %w", failed)
	}
	return nil
}

func (b *Broadcaster) refuseShutdown() *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: "shutdown", retry: spread(time.Second, b.set.shutdownSpread),
		message: "the server is going down; come back after retry_ms with your last position"}
}

func (b *Broadcaster) endShutdown() *ending {
	return &ending{b.refuseShutdown(), websocket.StatusGoingAway}
}
