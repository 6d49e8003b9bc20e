package gpoll

import (
	"bytes"
	"fmt"
)

// A Record is what a [Broker] carries: a place in the order, and bytes that only gpoll reads. A broker stores Kind,
// Nonce, Prev, ID and Bytes and gives them back unchanged. It interprets ID, by which it recognises a repeat, and Kind
// and Prev of a [RecordEpoch]. AppendBinary and [DecodeRecord] turn all five into one value and back, for a broker that
// stores one value.
type Record struct {
	// Position is the record's place. The broker sets it; Publish ignores it.
	Position Position

	// Kind says what the record is.
	Kind RecordKind

	decoded bool // Bytes is the payload alone, to and except hold the rest: nothing is encoded inside a process

	// Nonce is 64 random bits that tell this record from every other. 0: the record has none.
	Nonce uint64

	// Prev names the newest record that the publisher had read when it made this one. The zero Link: it does not say.
	Prev Link

	// ID is the Message's ID. Empty: the record is always new.
	ID string

	// Bytes is what the record says. Of a message they are at most MaxMessage and 40 KB more.
	Bytes []byte

	to     address
	except []string
}

// A Link names a record by its place and its nonce. Two readers that hold different nonces at one place do not read the
// same log: the broker has lost a record that one of them had read, and has given its place to another.
type Link struct {
	Position Position
	Nonce    uint64
}

// A RecordKind says what a Record is. A reader passes over a kind that it does not know: such a record has its place in
// the order, but no client is owed it. So a newer server may write kinds that an older one does not know, as long as
// everything that clients are owed is a RecordMessage.
type RecordKind uint8

const (
	// RecordMessage is a Message; see NewMessageRecord.
	RecordMessage RecordKind = 1

	// RecordEpoch is the first record of a new epoch; see Broker.Publish.
	RecordEpoch RecordKind = 2
)

// NewMessageRecord returns a record of m, for a Broker. The record has no Nonce and no Prev. It shares no memory with
// m. The error wraps ErrBadMessage.
func NewMessageRecord(m Message) (Record, error) {
	if err := m.check(len(m.Data)); err != nil {
		return Record{}, err
	}
	return Record{Kind: RecordMessage, ID: m.ID, Bytes: appendMessage(nil, m.address(), m.Except, m.Data)}, nil
}

// Message returns the message that r is, with its ID and Position. Its Data may share memory with r.Bytes. The error
// wraps ErrBadMessage: r is of another kind, is damaged, or has a form that this version of gpoll does not know.
func (r *Record) Message() (Message, error) {
	to, except, data, err := r.message()
	if err != nil {
		return Message{}, err
	}
	m := Message{Data: data, Except: except, ID: r.ID, Position: r.Position}
	if to.kind == kindTopic {
		m.Topic = to.name
	} else {
		m.To = Recipient{to}
	}
	return m, nil
}

// message returns the parts of a message. data is in the memory of r.Bytes.
func (r *Record) message() (to address, except []string, data []byte, err error) {
	switch {
	case r.Kind != RecordMessage:
		return to, nil, nil, fmt.Errorf("%w: a record of kind %d is none", ErrBadMessage, r.Kind)
	case r.decoded:
		return r.to, r.except, r.Bytes, nil
	}
	return decodeMessage(r.Bytes)
}

// sealed returns r as other packages see it, with memory of its own.
func (r *Record) sealed() Record {
	s := *r
	if r.decoded {
		s.Bytes = appendMessage(nil, r.to, r.except, r.Bytes)
		s.decoded, s.to, s.except = false, address{}, nil
	} else {
		s.Bytes = bytes.Clone(r.Bytes)
	}
	return s
}
