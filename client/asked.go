package client

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/corvuscrypto/gpoll/internal/wire"
)

// The server numbers its requests to a client id, and brings them again at each attach until they are answered, except
// those up to the number that the client says it has. The client calls the handler once for each, mostHandlers at a
// time. A request beyond mostWaiting that wait for a handler is left for the next attach, with all behind it.
const (
	mostHandlers = 8
	mostWaiting  = 1024
)

// A requests keeps what the server asks.
type requests struct {
	mu      sync.Mutex // guards the fields below
	handler func(context.Context, []byte) ([]byte, error)
	client  string    // to which client id
	newest  uint64    // number that the client has
	full    bool      // since this attach
	waiting []request // for a handler
	busy    int       // handlers that run
}

// A request is one of the server to a client id.
type request struct {
	wire.Answer
	client string
}

// attached says that an attach of a client id begins. Nobody waits for answers to the requests of an older one.
func (r *requests) attached(client string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full = false; r.client != client {
		r.client, r.newest, r.waiting = client, 0, nil
	}
}

// has returns the number of the newest request that a client id has.
func (r *requests) has(client string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != client {
		return 0
	}
	return r.newest
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
	n, err := strconv.ParseUint(q.ID, 10, 64)
	if r.full = r.full || len(r.waiting) >= mostWaiting; r.full || err != nil || n <= r.newest {
		return
	}
	r.newest = n
	r.waiting = append(r.waiting, request{*q, r.client})
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
func (c *Client) handle(f func(context.Context, []byte) ([]byte, error), q *request) {
	var reply []byte
	err := errors.New("the handler of this client has ended its goroutine")
	defer func() { c.reply(q, reply, err) }()
	if f == nil {
		err = errors.New("this client answers no requests")
		return
	}
	reply, err = f(c.life, q.Payload())
}

// reply sends the answer to a request of the server. It returns when the server has it, or when nobody there waits for
// it any more.
func (c *Client) reply(q *request, data []byte, err error) {
	p := payload{Data: text(data), Data64: bytesOf(data)}
	for range 2 {
		if err != nil {
			p = payload{Error: cmp.Or(err.Error(), "refused")}
		}
		var cmd *command
		if cmd, err = newCommand("reply", p, q.ID); err == nil {
			cmd.client = q.client
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
