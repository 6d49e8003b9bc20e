package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/topicname"
	"github.com/corvuscrypto/gpoll/internal/wire"
)

// Send hands data to the server's application (gpoll.Broadcaster.OnMessage). It returns when the application has heard
// it, and an *EndError if the server refuses it.
//
// Send, Publish and Request are commands. While a command has no answer, the Client sends it again: after a broken
// connection, by another transport, and after a refusal that passes with time, such as "rate". It does so until ctx
// ends. Then the error is the cause of ctx, and the command may have taken effect, or may still.
//
// A command that begins when another one has returned nil takes effect after it. Commands that are under way at the
// same time have no order.
//
// A command takes effect once. It has an id, by which the server knows it when it comes again, for as long as the
// server remembers both: the id for 2 minutes, and the client while it is attached and for its ClientTTL afterwards. A
// server that has restarted, or has forgotten the Client otherwise, knows nothing of a command whose answer was lost,
// and does it again. The application sees the id as gpoll.Message.ID, which is another one for each command of all
// Clients, and can look for it where such a command must not be done twice.
//
// Messages are read beyond the bound of what waits for Messages while a command waits for its answer: a program may
// call Send in its loop.
func (c *Client) Send(ctx context.Context, data []byte) error {
	_, err := c.command(ctx, "send", payload{Data: text(data), Data64: bytesOf(data)})
	return err
}

// Publish publishes data to a topic, if the server's gpoll.Grant allows it, and returns the Position of the message.
// Send says the rest. A Client that has subscribed to the topic gets the message, too.
func (c *Client) Publish(ctx context.Context, topic string, data []byte) (gpoll.Position, error) {
	if !topicname.Valid(topic) {
		return gpoll.Position{}, fmt.Errorf("client: %.80q: %s", topic, topicname.Rule)
	}
	a, err := c.command(ctx, "publish", payload{Topic: topic, Data: text(data), Data64: bytesOf(data)})
	if err != nil {
		return gpoll.Position{}, err
	}
	return gpoll.ParsePosition(a.Position)
}

// Request asks the server's application (gpoll.Broadcaster.OnRequest), and returns what it replies. When the
// application says no, the error is an *EndError with the code "refused" and the application's reason. Send says the
// rest.
func (c *Client) Request(ctx context.Context, data []byte) (reply []byte, err error) {
	a, err := c.command(ctx, "request", payload{Data: text(data), Data64: bytesOf(data)})
	if err != nil {
		return nil, err
	}
	return a.Payload(), nil
}

// A payload is what a command carries: text, or in its place bytes.
type payload struct {
	Topic  string  `json:"topic,omitempty"`
	Data   *string `json:"data,omitempty"`
	Data64 *[]byte `json:"data64,omitempty"`
	Error  string  `json:"error,omitempty"` // of a reply: there is none
}

func text(data []byte) *string {
	if utf8.Valid(data) {
		return new(string(data))
	}
	return nil
}

func bytesOf(data []byte) *[]byte {
	if utf8.Valid(data) {
		return nil
	}
	return &data
}

// command gives a command, and waits for its answer.
func (c *Client) command(ctx context.Context, verb string, p payload) (*wire.Answer, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	cmd, err := newCommand(verb, p, c.out.newID())
	if err != nil {
		return nil, err
	}
	defer c.inbox.unbound()()
	c.out.add(cmd)
	c.pump()
	select {
	case <-cmd.done:
	case <-c.done:
		return nil, c.endErr()
	case <-ctx.Done():
		c.out.withdraw(cmd)
		return nil, context.Cause(ctx)
	}
	return cmd.answer, cmd.err
}

// A command is one on its way to the server.
type command struct {
	id     string
	frame  []byte // as JSON
	client string // by which client id it has to come; "": any
	done   chan struct{}

	// Guarded by outbox.mu until done is closed.
	by        *socket // that has brought it, or postDoor; nil: it has to be sent
	as        string  // the client id by which it was brought last
	withdrawn bool    // nobody waits for it
	answer    *wire.Answer
	err       error
}

func newCommand(verb string, p payload, id string) (*command, error) {
	var frame bytes.Buffer
	fmt.Fprintf(&frame, `{"%s":`, verb)
	e := json.NewEncoder(&frame)
	e.SetEscapeHTML(false) // it would make six bytes of one
	if err := e.Encode(p); err != nil {
		return nil, err
	}
	frame.WriteString(`,"id":`)
	if err := e.Encode(id); err != nil {
		return nil, err
	}
	frame.WriteByte('}')
	return &command{id: id, frame: frame.Bytes(), done: make(chan struct{})}, nil
}

// newPrefix returns what the ids of one Client have in common, and no other Client's: the server remembers the ids of a
// client id, which may outlive the program.
func newPrefix() string { return rand.Text()[:16] + "-" }
