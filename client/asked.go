package client

import (
	"cmp"
	"context"
	"errors"
	"sync"

	"github.com/corvuscrypto/gpoll/internal/wire"
)

// The server's requests are delivered again at each attach until they are answered. A client keeps the ids of
// rememberedRequests of them, and calls the handler once for each. It calls mostHandlers at a time.
const (
	mostHandlers       = 8
	rememberedRequests = 1024
)

// A requests keeps what the server asks.
type requests struct {
	mu      sync.Mutex // guards the fields below
	handler func(context.Context, []byte) ([]byte, error)
	known   map[string]struct{} // ids
	order   []string            // of known
	waiting []wire.Answer       // for a handler
	busy    int                 // handlers that run
}

// HandleRequest makes f answer what the server asks with gpoll.Client.Request, in place of Options.OnRequest, which
// says the rest. Requests that have come before are not asked again.
func (c *Client) HandleRequest(f func(ctx context.Context, data []byte) (reply []byte, err error)) {
	c.requests.mu.Lock()
	defer c.requests.mu.Unlock()
	c.requests.handler = f
}

// asked takes a request of the server in. It does not wait.
func (c *Client) asked(q *wire.Answer) {
	r := &c.requests
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, again := r.known[q.ID]; again || q.ID == "" || len(r.waiting) >= rememberedRequests {
		return // one that finds no place comes again at the next attach
	}
	if r.known == nil {
		r.known = map[string]struct{}{}
	}
	r.known[q.ID] = struct{}{}
	if r.order = append(r.order, q.ID); len(r.order) > rememberedRequests+mostHandlers {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
	r.waiting = append(r.waiting, *q)
	if r.busy < mostHandlers && c.spawn(c.handleAll) {
		r.busy++
	}
}

// handleAll answers requests until none waits.
func (c *Client) handleAll() {
	r := &c.requests
	ended := false
	defer func() { // also when a handler ends the goroutine
		if !ended {
			r.mu.Lock()
			if len(r.waiting) == 0 || !c.spawn(c.handleAll) {
				r.busy--
			}
			r.mu.Unlock()
		}
	}()
	for {
		r.mu.Lock()
		if len(r.waiting) == 0 || c.life.Err() != nil {
			r.busy--
			ended = true
			r.mu.Unlock()
			return
		}
		q := r.waiting[0]
		if r.waiting = r.waiting[1:]; len(r.waiting) == 0 {
			r.waiting = nil
		}
		f := r.handler
		r.mu.Unlock()
		c.handle(f, &q)
	}
}

// handle calls the handler, and sends what it says. A panic is the program's own.
func (c *Client) handle(f func(context.Context, []byte) ([]byte, error), q *wire.Answer) {
	var reply []byte
	err := errors.New("the handler of this client has ended its goroutine")
	defer func() { c.reply(q.ID, reply, err) }()
	if f == nil {
		err = errors.New("this client answers no requests")
		return
	}
	reply, err = f(c.life, q.Payload())
}

// reply sends the answer to a request of the server. It returns when the server has it, or when nobody there waits for
// it any more.
func (c *Client) reply(id string, data []byte, err error) {
	p := payload{Data: text(data), Data64: bytesOf(data)}
	for range 2 {
		if err != nil {
			p = payload{Error: cmp.Or(err.Error(), "refused")}
		}
		var cmd *command
		if cmd, err = newCommand("reply", p, id); err == nil {
			c.out.add(cmd)
			c.pump()
			select {
			case <-cmd.done:
				err = cmd.err
			case <-c.life.Done():
				return
			}
		}
		if e, ok := errors.AsType[*EndError](err); err == nil || ok && e.Code == "no-request" {
			return
		}
		c.log.Warn("gpoll client: a reply was refused", "err", err) // it is too large: the server gets that as an error
	}
}
