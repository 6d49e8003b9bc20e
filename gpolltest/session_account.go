package gpolltest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// apply takes an answer in and returns the new messages.
func (s *Session) apply(got answer) []gpoll.Message {
	if got.clientID != "" && got.clientID != s.id {
		s.id = got.clientID
		s.record(func(t *Trace) { t.Registered(s.id, s.User) })
	}
	var fresh []gpoll.Message
	for i := range got.items {
		it := &got.items[i]
		switch {
		case it.gap != nil:
			s.applyGap(*it.gap)
			if it.plain { // the server goes on behind it, at a Position that only the server knows if the epoch ended
				s.unknown = nil
				if it.gap.To == 0 {
					s.cursor = gpoll.Position{}
				}
			}
		case s.passed(it.message.Position):
			s.repeats++
			s.record(func(t *Trace) { t.Repeated(it.message.Position) })
		default:
			s.record(func(t *Trace) {
				if it.plain {
					t.DeliveredPlain(it.message)
				} else {
					t.Delivered(it.message)
				}
			})
			if it.message.Position.IsZero() {
				s.unknown = it.message.Data
			} else {
				s.cursor = it.message.Position
			}
			fresh = append(fresh, it.message)
		}
	}
	s.adopt(got.scanned)
	for _, topic := range got.subscribed {
		if !slices.Contains(s.named, topic) {
			s.named = append(s.named, topic)
			s.record(func(t *Trace) { t.Subscribed(topic, got.scanned) })
		}
	}
	for _, topic := range got.unsubscribed {
		if i := slices.Index(s.named, topic); i >= 0 {
			s.named = slices.Delete(s.named, i, i+1)
			s.record(func(t *Trace) { t.Unsubscribed(topic, got.scanned) })
		}
	}
	return fresh
}

// passed reports whether p is at or before the cursor.
func (s *Session) passed(p gpoll.Position) bool {
	return !p.IsZero() && p.Epoch == s.cursor.Epoch && p.Seq <= s.cursor.Seq
}

func (s *Session) applyGap(g gpoll.Gap) {
	if g == s.lastGap && g.Reason != "future" {
		return // the attach broke between the notice and the next Position, and the server says it again
	}
	s.lastGap = g
	s.record(func(t *Trace) { t.Gap(g) })
	switch end := (gpoll.Position{Epoch: g.Epoch, Seq: g.To}); {
	case g.Reason == "future":
		s.cursor = gpoll.Position{}
	case g.To != 0 && !s.passed(end):
		s.cursor = end
	}
}

// adopt moves the cursor to a scanned Position.
func (s *Session) adopt(p gpoll.Position) {
	if p.IsZero() || s.passed(p) {
		return
	}
	s.cursor = p
	s.record(func(t *Trace) { t.Scanned(p) })
	if s.unnamed {
		s.nameTopics(false)
	}
}

// nameTopics tells the Trace which topics a request names, as of the cursor that it brings. Without one they count from
// the Position in the answer, unless blind: on a plain WebSocket none will come.
func (s *Session) nameTopics(blind bool) {
	s.unnamed = s.cursor.IsZero() && !blind
	if s.unnamed {
		return
	}
	for _, topic := range s.wanted {
		if !slices.Contains(s.named, topic) {
			s.named = append(s.named, topic)
			s.record(func(t *Trace) { t.Subscribed(topic, s.cursor) })
		}
	}
	s.named = slices.DeleteFunc(s.named, func(topic string) bool {
		gone := !slices.Contains(s.wanted, topic)
		if gone {
			s.record(func(t *Trace) { t.Unsubscribed(topic, s.cursor) })
		}
		return gone
	})
}

// placeLast finds the cursor after messages that came without Position. A message may arrive before its Publish has
// returned, so placeLast looks until the History knows the message. Without a Trace it takes the server's cursor.
func (s *Session) placeLast(ctx context.Context) error {
	if s.unknown == nil {
		return nil
	}
	defer func() { s.unknown = nil }()
	if s.Trace == nil {
		s.cursor = gpoll.Position{}
		return nil
	}
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		if p, ok := s.Trace.position(s.unknown); ok {
			s.adopt(p)
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("no publish of the last payload is recorded: %w", context.Cause(ctx))
		}
	}
}
