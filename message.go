package gpoll

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// A Message is what Publish takes. It reaches the subscribers of Topic, or the client or user that To names; when both
// are empty, every client.
type Message struct {
	// Topic is 1 to 255 bytes of [A-Za-z0-9_.:/~@-]. It is no pattern: those are for subscriptions only.
	Topic string

	// To addresses one client or one user. Topic and To together are ErrBadMessage.
	To Recipient

	// Data is the payload, at most Broadcaster.MaxMessage bytes. gpoll gives no payload a meaning. Text must be UTF-8 to
	// arrive as text; other bytes arrive as a binary frame, as application/octet-stream or in base64.
	Data []byte

	// Except lists the public ids of clients that do not get the message, for example its sender: at most 1,000, each
	// exactly as PublicID returns it. Anything else is ErrBadMessage. A repeated id counts once.
	Except []string

	// ID makes a repeated Publish harmless: a second Message with the same ID within 2 minutes and 100,000 ids is
	// not added, and Publish returns the Position of the first. Empty means that the message is always new.
	// At most 128 bytes.
	ID string

	// Position is set by the broker. Publish ignores it.
	Position Position
}

// A Recipient is one client or one user. The zero Recipient names neither.
type Recipient struct{ to address }

// ToClient addresses the client with that public id, exactly as PublicID returns it: a Message to any other id is
// ErrBadMessage.
func ToClient(publicID string) Recipient { return Recipient{address{kindClient, publicID}} }

// ToUser addresses every client whose Grant named that user.
func ToUser(user string) Recipient { return Recipient{address{kindUser, user}} }

// IsZero reports whether r names neither a client nor a user.
func (r Recipient) IsZero() bool { return r == Recipient{} }

// Client returns the public id that r addresses, or "".
func (r Recipient) Client() string { return r.to.nameOf(kindClient) }

// User returns the user that r addresses, or "".
func (r Recipient) User() string { return r.to.nameOf(kindUser) }

// An address says to whom a message goes: a kind and a name. Addresses are compared as values, so that no spelling of a
// topic can reach a client or a user.
type address struct {
	kind kind
	name string
}

type kind uint8

const (
	kindAll kind = iota
	kindTopic
	kindClient
	kindUser
	kindNobody // of a record that no client is owed
)

func (a address) nameOf(k kind) string {
	if a.kind != k {
		return ""
	}
	return a.name
}

// address returns the address to which m goes.
func (m *Message) address() address {
	if m.Topic != "" {
		return address{kindTopic, m.Topic}
	}
	return m.To.to
}

const (
	maxPublishID = 128
	maxExcept    = 1000
)

// check reports why m cannot be published, wrapping ErrBadMessage or ErrTooLarge.
func (m *Message) check(maxData int) error {
	switch {
	case len(m.Data) > maxData:
		return fmt.Errorf("%w: %d bytes of data, the limit (Broadcaster.MaxMessage) is %d", ErrTooLarge, len(m.Data), maxData)
	case m.Topic != "" && !m.To.IsZero():
		return fmt.Errorf("%w: it has a Topic and a To; choose one", ErrBadMessage)
	case m.Topic != "" && !topicname.Valid(m.Topic):
		return fmt.Errorf("%w: topic %q: %s", ErrBadMessage, clip(m.Topic, 40), topicname.Rule)
	case m.To.to.kind == kindClient && !validPublicID(m.To.to.name):
		return fmt.Errorf("%w: To names a client by something else than its PublicID: %s", ErrBadMessage, publicIDRule)
	case !m.To.IsZero() && (m.To.to.name == "" || len(m.To.to.name) > topicname.Max):
		return fmt.Errorf("%w: To names a user of 1 to %d bytes", ErrBadMessage, topicname.Max)
	case len(m.ID) > maxPublishID:
		return fmt.Errorf("%w: the publish id has %d bytes, the limit is %d", ErrBadMessage, len(m.ID), maxPublishID)
	case len(m.Except) > maxExcept:
		return fmt.Errorf("%w: Except lists %d clients, the limit is %d", ErrBadMessage, len(m.Except), maxExcept)
	case slices.ContainsFunc(m.Except, func(id string) bool { return !validPublicID(id) }):
		return fmt.Errorf("%w: Except lists something else than PublicIDs: %s", ErrBadMessage, publicIDRule)
	}
	return nil
}

// exceptSet is what a record keeps of Message.Except: the public ids in it, sorted, each once. Other texts that a
// broker may deliver there name nobody.
func exceptSet(ids []string) []string {
	if len(ids) == 0 {
		return nil
	}
	return sortedSet(slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !validPublicID(id) }))
}

const publicIDRule = "32 hexadecimal digits in lower case"

// clip shortens a peer's text for an error message.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for n := most; ; n-- {
		if utf8.RuneStart(s[n]) {
			return s[:n] + "…"
		}
	}
}
