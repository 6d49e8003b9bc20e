package gpoll

import (
	"context"
	"fmt"
)

// The states of a Broadcaster.
const (
	stateOpen int32 = iota
	stateDraining
	stateClosed
)

// Shutdown ends the Broadcaster in order: registrations and new attaches are refused; every waiting poll is answered,
// and SSE and WebSockets are closed, with "shutdown" and a moment of its own at which to come back, within
// ShutdownSpread; publishes are refused; the subscription to the Broker ends (and the Broker is closed, where
// Broadcaster.Broker was nil); and Shutdown waits until all goroutines have ended.
//
// Call it before the http.Server's Shutdown, which does not end waiting polls and streams. The error is the cause of
// ctx when ctx ends first, or the Broker's; what was told to end still ends. A second call waits likewise, and returns
// the same. A call from inside one of the application's functions (Authorize, TopicLimits, Logger's handler) does not
// wait for the goroutine that runs that function.
func (b *Broadcaster) Shutdown(ctx context.Context) error {
	if err := b.prepare(); err != nil {
		return err
	}
	if within(inShutdown) {
		return errInShutdown
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
	own, member := b.ownGoroutine()
	if err := b.goroutines.wait(ctx, own, member); err != nil {
		return fmt.Errorf("gpoll: shutdown: %w", err)
	}
	if b.shutErr != nil {
		return fmt.Errorf("gpoll: shutdown: closing the broker: %w", b.shutErr)
	}
	return nil
}

// shutDown removes the clients and lets go of the broker. Its error is the broker's.
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
	if t != nil && !within(inFollow) { // cancel has ended it, and it undoes what it may have begun
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
