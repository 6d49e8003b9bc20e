package client

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/corvuscrypto/gpoll/internal/wire"
)

const (
	emptyFloor = 250 * time.Millisecond // from an empty answer's poll to the next one

	// A poll may go without an answer for leastPollWait, and for twice as long after each that did: how long polls wait
	// is the server's to set, and it does not say so.
	leastPollWait = 40 * time.Second
	mostPollWait  = time.Hour
)

// polls carries a client by long-poll.
type polls struct {
	mu     sync.Mutex // guards cancel
	cancel context.CancelCauseFunc
}

// byPolls attaches by long-poll and returns why the attach ended.
func (c *Client) byPolls(a *attach) error {
	p := &polls{}
	c.carry(p, nil)
	defer c.drop()
	for {
		begun := time.Now()
		ctx, cancel := context.WithCancelCause(a.ctx)
		p.begin(cancel)
		quiet, err := c.pollOnce(ctx, a)
		altered := errors.Is(context.Cause(ctx), errAltered)
		cancel(nil)
		switch {
		case a.ctx.Err() != nil:
			return context.Cause(a.ctx)
		case altered:
			c.strayed = time.Now()
			continue
		case err != nil:
			return err
		case c.ladder.due(LongPoll, time.Now()):
			return errClimb
		}
		if floor := emptyFloor - time.Since(begun); quiet && floor > 0 {
			if !c.sleep(a.ctx, floor) {
				return context.Cause(a.ctx)
			}
		}
	}
}

func (p *polls) begin(cancel context.CancelCauseFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancel = cancel
}

// alter ends the poll: the next one names the topics.
func (p *polls) alter(*change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		p.cancel(errAltered)
	}
}

// pollOnce makes one poll, and reports whether the answer had nothing.
func (c *Client) pollOnce(ctx context.Context, a *attach) (quiet bool, err error) {
	w, err := a.wish()
	if err != nil {
		return false, err
	}
	if w.change != nil {
		defer time.AfterFunc(patience, func() { c.presume(w.change) }).Stop()
	}
	if w.id != "0" && a.opened.IsZero() {
		var settled func()
		ctx, settled = c.tellPatiently(ctx)
		defer settled()
	}
	batch, err := c.poll(ctx, w)
	if err != nil {
		return false, err
	}
	if batch.ClientID == "" || batch.Position == "" {
		return false, malformed("a batch", batch.ClientID+batch.Position, nil)
	}
	if len(batch.Messages) == 0 { // before Dial returns: Client.Position is where the client begins
		if err := c.scan(batch.Position); err != nil {
			return false, err
		}
	}
	if a.opened.IsZero() {
		a.open(w, batch.ClientID)
	}
	c.settle(w.change, nil)
	for i := range batch.Requests {
		c.asked(&batch.Requests[i])
	}
	for i := range batch.Messages {
		if err := c.deliver(&batch.Messages[i]); err != nil {
			return false, err
		}
	}
	return len(batch.Messages) == 0 && !batch.More, c.scan(batch.Position)
}

// tellPatiently says that the client is connected, if the request of ctx is then without an answer for a while. The
// server knows the client, and refuses at once what it refuses. Call settled when there is an answer.
func (c *Client) tellPatiently(ctx context.Context) (traced context.Context, settled func()) {
	s := Status{State: Connected, Transport: LongPoll, Reasons: c.ladder.reasons(LongPoll)}
	over := false // guarded by c.telling
	timer := time.AfterFunc(mostPollWait, func() {
		c.telling.Lock()
		defer c.telling.Unlock()
		if !over && c.life.Err() == nil {
			c.tellLocked(s)
		}
	})
	trace := &httptrace.ClientTrace{WroteRequest: func(w httptrace.WroteRequestInfo) {
		if w.Err == nil {
			timer.Reset(patience)
		}
	}}
	return httptrace.WithClientTrace(ctx, trace), func() {
		timer.Stop()
		c.telling.Lock()
		defer c.telling.Unlock()
		over = true
	}
}

// poll makes one request and reads the whole answer: one that is cut is none.
func (c *Client) poll(ctx context.Context, w wish) (*wire.Batch, error) {
	wait := max(c.pollWait, leastPollWait)
	begun := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, wait, &silentError{"a poll had no answer", wait})
	defer cancel()
	batch, err := c.answer(ctx, w)
	switch {
	case ctx.Err() != nil:
		if _, ok := errors.AsType[*silentError](context.Cause(ctx)); ok {
			c.pollWait = min(2*wait, mostPollWait)
		}
		return nil, context.Cause(ctx)
	case err == nil:
		c.pollWait = max(leastPollWait, time.Since(begun)*3/2)
	}
	return batch, err
}

func (c *Client) answer(ctx context.Context, w wish) (*wire.Batch, error) {
	r, err := c.request(ctx, "", "application/json", w)
	if err != nil {
		return nil, err
	}
	resp, body, err := c.fetch(r, "a poll")
	if err != nil {
		return nil, err
	}
	batch := new(wire.Batch)
	err = decode("a batch", body, batch)
	if err != nil && resp.Header.Get("Gpoll-Position") == "" {
		err = &strangerError{status: resp.StatusCode, what: fmt.Sprintf("%.60q", body)}
	}
	return batch, err
}
