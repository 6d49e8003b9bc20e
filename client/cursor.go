package client

import (
	"encoding/json"
	"fmt"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/wire"
)

// A cursor is the place up to which a client has received all that it is owed. Only the session's goroutine touches it.
type cursor struct {
	at gpoll.Position // zero: not known, for the client has never been attached

	// The log has gone on elsewhere, and the next Position tells where. Until then a request brings the old one, and the
	// server says lastGap again.
	adrift  bool
	lastGap gpoll.Gap

	// Messages of topics up to start come although they are not after the cursor, because Options.Last asked for them.
	// While replaying, some may be missing; replayed is the last that came.
	start, replayed gpoll.Position
	replaying       bool
}

// replay says that messages up to p come first.
func (cu *cursor) replay(p gpoll.Position) { cu.start, cu.replaying = p, true }

// after returns the Position that a request brings. What Options.Last asked for, and a broken connection has withheld,
// comes again like this, unless it was all.
func (cu *cursor) after() gpoll.Position {
	if cu.replaying && !cu.replayed.IsZero() && !cu.adrift {
		return cu.replayed
	}
	return cu.at
}

// passed reports whether p is at or before the cursor.
func (cu *cursor) passed(p gpoll.Position) bool {
	return !cu.adrift && p.Epoch == cu.at.Epoch && p.Seq <= cu.at.Seq
}

// message reports whether the message at p is new. ofTopic: it went to a topic.
func (cu *cursor) message(p gpoll.Position, ofTopic bool) bool {
	if !cu.passed(p) {
		cu.at, cu.adrift, cu.replaying = p, false, false
		return true
	}
	if cu.replaying && ofTopic && cu.start.Epoch == p.Epoch && p.Seq <= cu.start.Seq && p.Seq > cu.replayed.Seq {
		cu.replayed = p
		return true
	}
	return false
}

// scan adopts a Position up to which the server has sent everything, and reports whether that moved the cursor. An
// epoch begins with a gap: without one, the Position of another epoch is not believed, for it would hide the gap.
func (cu *cursor) scan(p gpoll.Position) bool {
	if p.IsZero() || p == cu.at || cu.passed(p) || !cu.adrift && !cu.at.IsZero() && p.Epoch != cu.at.Epoch {
		return false
	}
	cu.at, cu.adrift = p, false
	return true
}

// gap reports whether g is new.
func (cu *cursor) gap(g gpoll.Gap) bool {
	if cu.adrift && g == cu.lastGap {
		return false // the connection broke between the gap and the next Position
	}
	behind := gpoll.Position{Epoch: g.Epoch, Seq: g.To}
	switch {
	case g.Reason == "epoch" || g.Reason == "future" || g.To == 0:
		cu.adrift = true
	case cu.passed(behind):
		return false
	default:
		cu.at, cu.adrift = behind, false
	}
	cu.lastGap = g
	return true
}

// deliver takes in a message or a gap, in the order of the stream. It waits for room, and for nothing less than the end
// of the Client: the cursor has passed the message.
func (c *Client) deliver(e *wire.Element) error {
	if e.Gap != nil {
		g, err := gapOf(e.Gap)
		if err != nil {
			return err
		}
		if !c.cursor.gap(g) {
			return nil
		}
		m := Message{Gap: &g}
		if !c.cursor.adrift {
			m.Position = c.cursor.at
		}
		return c.inbox.put(c.life, m)
	}
	p, err := gpoll.ParsePosition(e.ID)
	if err != nil {
		return malformed("a message", e.ID, err)
	}
	return c.pass(Message{Topic: e.Topic, Data: e.Payload(), Position: p})
}

// pass hands a message on, unless it has come before.
func (c *Client) pass(m Message) error {
	if !c.cursor.message(m.Position, m.Topic != "") {
		return nil
	}
	return c.inbox.put(c.life, m)
}

// scan takes in a scanned Position.
func (c *Client) scan(text string) error {
	p, err := gpoll.ParsePosition(text)
	if err != nil {
		return malformed("a position", text, err)
	}
	if c.cursor.scan(p) {
		c.inbox.scan(p)
	}
	return nil
}

func gapOf(w *wire.Gap) (g gpoll.Gap, err error) {
	g.Reason = w.Reason
	if w.Reason == "future" && w.From == "" && w.To == "" {
		return g, nil
	}
	from, err := gpoll.ParsePosition(w.From)
	if err != nil {
		return g, malformed("a gap", w.From, err)
	}
	to, err := gpoll.ParsePosition(w.To)
	if err != nil || to.Epoch != from.Epoch {
		return g, malformed("a gap", w.From+".."+w.To, err)
	}
	g.Epoch, g.From, g.To = from.Epoch, from.Seq, to.Seq
	return g, nil
}

// decode reads JSON of the server.
func decode(what string, data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return malformed(what, string(data), err)
	}
	return nil
}

// malformed says that the server, or something in front of it, sent what is not of the protocol.
func malformed(what, text string, err error) error {
	if err == nil {
		return fmt.Errorf("client: %s that is none: %.100q", what, text)
	}
	return fmt.Errorf("client: %s that is none: %.100q: %w", what, text, err)
}
