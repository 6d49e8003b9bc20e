package gpoll

import (
	"errors"
	"maps"
	"sync"
)

// Stats says what a Broadcaster has done and what it holds at one moment. The counts only grow.
type Stats struct {
	Clients  int            // registered
	Attached map[string]int // by transport: "long-poll", "sse", "websocket", "channel"
	Routines int

	Epoch                 string // of the log, 16 hexadecimal digits
	WindowLow, WindowHigh uint64 // seqs that can be replayed; low is above high when there is none
	WindowMessages        int    // in all windows
	WindowBytes           int    // of memory: messages and their wire forms

	Outage string // why the broker cannot be reached; empty while it can

	Published uint64 // messages accepted from this Broadcaster's Send and Publish
	Delivered uint64 // messages written to a client or its channel
	Repeats   uint64 // polls that a connection of Listener took on without net/http

	Dropped map[string]uint64 // attaches and clients that the server ended, by reason
	Refused map[string]uint64 // requests and publishes, by code
	Gaps    map[string]uint64 // gaps announced, by reason

	// Fallbacks counts why clients use no better transport, in their words: docs/protocol.md, section 3, lists them. Any
	// other word counts as "other".
	Fallbacks map[string]uint64
}

// Stats reports what the Broadcaster has done and holds. Its cost grows neither with the clients nor with the topics.
func (b *Broadcaster) Stats() Stats {
	s := Stats{Attached: map[string]int{}}
	if b.start() != nil {
		return s
	}
	s.Clients, s.Routines = b.clients.size()
	for t := range b.attachCount {
		s.Attached[transport(t).String()] = int(b.attachCount[t].Load())
	}
	epoch, lo, hi, messages, bytes := b.messages.windowStats()
	s.Epoch = Position{Epoch: epoch}.String()[:16]
	s.WindowLow, s.WindowHigh, s.WindowMessages, s.WindowBytes = lo, hi, messages, bytes
	s.Outage = b.follower.trouble()
	s.Published, s.Delivered, s.Repeats = b.published.Load(), b.delivered.Load(), b.repeats.Load()
	s.Dropped, s.Refused, s.Gaps = b.counts.dropped.copy(), b.counts.refused.copy(), b.counts.gaps.copy()
	s.Fallbacks = b.counts.fallbacks.copy()
	return s
}

// size returns how many clients are registered, in how many routines.
func (g *registry) size() (clients, routines int) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.byKey), g.running
}

// counters are counts by reason.
type counters struct{ dropped, refused, gaps, fallbacks reasonCount }

// A reasonCount counts by a reason from a small, fixed set.
type reasonCount struct {
	mu sync.Mutex
	by map[string]uint64
}

func (c *reasonCount) add(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]uint64{}
	}
	c.by[reason]++
}

func (c *reasonCount) copy() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		return map[string]uint64{}
	}
	return maps.Clone(c.by)
}

func (b *Broadcaster) countEnd(why *ending) { b.counts.dropped.add(why.refusal.code) }
func (b *Broadcaster) countGap(g *Gap)      { b.counts.gaps.add(g.Reason) }

// countItems counts items that were written to a client.
func (b *Broadcaster) countItems(items []item) {
	messages := uint64(0)
	for i := range items {
		if items[i].gap != nil {
			b.countGap(items[i].gap)
		} else {
			messages++
		}
	}
	b.delivered.Add(messages)
}

// publishFailure is the reason under which a failed Publish is counted.
func publishFailure(err error) string {
	switch {
	case errors.Is(err, ErrClosed):
		return "closed"
	case errors.Is(err, ErrTooLarge):
		return "too-large"
	case errors.Is(err, ErrBadMessage):
		return "bad-message"
	case errors.Is(err, ErrUnknown):
		return "publish-unknown"
	case errors.Is(err, ErrUnavailable):
		return "publish-unavailable"
	}
	return "publish-failed"
}
