package gpoll

import (
	"context"
	"errors"
	"runtime"
	"time"
)

// start makes the Broadcaster ready at its first use. The error of a bad setting stays. After Shutdown the error is
// ErrClosed. When the broker could not be followed, the next use tries again.
func (b *Broadcaster) start() error {
	if b.ready.Load() {
		return nil
	}
	if err := b.prepare(); err != nil {
		return err
	}
	return b.connect()
}

// prepare checks the settings, once.
func (b *Broadcaster) prepare() error {
	b.once.Do(func() {
		b.log = b.logger()
		b.began = time.Now()
		b.goroutines.failed = func(v any) { b.logPanic("a goroutine", v) }
		if b.badSetting = b.set.fill(b); b.badSetting != nil {
			return
		}
		b.ctx, b.cancel = context.WithCancel(context.Background())
		b.shut = make(chan struct{})
		b.turns = make(chan *scratch, runtime.GOMAXPROCS(0))
		for range cap(b.turns) {
			b.turns <- &scratch{}
		}
		b.clients.byKey = map[clientKey]*Client{}
		b.clients.byUser = map[string]userClients{}
		if b.Broker == nil {
			b.Broker, b.ownsBroker = NewMemoryBroker(), true
		}
		b.memory, _ = b.Broker.(*MemoryBroker)
	})
	return b.badSetting
}

// A trial is an attempt to follow the broker. Calls that come meanwhile share it.
type trial struct {
	done chan struct{}
	err  error // set before done is closed
}

var errTrial = errors.New("gpoll: following the broker failed with a panic")

// connect follows the broker, or waits for the goroutine that tries to.
func (b *Broadcaster) connect() error {
	b.trialMu.Lock()
	t := b.trial
	switch {
	case b.ready.Load():
		b.trialMu.Unlock()
		return nil
	case b.state.Load() != stateOpen:
		b.trialMu.Unlock()
		return ErrClosed
	case t != nil:
		b.trialMu.Unlock()
		if within(inFollow) {
			return errInFollow
		}
		<-t.done
		return t.err
	}
	t = &trial{make(chan struct{}), errTrial}
	b.trial = t
	b.trialMu.Unlock()
	defer b.concludeTrial(t)
	t.err = b.follow()
	return t.err
}

// concludeTrial wakes the goroutines that wait for t. If the Broadcaster was shut down meanwhile, it ends what t began:
// nobody else does.
func (b *Broadcaster) concludeTrial(t *trial) {
	b.trialMu.Lock()
	b.trial = nil
	late := b.state.Load() != stateOpen
	b.ready.Store(t.err == nil && !late)
	b.trialMu.Unlock()
	if late && t.err == nil {
		b.unfollow()
		t.err = ErrClosed
	}
	close(t.done)
}

// unfollow ends what follow began.
func (b *Broadcaster) unfollow() {
	b.messages.close()
	if b.unsubscribe != nil {
		b.unsubscribe()
	}
}
