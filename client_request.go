package gpoll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// The server asks a client. What it asks goes out in the JSON forms, beside the messages, and again at each new attach
// until the client has answered: it knows an ask by its number. See commandReply for the way back.

// An ask is what the server wants to know of a client.
type ask struct {
	number uint64
	json   []byte // {"id":…,"data":…}
	reply  chan reply
}

// A reply ends an ask.
type reply struct {
	data []byte
	err  error
}

// So many asks of one client may wait for their replies.
const mostAsks = 16

// A ReplyError is what a client answers in place of a reply.
type ReplyError struct{ Text string }

func (e *ReplyError) Error() string { return "gpoll: the client answers with an error: " + e.Text }

// Request asks the client, and returns what it answers. It waits while the client is away: give ctx a deadline. data is
// at most MaxMessage bytes and is copied; the reply is the caller's.
//
// The client has to use a JSON form: the plain ones carry no questions, and for those the error wraps
// errors.ErrUnsupported. So it does when 16 others wait for this client's answers. It is ErrUnknownClient when the
// client is removed, ErrTooLarge, a *ReplyError, or the cause of ctx.
//
// The client's own commands wait for the function of the application that hears it, and on a WebSocket its replies
// too: that function must not wait for Request, nor may OnConnect.
func (c *Client) Request(ctx context.Context, data []byte) (answer []byte, err error) {
	if most := c.routine.b.set.maxMessage; len(data) > most {
		return nil, fmt.Errorf("%w: %d bytes; the limit (Broadcaster.MaxMessage) is %d", ErrTooLarge, len(data), most)
	}
	it := &ask{reply: make(chan reply, 1)}
	if err := c.ask(it, data); err != nil {
		return nil, err
	}
	select {
	case got := <-it.reply:
		return got.data, got.err
	case <-ctx.Done():
		c.routine.mu.Lock()
		defer c.routine.mu.Unlock()
		c.takeAskLocked(it.number)
		return nil, context.Cause(ctx)
	}
}

// errNoQuestions is for clients whose form has no place for a question.
var errNoQuestions = fmt.Errorf("gpoll: the client uses a plain form, which carries no requests: %w",
	errors.ErrUnsupported)

// ask gives it to the client's attach, or to the next one.
func (c *Client) ask(it *ask, data []byte) error {
	s := c.session()
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	a := c.attach
	switch {
	case c.removed:
		return ErrUnknownClient
	case a != nil && !a.asks:
		return errNoQuestions
	case len(s.asks) >= mostAsks:
		return fmt.Errorf("gpoll: %d requests wait for this client's answers: %w", mostAsks, errors.ErrUnsupported)
	}
	s.newest++
	it.number = s.newest
	it.json = append([]byte(`{"id":"`), strconv.FormatUint(it.number, 10)...)
	it.json = append(appendData(append(it.json, `",`...), data, !utf8.Valid(data)), '}')
	s.asks = append(s.asks, it)
	if a != nil {
		a.ops = append(a.ops, operation{ask: it})
		a.attendLocked()
	}
	return nil
}

// askAgainLocked has a new attach carry what the client has not answered, and does not have according to o.
func (a *attach) askAgainLocked(o *attachOptions) {
	c := a.client
	s := c.sess.Load()
	if s == nil || len(s.asks) == 0 {
		return
	}
	if !a.asks {
		c.endAsksLocked(errNoQuestions)
		return
	}
	after := o.asked
	if o.transport == longPoll && after == 0 { // else it would come back at once for the same one
		after = s.told + 1
	}
	for _, it := range s.asks {
		if it.number >= after {
			a.ops = append(a.ops, operation{ask: it})
		}
	}
}

// takeAskLocked returns the ask of that number, and forgets it; nil when there is none.
func (c *Client) takeAskLocked(number uint64) *ask {
	s := c.sess.Load()
	if s == nil {
		return nil
	}
	for i, it := range s.asks {
		if it.number == number {
			s.asks = slices.Delete(s.asks, i, i+1)
			return it
		}
	}
	return nil
}

// endAsksLocked answers what the client will not answer any more.
func (c *Client) endAsksLocked(err error) {
	if s := c.sess.Load(); s != nil {
		for _, it := range s.asks {
			it.reply <- reply{err: err}
		}
		s.asks = nil
	}
}

// answers takes the client's reply to an ask. It reports false when nobody waits for it.
func (c *Client) answers(cmd *command) bool {
	number, ok := parseDecimal(cmd.id)
	if !ok {
		return false
	}
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	it := c.takeAskLocked(number)
	if it == nil {
		return false
	}
	got := reply{data: cmd.data}
	if cmd.kind == commandReplyError {
		got = reply{err: &ReplyError{string(cmd.data)}}
	}
	it.reply <- got
	return true
}

// appendAsk appends an ask as the attach's form has it: a frame, an event, or an element of a poll's answer.
func (a *attach) appendAsk(b []byte, it *ask) []byte {
	switch a.transport {
	case sse:
		return appendEvent(b, "request", Position{}, it.json)
	case webSocket:
		return a.appendAnswer(b, append(append([]byte(`{"request":`), it.json...), '}'))
	}
	if len(b) > 0 {
		b = append(b, ',')
	}
	return append(b, it.json...)
}
