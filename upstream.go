package gpoll

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// Upstream: what a client says to the application (send, request), or publishes. There are two doors,
// attach_commands.go and http_commands.go. Behind both the commands of one client take effect one at a time, in the
// order in which they came. A command with an id takes effect once: when it comes again, by whatever transport, it gets
// the answer of the first time.

type commandKind uint8

const (
	commandSend commandKind = iota
	commandPublish
	commandRequest
	commandLeave
	commandReply
	commandReplyError // data is its text
)

// A command is what a client says. What it has is the callee's.
type command struct {
	kind  commandKind
	id    string // "": the client does not repeat it
	topic string // of commandPublish
	data  []byte

	by   *attach // whose frame it is: while that has not ended, its client is there; nil: of a POST
	more bool    // the client has sent something behind it
}

// How long and how many ids of commands a client's server remembers (contract, T23). Replies beyond replyBytes are
// forgotten earlier than their ids.
const (
	commandIDAge   = 2 * time.Minute
	commandIDCount = 1024
	replyBytes     = 256 << 10
	longestID      = 64 // bytes of an id
	mostAtOnce     = 8  // commands of one client that wait for their turn
)

// How long a broker may take to accept what a client publishes.
const publishWait = 5 * time.Second

// An upstream is what the commands of one client share.
type upstream struct {
	turn turn // had by a command that is under way, which may touch the fields below

	bucket  bucket
	tooMany int // commands in a row that were refused for the rate
	past    pastCommands
	aging   bool // a timer sees to those that are too old
}

// upstream returns what c's commands share; the first one makes it.
func (c *Client) upstream() *upstream {
	if u := c.up.Load(); u != nil {
		return u
	}
	c.up.CompareAndSwap(nil, new(upstream))
	return c.up.Load()
}

// hear does what cmd says, when all that c said before is done, and returns the answer as JSON, or why there is none. g
// is what the client may do. hear calls the application. The error of ctx is that of a client which has gone before its
// turn came: then nothing was done.
func (c *Client) hear(ctx context.Context, g *grantee, cmd *command) (answer []byte, refused *refusal, err error) {
	b := c.routine.b
	if (cmd.kind == commandReply || cmd.kind == commandReplyError) && len(cmd.data) <= b.set.maxMessage &&
		c.answers(cmd) { // the application may wait for it before it hears what comes next

		return appendID([]byte(`{"replied":{`), cmd.id, "}}"), nil, nil
	}
	u := c.upstream()
	room, err := u.turn.take(mostAtOnce, ctx, b.ctx)
	switch {
	case !room:
		return nil, refuseAtOnce, nil
	case err != nil && ctx.Err() == nil:
		return nil, b.refuseShutdown(), nil
	case err != nil:
		return nil, nil, err
	}
	defer u.turn.pass()
	answer, refused = c.inTurn(u, g, cmd)
	return answer, refused, nil
}

// inTurn is hear once the turn has come.
func (c *Client) inTurn(u *upstream, g *grantee, cmd *command) (answer []byte, refused *refusal) {
	b := c.routine.b
	switch {
	case (cmd.by == nil || cmd.by.ending.Load() != nil) && c.heard():
		return nil, b.refuseUnknown()
	case cmd.kind == commandLeave:
		b.remove(c, endLeft)
		return []byte(`{"left":true}`), nil
	case len(cmd.id) > longestID:
		return nil, refuseBad("bad-request", fmt.Sprintf("the id of a command has at most %d bytes", longestID))
	case len(cmd.data) > b.set.maxMessage:
		return nil, refuseLargeCommand(b.set.maxMessage)
	}
	if refused := u.admit(b); refused != nil {
		return nil, refused
	}
	if cmd.kind == commandReply || cmd.kind == commandReplyError {
		return nil, refuseReply
	}
	if cmd.id == "" {
		return c.do(g, cmd)
	}
	if answer, refused := u.again(b, cmd); answer != nil || refused != nil {
		return answer, refused
	}
	return c.once(u, g, cmd)
}

// once does what cmd says and remembers the outcome by its id.
func (c *Client) once(u *upstream, g *grantee, cmd *command) (answer []byte, refused *refusal) {
	refused = refuseInternal // unless do returns: the application may end the goroutine
	defer func() {
		outcome := answer
		if refused == refuseInternal {
			outcome = refuseInternal.frame(cmd.id)
		}
		if outcome != nil {
			u.remember(c.routine.b, cmd, outcome)
		}
	}()
	return c.do(g, cmd)
}

// gone reports whether c was removed.
func (c *Client) gone() bool {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	return c.removed
}

// heard is gone for a client that says something, and which so is not away.
func (c *Client) heard() (gone bool) {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	if c.attach == nil && !c.removed {
		c.idleSince = c.routine.b.now()
		c.scheduleLocked()
	}
	return c.removed
}

// admit lets UpstreamRate commands through in a second, and UpstreamBurst at once.
func (u *upstream) admit(b *Broadcaster) *refusal {
	if b.set.upstreamRate < 0 || u.bucket.fill(time.Now(), b.set.upstreamRate, b.set.upstreamBurst) {
		u.bucket.tokens--
		u.tooMany = 0
		return nil
	}
	u.tooMany++
	return refuseUpstreamRate(b.set.upstreamRate, b.set.upstreamBurst, u.tooMany > b.set.upstreamBurst)
}

// again answers a command that was done before.
func (u *upstream) again(b *Broadcaster, cmd *command) (answer []byte, refused *refusal) {
	answer, was := u.past.find(cmd, b.now())
	switch was {
	case another:
		return nil, refuseReusedID
	case answeredLongAgo:
		return nil, refuseReplyGone
	}
	return answer, nil
}

func (u *upstream) remember(b *Broadcaster, cmd *command, answer []byte) {
	u.past.add(cmd, answer, b.now())
	if !u.aging {
		u.aging = true
		u.age(b)
	}
}

// age forgets commands also of a client that gives no more of them.
func (u *upstream) age(b *Broadcaster) {
	b.after(commandIDAge+time.Second, func() {
		if u.turn.try() { // otherwise a command is under way
			defer u.turn.pass()
			u.past.forget(b.now())
			if u.aging = u.past.done.len > 0; !u.aging {
				return
			}
		}
		u.age(b)
	})
}

// do does what cmd says. An answer means that it was done, and a refusal that it was not; refuseInternal means that the
// application has panicked.
func (c *Client) do(g *grantee, cmd *command) (answer []byte, refused *refusal) {
	switch cmd.kind {
	case commandPublish:
		return c.publish(g, cmd)
	case commandRequest:
		return c.put(cmd)
	}
	b := c.routine.b
	if b.OnMessage == nil {
		return nil, refuseDeaf
	}
	m := Message{Data: cmd.data, ID: cmd.id}
	if !b.call("OnMessage", func() { b.OnMessage(c, m) }) {
		return nil, refuseInternal
	}
	if cmd.id == "" {
		return sentPlainly, nil
	}
	return appendID(append(c.upstream().past.tail(answerRoom), `{"sent":{`...), cmd.id, "}}"), nil
}

// answerRoom is how long most answers are beside the data of a reply.
const answerRoom = 96

// sentPlainly is the answer to a send without an id. Nobody writes to it.
var sentPlainly = []byte(`{"sent":{}}`)

// put puts a client's request to the application.
func (c *Client) put(cmd *command) (answer []byte, refused *refusal) {
	b := c.routine.b
	if b.OnRequest == nil {
		return nil, refuseDeaf
	}
	m := Message{Data: cmd.data, ID: cmd.id}
	var reply []byte
	var err error
	if !b.call("OnRequest", func() { reply, err = b.OnRequest(c, m) }) {
		return nil, refuseInternal
	}
	if err != nil { // this is an answer: the application was asked, and is not asked again
		no := refusal{code: "refused", message: err.Error()}
		return no.frame(cmd.id), nil
	}
	answer = c.upstream().past.tail(answerRoom + len(reply)) // or more, with escapes
	answer = appendID(append(answer, `{"reply":{`...), cmd.id, ",")
	answer = appendData(answer, reply, !utf8.Valid(reply))
	return append(answer, "}}"...), nil
}

// publish publishes for a client. The broker, too, takes a command with an id once.
func (c *Client) publish(g *grantee, cmd *command) (answer []byte, refused *refusal) {
	b := c.routine.b
	if !topicname.Valid(cmd.topic) {
		return nil, refuseBad("bad-topic", topicname.Rule)
	}
	if refused := g.mayPublish(b, cmd.topic); refused != nil {
		return nil, refused
	}
	m := Message{Topic: cmd.topic, Data: cmd.data}
	if cmd.id != "" {
		m.ID = c.public + "/" + cmd.id
	}
	ctx, cancel := context.WithTimeout(b.ctx, publishWait)
	defer cancel()
	pos, err := b.publish(ctx, &m, false)
	if err != nil {
		return nil, b.refusePublish(err)
	}
	if cmd.id != "" {
		answer = c.upstream().past.tail(answerRoom)
	}
	answer = appendID(append(answer, `{"published":{`...), cmd.id, `"position":"`)
	return append(pos.append(answer), `"}}`...), nil
}

// appendID appends an id, if there is one, and what follows. rest begins with a comma where something stands behind the
// id.
func appendID(b []byte, id, rest string) []byte {
	if id == "" {
		return append(b, rest...)
	}
	b = append(b, `"id":`...)
	b = appendJSONString(b, id)
	if rest[0] == '"' {
		b = append(b, ',')
	}
	return append(b, rest...)
}

// frame is a refusal as the answer to a command with that id; "": it had none.
func (e *refusal) frame(id string) []byte {
	b := fmt.Appendf(nil, `{"error":{"code":%q,"message":%s`, e.code, appendJSONString(nil, e.message))
	if id != "" {
		b = append(b, `,"id":`...)
		b = appendJSONString(b, id)
	}
	if e.retry > 0 {
		b = fmt.Appendf(b, `,"retry_ms":%d`, e.retry.Milliseconds())
	}
	return append(b, "}}"...)
}

// refusePublish is what a client is told for an error of Publish.
func (b *Broadcaster) refusePublish(err error) *refusal {
	switch {
	case errors.Is(err, ErrClosed):
		return b.refuseShutdown()
	case errors.Is(err, ErrTooLarge):
		return refuseLargeCommand(b.set.maxMessage)
	case errors.Is(err, ErrBadMessage):
		return refuseBad("bad-request", err.Error())
	case errors.Is(err, ErrUnknown), errors.Is(err, context.DeadlineExceeded):
		return &refusal{status: http.StatusServiceUnavailable, code: "unknown-outcome", retry: soon(), cause: err,
			message: "the message may have been published; send it again with the same id"}
	}
	return &refusal{status: http.StatusServiceUnavailable, code: "unavailable", retry: soon(), cause: err,
		message: "the server cannot publish now; send it again after retry_ms"}
}

var (
	refuseDeaf = refuseBad("unsupported", "this server takes no such command: OnMessage hears send, OnRequest hears "+
		"request, and Grant.Publish allows publish")
	refuseReusedID  = refuseBad("id-reused", "another command had this id; an id names one command for 2 minutes")
	refuseReplyGone = &refusal{status: http.StatusGone, code: "reply-gone",
		message: "the request was answered, and its reply is no longer kept"}
	refusePublishing = &refusal{status: http.StatusForbidden, code: "topic-forbidden",
		message: "the server's Grant does not let this user publish to this topic"}
	refuseReply = &refusal{status: http.StatusGone, code: "no-request",
		message: "nobody waits for this reply; the id of a reply is that of the request"}
	refuseAtOnce = &refusal{status: http.StatusTooManyRequests, code: "rate", retry: time.Second,
		message: fmt.Sprintf("%d commands of this client wait already; send the next when one is answered", mostAtOnce)}
)

// refuseUpstreamRate also says how many commands are allowed. last says that the connection ends with it.
func refuseUpstreamRate(rate, burst int, last bool) *refusal {
	return &refusal{status: http.StatusTooManyRequests, code: "rate", retry: time.Second / time.Duration(rate),
		closes: last, message: fmt.Sprintf("a client may send %d commands in a second and %d at once; "+
			"send it again after retry_ms", rate, burst)}
}

func refuseLargeCommand(most int) *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, code: "too-large",
		message: fmt.Sprintf("the data of a command has at most %d bytes (Broadcaster.MaxMessage)", most)}
}

// mayPublish returns nil when the client may publish to topic, otherwise the refusal. It calls the application.
func (g *grantee) mayPublish(b *Broadcaster, topic string) *refusal {
	if g == nil || g.grant.Publish == nil {
		return refusePublishing
	}
	return b.permits("Grant.Publish", g.grant.Publish, []string{topic}, refusePublishing)
}
