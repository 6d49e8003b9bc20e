package gpoll

import (
	"context"
	"errors"
	"fmt"
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
		b.present.open(b)
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

// A broker may take so long when a Broadcaster begins.
const brokerPatience = 10 * time.Second

// follow reads the broker's stream into the log, from as far back as the log's window holds.
func (b *Broadcaster) follow() error {
	ctx, cancel := context.WithTimeout(b.ctx, brokerPatience)
	defer cancel()
	before, newest, err := b.Broker.Window(ctx)
	if err != nil {
		return fmt.Errorf("gpoll: the broker's window: %w", err)
	}
	if before.Epoch == 0 || before.Epoch != newest.Epoch || before.Seq > newest.Seq || newest.Seq > maxSeq {
		return fmt.Errorf("gpoll: the broker's window: from %v to %v is none", before, newest)
	}
	if count := uint64(b.set.history.Count); newest.Seq-before.Seq > count {
		before.Seq = newest.Seq - count
	}
	b.messages = newMessageLog(before, b.set.history, b.topicLimits(), b.set.routineBuffer)
	if b.Wildcards {
		b.messages.indexTopics()
	}
	b.messages.spawn = b.spawn
	f := &follower{broker: b.Broker, ctx: b.ctx, log: b.messages, notify: b.notify, note: b.note,
		panicked: b.logPanic, at: before, backlog: newest}
	caught := make(chan struct{})
	if f.caught = caught; before == newest {
		close(caught)
		f.caught = nil
	}
	following, stop := context.WithCancelCause(b.ctx)
	late := context.AfterFunc(ctx, func() { stop(context.Cause(ctx)) })
	end, err := b.Broker.Subscribe(following, before, f)
	if !late() && err == nil { // ctx ended first
		end()
		err = context.Cause(following)
	}
	if err != nil {
		stop(err)
		return fmt.Errorf("gpoll: following the broker: %w", err)
	}
	b.follower, b.unsubscribe = f, func() { stop(ErrClosed); end() }
	select {
	case <-caught:
	case <-ctx.Done():
		b.log.Warn("gpoll: the broker takes long to deliver what it holds", "to", newest)
	}
	return nil
}
