package gpoll

import (
	"encoding/json"
)

// The commands of clients that have a stream. A command comes as JSON and is obeyed for its client's attach. The answer
// goes out in the stream, in its place among the messages.

// A command has one of these fields.
type command struct {
	Hello       *hello          `json:"hello"`
	Subscribe   []string        `json:"subscribe"`
	Unsubscribe []string        `json:"unsubscribe"`
	Leave       bool            `json:"leave"`
	Send        json.RawMessage `json:"send"`
	Publish     json.RawMessage `json:"publish"`
	Request     json.RawMessage `json:"request"`
}

// hello is the first command on a connection of gpoll.v1. It carries what the query says elsewhere, and a credential
// that no URL should hold. There is no attach before it.
type hello struct {
	ClientID      string   `json:"client-id"`
	Topics        []string `json:"topics"`
	After         string   `json:"after"`
	Last          int      `json:"last"`
	Authorization string   `json:"authorization"`
}

// obey does what a command asks. It keeps nothing of data.
func (a *attach) obey(data []byte) {
	b := a.client.routine.b
	var cmd command
	if err := decodeStrict(data, &cmd); err != nil {
		a.refuse(refuseBad("bad-request",
			`a frame is one of {"subscribe":["…"]}, {"unsubscribe":["…"]}, {"leave":true}`))
		return
	}
	switch {
	case cmd.Leave:
		a.answered()
		b.remove(a.client, endLeft)
	case cmd.Subscribe != nil:
		a.change(subscribed, cmd.Subscribe)
	case cmd.Unsubscribe != nil:
		a.change(unsubscribed, cmd.Unsubscribe)
	case cmd.Hello != nil:
		a.refuse(refuseBad("bad-request", "the hello was sent already"))
	default:
		a.refuse(refuseBad("unsupported", "this server takes subscribe, unsubscribe and leave"))
	}
}

func (a *attach) change(did string, named []string) {
	topics, no := a.client.routine.b.checkTopics(named)
	if no != nil {
		a.refuse(no)
		return
	}
	a.post(operation{did: did, topics: topics})
}

// refuse answers a command that cannot be obeyed. The connection stays.
func (a *attach) refuse(why *refusal) { a.post(a.refusal(why)) }
