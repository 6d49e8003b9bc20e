package gpoll

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"unicode/utf8"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// The session of a client, as the application sees it: it begins with OnConnect, at the client's first attach or
// command, and ends with OnClose, when the client is removed. Between two polls, and from one transport to another, it
// goes on.

// A session is what a client has beside its attach. Most clients have none.
type session struct {
	values sync.Map

	// Guarded by the routine's mu.
	topics  []string // of Client.Subscribe; a sorted set, never altered in place
	asks    []*ask   // without an answer, in their order
	newest  uint64   // number of the newest ask there ever was
	offered uint64   // number of the newest ask that an attach has carried
	told    uint64   // likewise, of polls whose answer went out
}

// session returns c's session; the first call makes it.
func (c *Client) session() *session {
	if s := c.sess.Load(); s != nil {
		return s
	}
	c.sess.CompareAndSwap(nil, new(session))
	return c.sess.Load()
}

// accept has the application accept the client, once, however many of its requests come at once. ctx is that of the
// request.
func (c *Client) accept(ctx context.Context) (no *refusal) {
	b := c.routine.b
	if b.OnConnect == nil {
		return c.welcome()
	}
	u := c.upstream()
	switch _, err := u.turn.take(math.MaxInt, ctx, b.ctx); {
	case err != nil && ctx.Err() != nil:
		return refuseUnknownClient // nobody hears it
	case err != nil:
		return b.refuseShutdown()
	}
	defer u.turn.pass()
	switch {
	case c.met.Load():
		return nil
	case c.gone():
		return b.refuseUnknown()
	}
	end := endInternal // unless OnConnect returns: it may end the goroutine
	defer func() {
		if end != nil {
			b.remove(c, end)
		}
	}()
	var err error
	switch {
	case !b.call("OnConnect", func() { err = b.OnConnect(c) }):
		return refuseInternal
	case err == nil:
		end = nil
		return c.welcome()
	case mayPass(err): // the client comes back, and OnConnect is asked again
		end = nil
		return refuseFor(err)
	}
	no = &refusal{status: http.StatusForbidden, code: "refused", message: err.Error(), cause: err}
	end = refused(no)
	return no
}

// welcome begins the session. If the client was removed while OnConnect ran, OnClose is called at once.
func (c *Client) welcome() *refusal {
	b := c.routine.b
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	present := c.presentLocked()
	if c.met.Store(true); c.slot >= 0 {
		if !present {
			c.appearLocked()
		}
		return nil
	}
	c.closeLocked(c.err.Code)
	return b.refuseUnknown()
}

// closeLocked ends the session of a client that is removed: OnClose is called on a goroutine of its own, after what
// runs for this client at the moment.
func (c *Client) closeLocked(reason string) {
	b := c.routine.b
	if b.OnClose == nil || !c.met.Load() {
		return
	}
	b.spawn(func() { // ends with OnClose
		if u := c.up.Load(); u != nil { // else no command ever got so far, and none does from here on
			b.goroutines.enter(1) // the turn may belong to a function that calls Shutdown
			none := context.Background()
			_, _ = u.turn.take(math.MaxInt, none, none) // which has no error
			b.goroutines.enter(-1)
			defer u.turn.pass()
		}
		b.call("OnClose", func() { b.OnClose(c, reason) })
	})
}

// Values returns what the application keeps for the client. gpoll does not look at it.
func (c *Client) Values() *sync.Map { return &c.session().values }

// RemoteAddr returns the address from which the client's first request came: what ClientIP said, if it said anything,
// otherwise the request's RemoteAddr. It is "" before that request.
func (c *Client) RemoteAddr() string {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	return c.remote
}

// Send publishes a message to this client alone. A failure is logged and counted; to see it, Publish a Message to
// ToClient(c.PublicID()).
func (c *Client) Send(msg string) {
	c.routine.b.send(&Message{Data: []byte(msg), To: ToClient(c.public)})
}

// Close removes the client, as RemoveClient does. OnClose gets the reason; "" means "removed". So does a client with a
// WebSocket or SSE. It reports whether the client was still there.
func (c *Client) Close(reason string) bool {
	if reason == "" {
		return c.routine.b.remove(c, endRemoved)
	}
	why := *endRemoved.refusal
	why.message = reason
	return c.routine.b.remove(c, &ending{&why, closeRemoved})
}

// Subscribe subscribes the client to topics, or patterns, beside those that it names itself and those of its Grant, for
// as long as its session lasts. It is owed what is published after Subscribe has returned; it may also get what was
// published after its cursor. The client is not told. The error wraps ErrBadMessage for a bad topic or for more than
// MaxTopics of them, and is ErrUnknownClient after the client's removal.
func (c *Client) Subscribe(topics ...string) error { return c.retopic(topics, union) }

// Unsubscribe takes back topics of Subscribe. What the client names itself, and what its Grant gives, stays.
func (c *Client) Unsubscribe(topics ...string) error { return c.retopic(topics, without) }

// retopic changes the topics of Subscribe. An attach gets its new topics in its place in the stream.
func (c *Client) retopic(topics []string, change func(own, topics []string) []string) error {
	b := c.routine.b
	for _, topic := range topics {
		if !topicname.Valid(topic) && !topicname.ValidPattern(topic) {
			return fmt.Errorf("%w: topic %q: %s; %s", ErrBadMessage, clip(topic, 40), topicname.Rule, topicname.PatternRule)
		}
	}
	s := c.session()
	a, err := func() (*attach, error) {
		c.routine.mu.Lock()
		defer c.routine.mu.Unlock()
		own := change(s.topics, topics)
		switch {
		case c.removed:
			return nil, ErrUnknownClient
		case len(own) > b.set.maxTopics:
			return nil, fmt.Errorf("%w: %d topics; the limit (Broadcaster.MaxTopics) is %d", ErrBadMessage, len(own),
				b.set.maxTopics)
		}
		given := without(without(c.topics, c.named), s.topics)
		s.topics = own
		if c.attach == nil {
			c.setTopicsLocked(c.named, given)
		}
		return c.attach, nil
	}()
	if a != nil {
		a.post(operation{})
	}
	return err
}

// ownTopicsLocked are those of Subscribe.
func (c *Client) ownTopicsLocked() []string {
	if s := c.sess.Load(); s != nil {
		return s.topics
	}
	return nil
}

// endAttach ends c's attach, if it has one.
func (c *Client) endAttach(why *ending) {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	if c.attach != nil {
		c.routine.endLocked(c.attach, why)
	}
}

// saying is a code and a sentence of the application's, cut to what fits a close frame (RFC 6455, section 5.5).
func saying(code, sentence string) string {
	const most = 123
	s := code + ": " + sentence
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
