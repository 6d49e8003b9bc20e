package gpolltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/corvuscrypto/gpoll"
)

const (
	e1 = 0xa1
	e2 = 0xb2
	e3 = 0xc3

	aliceID = "0$6ba7b811-9dad-41d1-80b4-00c04fd430c8"
	bobID   = "0$16fd2706-8baf-433b-82eb-8c7fada847da"
)

// A script makes a history by hand.
type script struct {
	*testing.T
	History
	messages map[gpoll.Position]gpoll.Message
}

// placed is a Publisher that gives every message the same Position.
type placed gpoll.Position

func (p placed) Publish(context.Context, gpoll.Message) (gpoll.Position, error) {
	return gpoll.Position(p), nil
}

// refused is a Publisher that fails.
type refused struct{ err error }

func (r refused) Publish(context.Context, gpoll.Message) (gpoll.Position, error) {
	return gpoll.Position{}, r.err
}

func at(epoch, seq uint64) gpoll.Position { return gpoll.Position{Epoch: epoch, Seq: seq} }

// accept publishes m at a Position. Without Data it gets a payload of its own.
func (s *script) accept(epoch, seq uint64, m gpoll.Message) {
	if m.Data == nil {
		m.Data = fmt.Appendf(nil, "message %x-%d", epoch, seq)
	}
	m.Position = at(epoch, seq)
	s.messages[m.Position] = m
	s.Publish(s.Context(), placed(m.Position), m)
}

// accepts publishes broadcasts from..to.
func (s *script) accepts(epoch, from, to uint64) {
	for seq := from; seq <= to; seq++ {
		s.accept(epoch, seq, gpoll.Message{})
	}
}

// client begins a Trace that stands at a Position and subscribes to topics there.
func (s *script) client(epoch, seq uint64, topics ...string) *Trace {
	c := s.Trace("alice")
	c.Registered(aliceID, "ally")
	c.Scanned(at(epoch, seq))
	for _, topic := range topics {
		c.Subscribed(topic, at(epoch, seq))
	}
	return c
}

// deliver lets c see messages as they were accepted.
func (s *script) deliver(c *Trace, epoch uint64, seqs ...uint64) {
	for _, seq := range seqs {
		c.Delivered(s.messages[at(epoch, seq)])
	}
}

func TestChecker(t *testing.T) {
	topic := func(name string) gpoll.Message { return gpoll.Message{Topic: name} }
	for _, test := range []struct {
		name    string
		want    string // the invariants that are violated, in order of name, each once
		checker Checker
		script  func(s *script)
	}{
		{name: "nothing", script: func(s *script) {}},
		{name: "ordinary", checker: Checker{NoGaps: true}, script: func(s *script) {
			c := s.client(e1, 0, "a")
			s.accept(e1, 1, gpoll.Message{})
			s.accept(e1, 2, topic("a"))
			s.accept(e1, 3, topic("b"))
			s.accept(e1, 4, gpoll.Message{To: gpoll.ToClient(gpoll.PublicID(aliceID))})
			s.accept(e1, 5, gpoll.Message{To: gpoll.ToClient(gpoll.PublicID(bobID))})
			s.accept(e1, 6, gpoll.Message{To: gpoll.ToUser("ally")})
			s.accept(e1, 7, gpoll.Message{To: gpoll.ToUser("bob")})
			s.accept(e1, 8, gpoll.Message{Topic: "a", Except: []string{gpoll.PublicID(aliceID)}})
			s.accept(e1, 9, gpoll.Message{Except: []string{gpoll.PublicID(bobID)}})
			s.deliver(c, e1, 1, 2, 4, 6, 9)
			c.Drained()
		}},

		// I1
		{name: "I1 first seq anywhere, publish id repeated", script: func(s *script) {
			s.accept(e1, 41, gpoll.Message{ID: "x"})
			s.accept(e1, 41, gpoll.Message{ID: "x"})
			s.accept(e1, 42, gpoll.Message{})
		}},
		{name: "I1 hole", want: "I1", script: func(s *script) {
			s.accepts(e1, 1, 2)
			s.accept(e1, 4, gpoll.Message{})
		}},
		{name: "I1 hole that an unknown outcome explains", script: func(s *script) {
			s.accepts(e1, 1, 2)
			s.Publish(s.Context(), refused{fmt.Errorf("cut: %w", gpoll.ErrUnknown)}, gpoll.Message{Data: []byte("?")})
			s.accept(e1, 4, gpoll.Message{})
		}},
		{name: "I1 hole that a rejected publish does not explain", want: "I1", script: func(s *script) {
			s.accepts(e1, 1, 2)
			s.Publish(s.Context(), refused{errors.New("no")}, gpoll.Message{Data: []byte("?")})
			s.accept(e1, 4, gpoll.Message{})
		}},
		{name: "I1 against real time", want: "I1", script: func(s *script) {
			s.accept(e1, 2, gpoll.Message{})
			s.accept(e1, 1, gpoll.Message{})
		}},
		{name: "I1 concurrent publishes have no order", script: func(s *script) {
			s.Publish(s.Context(), inside(func() { s.accept(e1, 1, gpoll.Message{}) }, at(e1, 2)),
				gpoll.Message{Data: []byte("2")})
			s.Publish(s.Context(), inside(func() { s.accept(e1, 4, gpoll.Message{}) }, at(e1, 3)),
				gpoll.Message{Data: []byte("3")})
		}},
		{name: "I1 back to an older epoch", want: "I1", script: func(s *script) {
			s.accept(e1, 1, gpoll.Message{})
			s.accept(e2, 1, gpoll.Message{})
			s.accept(e1, 2, gpoll.Message{})
		}},

		// I2
		{name: "I2 twice", want: "I2", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2, 2)
		}},
		{name: "I2 step back", want: "I2 I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 2, 1)
		}},
		{name: "I2 before the start", want: "I2", script: func(s *script) {
			s.accepts(e1, 1, 3)
			c := s.client(e1, 3)
			s.deliver(c, e1, 3)
		}},
		{name: "I2 repeat on the wire", want: "I2", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2)
			c.Repeated(at(e1, 2))
		}},
		{name: "I2 repeat on the wire, allowed", checker: Checker{AllowRepeats: true}, script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2)
			c.Repeated(at(e1, 2))
		}},

		// I3
		{name: "I3 phantom", want: "I3", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2)
			c.Delivered(gpoll.Message{Position: at(e1, 3), Data: []byte("from nowhere")})
		}},
		{name: "I3 the unknown publish was accepted", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{})
			s.Publish(s.Context(), refused{gpoll.ErrUnknown}, gpoll.Message{Data: []byte("?")})
			s.deliver(c, e1, 1)
			c.Delivered(gpoll.Message{Position: at(e1, 2), Data: []byte("?")})
			s.Sent(gpoll.Message{Data: []byte("!")})
			c.Delivered(gpoll.Message{Position: at(e1, 3), Data: []byte("!")})
		}},
		{name: "I3 the unknown publish was accepted twice", want: "I3", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{})
			s.Publish(s.Context(), refused{gpoll.ErrUnknown}, gpoll.Message{Data: []byte("?")})
			s.deliver(c, e1, 1)
			c.Delivered(gpoll.Message{Position: at(e1, 2), Data: []byte("?")})
			c.Delivered(gpoll.Message{Position: at(e1, 3), Data: []byte("?")})
		}},
		{name: "I3 before it was published", want: "I3", script: func(s *script) {
			c := s.client(e1, 0)
			c.Delivered(gpoll.Message{Position: at(e1, 1), Data: []byte("prophecy")})
			s.accept(e1, 1, gpoll.Message{Data: []byte("prophecy")})
		}},
		{name: "I3 phantom without Position", want: "I3", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{})
			s.deliver(c, e1, 1)
			c.DeliveredPlain(gpoll.Message{Data: []byte("from nowhere")})
		}},

		// I4
		{name: "I4 payload", want: "I4", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{Data: []byte("yes")})
			c.Delivered(gpoll.Message{Position: at(e1, 1), Data: []byte("yep")})
		}},
		{name: "I4 topic", want: "I4", script: func(s *script) {
			c := s.client(e1, 0, "a")
			s.accept(e1, 1, gpoll.Message{Topic: "a", Data: []byte("yes")})
			c.Delivered(gpoll.Message{Position: at(e1, 1), Topic: "b", Data: []byte("yes")})
		}},
		{name: "I4 plain form shows no topic", script: func(s *script) {
			c := s.client(e1, 0, "a")
			s.accept(e1, 1, gpoll.Message{Topic: "a", Data: []byte("yes")})
			c.DeliveredPlain(gpoll.Message{Position: at(e1, 1), Data: []byte("yes")})
			s.accept(e1, 2, gpoll.Message{Topic: "a", Data: []byte("no")})
			c.DeliveredPlain(gpoll.Message{Data: []byte("no")})
			c.Drained()
		}},

		// I5
		{name: "I5 at the next message", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 3)
			s.deliver(c, e1, 1, 3)
		}},
		{name: "I5 at the next message without Position", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 3)
			c.DeliveredPlain(gpoll.Message{Data: s.messages[at(e1, 1)].Data})
			c.DeliveredPlain(gpoll.Message{Data: s.messages[at(e1, 3)].Data})
		}},
		{name: "I5 at a scanned Position", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 3)
			s.deliver(c, e1, 1, 2)
			c.Scanned(at(e1, 3))
		}},
		{name: "I5 at a gap", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 9)
			s.deliver(c, e1, 1)
			c.Gap(gpoll.Gap{Epoch: e1, From: 3, To: 5, Reason: "evicted"})
			s.deliver(c, e1, 6, 7, 8, 9)
		}},
		{name: "I5 behind a gap", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 9)
			s.deliver(c, e1, 1)
			c.Gap(gpoll.Gap{Epoch: e1, From: 2, To: 4, Reason: "evicted"})
			s.deliver(c, e1, 6, 7, 8, 9)
		}},
		{name: "I5 at the change of epoch", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 3)
			s.deliver(c, e1, 1)
			s.accepts(e2, 1, 1)
			c.Gap(gpoll.Gap{Epoch: e1, From: 3, Reason: "epoch"})
			s.deliver(c, e2, 1)
		}},
		{name: "I5 at the beginning of the new epoch", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 1)
			s.deliver(c, e1, 1)
			s.accepts(e2, 1, 3)
			c.Gap(gpoll.Gap{Epoch: e1, From: 2, Reason: "epoch"})
			s.deliver(c, e2, 2, 3)
		}},
		{name: "I5 not what is owed to others", script: func(s *script) {
			c := s.client(e1, 0, "a")
			s.accept(e1, 1, topic("b"))
			s.accept(e1, 2, gpoll.Message{To: gpoll.ToUser("bob")})
			s.accept(e1, 3, gpoll.Message{Except: []string{gpoll.PublicID(aliceID)}})
			c.Scanned(at(e1, 3))
			s.accept(e1, 4, topic("a"))
			s.deliver(c, e1, 4)
		}},
		{name: "I5 topic", want: "I5", script: func(s *script) {
			c := s.client(e1, 0, "a")
			s.accept(e1, 1, topic("a"))
			c.Scanned(at(e1, 1))
		}},
		{name: "I5 to the client", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{To: gpoll.ToClient(gpoll.PublicID(aliceID))})
			c.Scanned(at(e1, 1))
		}},
		{name: "I5 to the client's former id", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{To: gpoll.ToClient(gpoll.PublicID(aliceID))})
			c.Registered(bobID, "ally")
			c.Scanned(at(e1, 1))
		}},
		{name: "I5 to the user", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{To: gpoll.ToUser("ally")})
			c.Scanned(at(e1, 1))
		}},
		{name: "I5 subscribed later", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, topic("a"))
			c.Subscribed("a", at(e1, 1))
			s.accept(e1, 2, topic("a"))
			s.deliver(c, e1, 2)
			s.accept(e1, 3, topic("a"))
			s.deliver(c, e1, 3)
			c.Unsubscribed("a", at(e1, 3))
			s.accept(e1, 4, topic("a"))
			c.Scanned(at(e1, 4))
		}},
		{name: "I5 lost before the end of the subscription", want: "I5", script: func(s *script) {
			c := s.client(e1, 0, "a")
			s.accept(e1, 1, topic("a"))
			c.Unsubscribed("a", at(e1, 1))
		}},
		{name: "I5 a Position ahead of the log", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			c.Subscribed("a", at(e1, 1))
			s.accept(e1, 1, topic("a"))
			c.Drained()
		}},
		{name: "I5 covered by a gap", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 9)
			s.deliver(c, e1, 1)
			c.Gap(gpoll.Gap{Epoch: e1, From: 2, To: 5, Reason: "expired"})
			s.deliver(c, e1, 6, 7)
			c.Gap(gpoll.Gap{Epoch: e1, From: 8, To: 9, Reason: "broker"})
			c.Drained()
		}},

		// I6
		{name: "I6 another topic", want: "I6", script: func(s *script) {
			c := s.client(e1, 0, "a")
			s.accept(e1, 1, topic("b"))
			s.deliver(c, e1, 1)
		}},
		{name: "I6 after the end of the subscription", want: "I6", script: func(s *script) {
			c := s.client(e1, 0, "a")
			s.accept(e1, 1, topic("a"))
			s.deliver(c, e1, 1)
			c.Unsubscribed("a", at(e1, 1))
			s.accept(e1, 2, topic("a"))
			s.deliver(c, e1, 2)
		}},

		// I7
		{name: "I7 over something delivered", want: "I7", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 9)
			s.deliver(c, e1, 1, 2)
			c.Gap(gpoll.Gap{Epoch: e1, From: 2, To: 5, Reason: "evicted"})
			s.deliver(c, e1, 6, 7, 8, 9)
		}},
		{name: "I7 delivered afterwards", want: "I7", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 6)
			s.deliver(c, e1, 1)
			c.Gap(gpoll.Gap{Epoch: e1, From: 2, To: 5, Reason: "evicted"})
			s.deliver(c, e1, 5, 6)
		}},
		{name: "I7 sent afterwards and dropped", want: "I7", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 6)
			s.deliver(c, e1, 1)
			c.Gap(gpoll.Gap{Epoch: e1, From: 2, To: 5, Reason: "evicted"})
			c.Repeated(at(e1, 5))
			s.deliver(c, e1, 6)
		}},
		{name: "I7 outside the window", checker: Checker{Window: 4}, script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 9)
			c.Gap(gpoll.Gap{Epoch: e1, From: 1, To: 5, Reason: "evicted"})
			s.deliver(c, e1, 6, 7, 8, 9)
		}},
		{name: "I7 into the window", want: "I7", checker: Checker{Window: 4}, script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 9)
			c.Gap(gpoll.Gap{Epoch: e1, From: 1, To: 6, Reason: "evicted"})
			s.deliver(c, e1, 7, 8, 9)
			s.accepts(e1, 10, 20) // what is published later makes the gap no better
			s.deliver(c, e1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
		}},
		{name: "I7 empty", want: "I7", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1)
			c.Gap(gpoll.Gap{Epoch: e1, From: 2, To: 1, Reason: "evicted"})
			s.deliver(c, e1, 2)
		}},
		{name: "I7 reason", want: "I7", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			c.Gap(gpoll.Gap{Epoch: e1, From: 1, To: 1, Reason: "weather"})
			s.deliver(c, e1, 2)
		}},
		{name: "I7 future that is past", want: "I7", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1)
			c.Gap(gpoll.Gap{Epoch: e1, Reason: "future"})
			s.deliver(c, e1, 2)
		}},
		{name: "I7 future", script: func(s *script) {
			s.accepts(e1, 1, 3)
			c := s.client(e1, 99)
			c.Gap(gpoll.Gap{Epoch: e1, Reason: "future"})
			c.Scanned(at(e1, 2))
			s.deliver(c, e1, 3)
			c.Drained()
		}},

		// I8
		{name: "I8 announced", script: func(s *script) {
			c := s.client(e1, 0, "a")
			s.accepts(e1, 1, 4)
			s.deliver(c, e1, 1, 2)
			s.accepts(e2, 1, 3) // lived through unattached
			s.accepts(e3, 11, 13)
			s.accept(e3, 14, topic("a"))
			s.accept(e3, 15, topic("b"))
			c.Gap(gpoll.Gap{Epoch: e1, From: 3, Reason: "epoch"})
			c.Scanned(at(e3, 10))
			c.Gap(gpoll.Gap{Epoch: e3, From: 11, To: 12, Reason: "evicted"})
			s.deliver(c, e3, 13, 14)
			c.Drained()
		}},
		{name: "I8 not announced", want: "I8", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2)
			s.accepts(e2, 1, 2)
			s.deliver(c, e2, 1, 2)
		}},
		{name: "I8 not announced, shown by a Position", want: "I8", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2)
			c.Scanned(at(e2, 0))
		}},
		{name: "I8 announced too late", want: "I8", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2)
			s.accepts(e2, 1, 2)
			s.deliver(c, e2, 1)
			c.Gap(gpoll.Gap{Epoch: e1, From: 3, Reason: "epoch"})
			s.deliver(c, e2, 2)
		}},
		{name: "I8 announced twice", want: "I8", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2)
			s.accepts(e2, 1, 2)
			c.Gap(gpoll.Gap{Epoch: e1, From: 3, Reason: "epoch"})
			c.Gap(gpoll.Gap{Epoch: e1, From: 3, Reason: "epoch"})
			s.deliver(c, e2, 1, 2)
		}},
		{name: "I8 announced, but none came", want: "I8", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 3)
			s.deliver(c, e1, 1, 2)
			c.Gap(gpoll.Gap{Epoch: e1, From: 3, Reason: "epoch"})
			s.deliver(c, e1, 3)
		}},

		// I9
		{name: "I9", want: "I9", checker: Checker{NoGaps: true}, script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 3)
			c.Gap(gpoll.Gap{Epoch: e1, From: 1, To: 2, Reason: "evicted"})
			s.deliver(c, e1, 3)
		}},

		// I11
		{name: "I11 to another client", want: "I11", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{To: gpoll.ToClient(gpoll.PublicID(bobID))})
			s.deliver(c, e1, 1)
		}},
		{name: "I11 to another user", want: "I11", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{To: gpoll.ToUser("bob")})
			s.deliver(c, e1, 1)
		}},
		{name: "I11 excepted", want: "I11", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{Except: []string{gpoll.PublicID(aliceID)}})
			s.deliver(c, e1, 1)
		}},

		// I13
		{name: "I13 and I5 at the end", want: "I13 I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 3)
			s.deliver(c, e1, 1, 2)
			c.Drained()
		}},
		{name: "I13 what is owed to others does not count", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2)
			s.accept(e1, 3, topic("b"))
			c.Drained()
		}},
		{name: "I13 never came to the new epoch", want: "I13 I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2)
			s.accepts(e2, 1, 2)
			c.Gap(gpoll.Gap{Epoch: e1, From: 3, Reason: "epoch"})
			c.Drained()
		}},
		{name: "I13 the new epoch is empty", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1)
			c.Gap(gpoll.Gap{Epoch: e1, From: 2, Reason: "epoch"})
			c.Scanned(at(e2, 0))
			c.Drained()
		}},
		{name: "I13 never attached", want: "I13", script: func(s *script) {
			s.accepts(e1, 1, 2)
			s.Trace("alice").Drained()
		}},

		// Some of the bugs of testdata/planted, as a client sees them.
		{name: "planted no-epoch-notice", want: "I8", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 5)
			s.deliver(c, e1, 1, 2, 3, 4, 5)
			s.accepts(e2, 1, 3)
			s.deliver(c, e2, 1, 2, 3)
			c.Drained()
		}},
		{name: "planted no-eviction-notice", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 20)
			s.deliver(c, e1, 17, 18, 19, 20)
			c.Drained()
		}},
		{name: "planted gap-too-long", want: "I7", checker: Checker{Window: 4}, script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 20)
			c.Gap(gpoll.Gap{Epoch: e1, From: 1, To: 17, Reason: "evicted"})
			c.Repeated(at(e1, 17))
			s.deliver(c, e1, 18, 19, 20)
			c.Drained()
		}},
		{name: "planted gap-too-short", want: "I5", checker: Checker{Window: 4}, script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 20)
			c.Gap(gpoll.Gap{Epoch: e1, From: 1, To: 15, Reason: "evicted"})
			s.deliver(c, e1, 17, 18, 19, 20)
			c.Drained()
		}},
		{name: "planted cursor-off-by-one", want: "I2", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 4)
			s.deliver(c, e1, 1, 2)
			c.Repeated(at(e1, 2)) // after the resume
			s.deliver(c, e1, 3, 4)
			c.Drained()
		}},
		{name: "planted wrong-topic", want: "I4 I6", script: func(s *script) {
			c := s.client(e1, 0, "a")
			s.accept(e1, 1, topic("a"))
			s.accept(e1, 2, topic("b"))
			s.deliver(c, e1, 1)
			m := s.messages[at(e1, 2)]
			m.Topic = "a"
			c.Delivered(m)
			c.Drained()
		}},
		{name: "planted removal-on-write", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 4)
			s.deliver(c, e1, 1)
			s.deliver(c, e1, 3, 4) // 2 was in the response that was cut
			c.Drained()
		}},
		{name: "planted swap", want: "I2 I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 4)
			s.deliver(c, e1, 1, 3)
			c.Repeated(at(e1, 2))
			s.deliver(c, e1, 4)
			c.Drained()
		}},
		{name: "planted drop-from-batch", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 5)
			s.deliver(c, e1, 1, 3, 4, 5)
			c.Scanned(at(e1, 5))
			c.Drained()
		}},
		{name: "planted duplicate", want: "I1 I3", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.accepts(e1, 4, 4)
			s.deliver(c, e1, 1, 2)
			m := s.messages[at(e1, 2)]
			m.Position.Seq = 3
			c.Delivered(m)
			s.deliver(c, e1, 4)
			c.Drained()
		}},
		{name: "planted altered-payload", want: "I4", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1)
			m := s.messages[at(e1, 2)]
			m.Data = append(slices.Clone(m.Data), '!')
			c.Delivered(m)
			c.Drained()
		}},
		{name: "planted accepted-not-stored", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 3)
			s.deliver(c, e1, 1, 3)
			c.Drained()
		}},
		{name: "planted accepted-not-stored, its seq given again", want: "I1 I4", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{Data: []byte("lost")})
			s.accept(e1, 1, gpoll.Message{Data: []byte("kept")})
			s.deliver(c, e1, 1)
			c.Drained()
		}},
		{name: "planted subscribe-race", want: "I5", script: func(s *script) {
			c := s.client(e1, 0)
			s.accept(e1, 1, gpoll.Message{})
			s.deliver(c, e1, 1)
			c.Subscribed("b", at(e1, 1))
			s.accept(e1, 2, topic("b")) // published while the subscription took effect
			s.accept(e1, 3, topic("b"))
			s.deliver(c, e1, 3)
			c.Drained()
		}},
		{name: "planted epoch-reused", want: "I1 I4", script: func(s *script) {
			c := s.client(e1, 0)
			s.accepts(e1, 1, 2)
			s.deliver(c, e1, 1, 2)
			for seq := range uint64(3) { // after the restart
				s.accept(e1, seq+1, gpoll.Message{Data: fmt.Appendf(nil, "second life %d", seq)})
			}
			s.deliver(c, e1, 3)
			other := s.Trace("bob")
			other.Registered(bobID, "")
			other.Scanned(at(e1, 0))
			s.deliver(other, e1, 1, 2, 3)
			c.Drained()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &script{T: t, messages: map[gpoll.Position]gpoll.Message{}}
			test.script(s)
			violations := test.checker.Check(&s.History)
			var got []string
			for _, v := range violations {
				got = append(got, v.Invariant)
			}
			slices.Sort(got)
			if got := strings.Join(slices.Compact(got), " "); got != test.want {
				t.Errorf("violated are %q, should be %q", got, test.want)
			}
			for _, v := range violations {
				t.Log(v)
			}
		})
	}
}

// inside is a Publisher that does something before it returns pos.
func inside(do func(), pos gpoll.Position) Publisher { return during{do, pos} }

type during struct {
	do  func()
	pos gpoll.Position
}

func (d during) Publish(context.Context, gpoll.Message) (gpoll.Position, error) {
	d.do()
	return d.pos, nil
}

func TestCheckerLimit(t *testing.T) {
	s := &script{T: t, messages: map[gpoll.Position]gpoll.Message{}}
	c := s.client(e1, 0)
	s.accepts(e1, 1, 1)
	for range 50 {
		s.deliver(c, e1, 1)
	}
	v := Checker{Limit: 10}.Check(&s.History)
	if len(v) != 11 || !strings.Contains(v[10].Fact, "39 more") {
		t.Errorf("%d violations, the last %v", len(v), v[len(v)-1])
	}
}

func TestCheckBroker(t *testing.T) {
	s := &script{T: t, messages: map[gpoll.Position]gpoll.Message{}}
	s.accepts(e1, 1, 4)
	record := func(m gpoll.Message) gpoll.Record {
		r, err := gpoll.NewMessageRecord(m)
		if err != nil {
			t.Fatal(err)
		}
		r.Position = m.Position
		return r
	}
	var content []gpoll.Record
	for seq := range uint64(4) {
		content = append(content, record(s.messages[at(e1, seq+1)]))
	}
	altered := slices.Clone(content)
	other := s.messages[at(e1, 3)]
	other.Topic = "x"
	altered[2] = record(other)
	damaged := slices.Clone(content)
	damaged[2].Bytes = nil
	for name, test := range map[string]struct {
		content []gpoll.Record
		want    int
	}{
		"equal":   {content, 0},
		"suffix":  {content[2:], 0},
		"cut":     {content[:3], 1},
		"hole":    {append(slices.Clone(content[:1]), content[2:]...), 1},
		"empty":   {nil, 1},
		"altered": {altered, 1},
		"damaged": {damaged, 1},
		"epoch":   {append(slices.Clone(content), gpoll.Record{Kind: gpoll.RecordEpoch, Position: at(e1, 5)}), 0},
		"phantom": {append(slices.Clone(content), record(gpoll.Message{Position: at(e1, 5)})), 1},
	} {
		if v := (Checker{}).CheckBroker(&s.History, test.content); len(v) != test.want {
			t.Errorf("%s: %v", name, v)
		}
	}
}
