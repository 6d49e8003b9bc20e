package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A carrier is what carries the client at the moment.
type carrier interface {
	// alter brings a change of the topics to the server. Any goroutine may call it.
	alter(*change)
}

// run is the session: it keeps the client attached until it may not go on.
func (c *Client) run() {
	final := c.stay()
	c.mu.Lock()
	if c.closing {
		final = ErrClosed
	}
	c.closing, c.err = true, final
	c.mu.Unlock()
	c.quit(final) // a refusal ends what is under way, as Close does
	c.group.Wait()
	if h := c.climbed.Swap(nil); h != nil {
		h.give()
	}
	c.free()
	c.tell(Status{State: Closed, Reasons: c.ladder.reasons(""), Err: final})
	c.inbox.end(final, errors.Is(final, ErrClosed))
	close(c.done)
}

func (c *Client) stay() error {
	c.tell(Status{State: Connecting})
	for {
		wait, final := c.walk()
		switch {
		case final != nil:
			return final
		case wait == 0: // the topics have changed, or there is a better transport
			continue
		case !c.sleep(c.life, wait):
			return ErrClosed
		}
		c.tell(Status{State: Connecting, Reasons: c.ladder.reasons("")})
	}
}

// walk goes down the ladder to the first transport that works, stays there until the attach ends, and returns how long
// to wait before the next walk, or why there is none.
func (c *Client) walk() (wait time.Duration, final error) {
	var failed []error
	var beside *handshake
	defer func() {
		if beside != nil {
			beside.give()
		}
	}()
	refused := true // by all
	for i := range c.ladder {
		r := &c.ladder[i]
		if !r.usable(time.Now()) {
			continue
		}
		a := c.attempt(r, beside)
		if beside = a.beside; beside != nil && beside == c.climbed.Load() {
			beside = nil // it has won
		}
		if c.life.Err() != nil {
			return 0, ErrClosed
		}
		down, wait, final := c.react(a, r)
		c.strayed = time.Now()
		if !down {
			return wait, final
		}
		_, silent := errors.AsType[*silentError](a.err)
		refused = refused && !silent && r.lives == 0 && !unreachable(a.err)
		failed = append(failed, fmt.Errorf("%s: %w", r.transport, a.err))
	}
	if beside != nil { // nothing else works, so there is time for it
		select {
		case <-beside.done:
		case <-c.life.Done():
			return 0, ErrClosed
		}
		if beside.err == nil {
			c.climbed.Store(beside)
			beside = nil
			return 0, nil
		}
	}
	c.ladder.forgive()
	err := errors.Join(failed...)
	if refused && !c.everAttached() {
		return 0, fmt.Errorf("client: no transport works at %s: %w", c.mount.Redacted(), err)
	}
	return c.pause(err), nil
}

// An attach is one attempt to be carried by a transport, and what came of it.
type attach struct {
	c         *Client
	transport Transport
	ctx       context.Context
	end       context.CancelCauseFunc // any goroutine may call it
	had       *change                 // in its last request
	token     string                  // of that request
	reasons   []string                // for which no better transport is used
	opened    time.Time               // zero: not yet
	beside    *handshake              // under way: the first of the two that works wins
	probing   *time.Timer             // to try a WebSocket again
	err       error                   // why it has ended
}

// attempt tries a transport, and returns when the attach has ended. A handshake that is under way goes on beside it.
func (c *Client) attempt(r *rung, beside *handshake) *attach {
	a := &attach{c: c, transport: r.transport, beside: beside}
	a.ctx, a.end = context.WithCancelCause(c.life)
	defer a.end(nil)
	switch r.transport {
	case WebSocket:
		a.err = c.attachSocket(a)
		return a
	case SSE:
		a.wins(beside)
		a.err = c.byEvents(a)
	case LongPoll:
		a.wins(beside)
		a.err = c.byPolls(a)
	}
	if beside != nil {
		beside.then(nil)
	}
	if a.probing != nil {
		a.probing.Stop()
	}
	return a
}

// attachSocket uses the handshake that has succeeded beside another transport, or makes one.
func (c *Client) attachSocket(a *attach) error {
	h := c.climbed.Swap(nil)
	if h == nil {
		w, err := a.wish()
		if err != nil {
			return err
		}
		if h = c.shake(w); h == nil {
			return ErrClosed
		}
		timer := time.NewTimer(silentWait)
		defer timer.Stop()
		select {
		case <-h.done:
		case <-timer.C:
			a.beside = h
			return &silentError{"a WebSocket handshake had no answer", silentWait}
		case <-c.life.Done():
			h.give()
			return ErrClosed
		}
	}
	if h.err != nil {
		return h.err
	}
	return c.bySocket(a, h)
}

// wins lets h end a, if it succeeds before a is open.
func (a *attach) wins(h *handshake) {
	if h != nil {
		h.then(func() { a.climb(h) })
	}
}

// climb ends a, and h is used in its place.
func (a *attach) climb(h *handshake) {
	if old := a.c.climbed.Swap(h); old != nil {
		old.give()
	}
	a.end(errClimb)
}

// probe tries a WebSocket beside a, in a goroutine of the timer.
func (a *attach) probe() {
	a.c.mu.Lock()
	w := wish{token: a.c.token}
	a.c.mu.Unlock()
	h := a.c.shake(w)
	if h == nil {
		return
	}
	h.then(func() { a.climb(h) })
	a.probing.Reset(leftBy) // if it does not
}

func (a *attach) wish() (wish, error) {
	w, err := a.c.wish(a.ctx)
	a.had, a.token = w.change, w.token
	reasons := a.c.ladder.reasons(a.transport)
	a.reasons = reasons
	isTold := func(reason string) bool { return slices.Contains(a.c.told, reason) }
	w.fallback = strings.Join(slices.DeleteFunc(slices.Clone(reasons), isTold), ",")
	return w, err
}

// watch returns a watchdog that ends a with cause.
func (a *attach) watch(cause *silentError) *watchdog {
	return newWatchdog(cause.wait, func() { a.end(cause) })
}

// open says that the server has attached the client, under id.
func (a *attach) open(w wish, id string) {
	c, now := a.c, time.Now()
	a.opened = now
	c.mu.Lock()
	c.id, c.renewed = id, false
	c.mu.Unlock()
	c.requests.attached(id)
	c.door()
	if a.beside != nil {
		a.beside.then(nil)
		a.beside.give()
		a.beside = nil
	}
	c.ladder.works(a.transport, now)
	c.told = c.ladder.reasons(a.transport)
	if ws := c.ladder.above(a.transport, WebSocket); ws != nil && !ws.until.IsZero() {
		a.probing = time.AfterFunc(ws.until.Sub(now), a.probe)
	}
	c.settle(w.change, nil)
	c.tell(Status{State: Connected, Transport: a.transport, Reasons: c.ladder.reasons(a.transport)})
	c.dialed.Do(func() { close(c.attached) })
}

// react decides what follows the end of a: the next transport below, or after wait another walk, or the end.
func (c *Client) react(a *attach, r *rung) (down bool, wait time.Duration, final error) {
	err, opened := a.err, !a.opened.IsZero()
	age := time.Duration(0)
	if opened {
		age = time.Since(a.opened)
	}
	if age >= stable {
		c.backoff.reset()
	}
	if age >= young {
		r.thrives()
	}
	if err == errAltered || err == errClimb {
		return false, 0, nil
	}
	if aboutTopics(err) && c.settle(a.had, err) {
		return false, 0, nil
	}
	if aboutTopics(err) && c.takeBack() {
		c.log.Warn("gpoll client: the server has refused topics late", "err", err)
		c.tell(Status{State: Connecting, Reasons: c.ladder.reasons(""), Err: err})
		return false, 0, nil
	}
	if _, silent := errors.AsType[*silentError](err); silent && r.transport != WebSocket {
		c.told = a.reasons // the server most likely has the request, and something keeps back the answer
	}
	how := courseOf(err)
	switch {
	case opened && how == goDown, age >= young && how == loseLife:
		how = comeBack // it did work: this is the network
	case how == stop && c.strayedLately(err):
		how = comeBack
	case how == askToken && !c.renew(a.token):
		how = stop
		if _, ok := errors.AsType[*EndError](err); !ok {
			how = goDown
		}
	}
	if opened && courseOf(err) == goDown {
		c.ladder.forgive()
	}
	switch how {
	case stop:
		return false, 0, err
	case register:
		c.mu.Lock()
		c.id = ""
		c.mu.Unlock()
	case goDown:
		r.fails(reason(r.transport, how, err))
		return true, 0, nil
	case loseLife:
		if r.suffers(reason(r.transport, how, err)); r.lives <= 0 {
			return true, 0, nil
		}
	}
	if _, silent := errors.AsType[*silentError](err); silent && a.transport == SSE {
		c.heartbeat = min(2*c.heartbeat, mostHeartbeat) // SSE does not say how often it beats
	}
	return false, c.pause(err), nil
}

// strayTime is how long a request that the client has given up may be on its way to the server.
const strayTime = 30 * time.Second

// strayedLately reports whether the newer attach that has superseded the client's may have been an earlier one of its
// own, which arrived late. If it was another program's, that one is superseded now, and stops.
func (c *Client) strayedLately(err error) bool {
	e, ok := errors.AsType[*EndError](err)
	return ok && e.Code == "superseded" && !c.strayed.IsZero() && time.Since(c.strayed) < strayTime
}

// pause returns how long to wait after err, which it makes known.
func (c *Client) pause(err error) time.Duration {
	wait := hint(err)
	if wait <= 0 {
		wait = max(c.backoff.next(), time.Microsecond)
	}
	c.mu.Lock()
	c.lastErr = err
	c.mu.Unlock()
	reasons := c.ladder.reasons("")
	if len(reasons) == 0 && unreachable(err) {
		reasons = []string{"unreachable"}
	}
	c.log.Info("gpoll client: comes back", "after", wait, "err", err)
	c.tell(Status{State: Waiting, Reasons: reasons, Err: err, Retry: wait})
	return wait
}

// sleep waits for d, and reports whether ctx let it.
func (c *Client) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

const (
	firstHeartbeat = 15 * time.Second // until a server has announced another one
	mostHeartbeat  = time.Hour
)

// silence returns how long nothing may come, and that nothing has come. heartbeat is 0 where the server does not
// announce it.
func (c *Client) silence(heartbeat time.Duration) *silentError {
	if heartbeat > 0 {
		c.heartbeat = min(heartbeat, mostHeartbeat)
	}
	return &silentError{"nothing came, not even a heartbeat,", c.heartbeat * 22 / 10}
}
