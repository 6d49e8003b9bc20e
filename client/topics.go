package client

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// patience is how long a poll that names new topics may be without a refusal until they count as granted: what the
// server refuses, it refuses at once, and else the poll waits for messages.
const patience = time.Second

// Subscribe adds topics to those of the Client. It returns when the server has granted them, or an *EndError when it
// has refused them: then the Client goes on with those that it had. Topics that are granted are owed from then on, and
// stay through every reconnect.
//
// On long-poll topics count as granted when the server has not refused them within a second. If it takes longer and
// refuses them then, the Client takes them back, and Status.Err says so.
//
// If ctx ends before the answer, the change is still under way, and the next Subscribe or Unsubscribe waits for it.
// Meanwhile messages are read beyond the bound of what waits for Messages: a program may call Subscribe in its loop.
func (c *Client) Subscribe(ctx context.Context, topics ...string) error {
	return c.alter(ctx, topics, true)
}

// Unsubscribe removes topics. When it returns nil, the server sends no more messages of them; some may still be on
// their way to Messages. Otherwise it is like Subscribe.
func (c *Client) Unsubscribe(ctx context.Context, topics ...string) error {
	return c.alter(ctx, topics, false)
}

func (c *Client) alter(ctx context.Context, topics []string, add bool) error {
	if err := checkTopics(topics); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer c.inbox.unbound()()
	select {
	case c.turn <- struct{}{}:
	case <-c.done:
		return c.endErr()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.mu.Lock()
	named := slices.DeleteFunc(slices.Clone(topics), func(t string) bool { return slices.Contains(c.topics, t) == add })
	if len(named) == 0 {
		c.mu.Unlock()
		<-c.turn
		return nil
	}
	slices.Sort(named)
	ch := &change{add: add, named: slices.Compact(named), done: make(chan error, 1)}
	ch.topics = ch.apply(c.topics)
	c.change = ch
	by := c.by
	c.mu.Unlock()
	if by != nil {
		by.alter(ch)
	}
	select {
	case err := <-ch.done:
		return err
	case <-c.done:
		return c.endErr()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settle ends a change: the server has granted or refused it. It reports whether that change was under way.
func (c *Client) settle(ch *change, err error) bool {
	c.mu.Lock()
	pending := ch != nil && c.change == ch
	if pending {
		c.change = nil
		if err == nil {
			c.topics = ch.topics
		}
	}
	if err == nil {
		c.unsure = nil
	}
	c.mu.Unlock()
	if pending {
		ch.done <- err
		<-c.turn
	}
	return pending
}

// presume settles a change that the server has not refused in time.
func (c *Client) presume(ch *change) {
	if c.settle(ch, nil) && ch.add {
		c.mu.Lock()
		c.unsure = ch
		c.mu.Unlock()
	}
}

// takeBack takes topics away again that were presumed, and reports whether there were any.
func (c *Client) takeBack() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.unsure
	if ch == nil {
		return false
	}
	back := change{named: ch.named}
	c.topics, c.unsure = back.apply(c.topics), nil
	return true
}

// carry makes by what carries the client, and lets it know of a change that its request does not have.
func (c *Client) carry(by carrier, had *change) {
	c.mu.Lock()
	c.by = by
	late := c.change
	c.mu.Unlock()
	c.door()
	if late != nil && late != had {
		by.alter(late)
	}
}

// drop takes the carrier away.
func (c *Client) drop() {
	c.mu.Lock()
	c.by = nil
	c.mu.Unlock()
	c.door()
}
