package gpoll

// The commands of clients that have a stream. A command comes as JSON and is obeyed for its client's attach. The answer
// goes out in the stream, in its place among the messages.

// A frameCommand is a command as it comes: one of these fields, and perhaps an id.
type frameCommand struct {
	Hello       *hello   `json:"hello"`
	Subscribe   []string `json:"subscribe"`
	Unsubscribe []string `json:"unsubscribe"`
	Presence    []string `json:"presence"`
	Leave       bool     `json:"leave"`
	Send        *payload `json:"send"`
	Publish     *payload `json:"publish"`
	Request     *payload `json:"request"`
	Reply       *payload `json:"reply"`
	ID          string   `json:"id"`
}

// A payload has one of data and data64. A reply may have an error instead.
type payload struct {
	Topic  string  `json:"topic"`
	Data   *string `json:"data"`
	Data64 *[]byte `json:"data64"`
	Error  *string `json:"error"`
}

// hello is the first command on a connection of gpoll.v1. It carries what the query says elsewhere, and a credential
// that no URL should hold. There is no attach before it.
type hello struct {
	ClientID      string   `json:"client-id"`
	Topics        []string `json:"topics"`
	After         string   `json:"after"`
	Last          int      `json:"last"`
	Asked         *uint64  `json:"asked"`
	Fallback      string   `json:"fallback"`
	Authorization string   `json:"authorization"`
	Presence      []string `json:"presence"`
	PresenceAfter string   `json:"presence-after"`
}

// obey does what a command asks that scanCommand does not know. g is what the client may do. It keeps nothing of data.
func (a *attach) obey(g *grantee, data []byte) {
	var f frameCommand
	if err := decodeStrict(data, &f); err != nil {
		a.refuse(refuseFrame)
		return
	}
	switch {
	case f.fields() != 1:
		a.refuse(refuseFrame)
	case f.Leave:
		a.answered()
		a.client.routine.b.remove(a.client, endLeft)
	case f.Subscribe != nil:
		a.change(subscribed, f.Subscribe)
	case f.Unsubscribe != nil:
		a.change(unsubscribed, f.Unsubscribe)
	case f.Presence != nil:
		a.watch(f.Presence)
	case f.Hello != nil:
		a.refuse(refuseBad("bad-request", "the hello was sent already"))
	default:
		cmd, no := f.command()
		if no != nil {
			a.refuseCommand(no, f.ID)
			return
		}
		a.hear(g, &cmd)
	}
}

var refuseFrame = refuseBad("bad-request", `a frame is one of {"subscribe":["…"]}, {"unsubscribe":["…"]}, `+
	`{"presence":["…"]}, {"send":{"data":"…"}}, {"publish":{"topic":"…","data":"…"}}, `+
	`{"request":{"data":"…"},"id":"…"}, {"reply":{"data":"…"},"id":"…"}, {"leave":true}`)

// fields counts what a frame asks for.
func (f *frameCommand) fields() (n int) {
	for _, there := range [...]bool{f.Hello != nil, f.Subscribe != nil, f.Unsubscribe != nil, f.Presence != nil,
		f.Leave, f.Send != nil, f.Publish != nil, f.Request != nil, f.Reply != nil} {
		if there {
			n++
		}
	}
	return n
}

// command returns the one of send, publish, request, reply and leave that f is.
func (f *frameCommand) command() (cmd command, no *refusal) {
	cmd.id = f.ID
	var p *payload
	switch {
	case f.fields() != 1:
		return cmd, refuseFrame
	case f.Leave:
		cmd.kind = commandLeave
		return cmd, nil
	case f.Send != nil:
		p = f.Send
	case f.Publish != nil:
		cmd.kind, p = commandPublish, f.Publish
		cmd.topic = p.Topic
	case f.Request != nil:
		cmd.kind, p = commandRequest, f.Request
		if cmd.id == "" {
			return cmd, refuseBad("bad-request", "a request needs an id, by which its reply is known")
		}
	case f.Reply != nil:
		cmd.kind, p = commandReply, f.Reply
		if cmd.id == "" {
			return cmd, refuseBad("bad-request", "a reply has the id of the request that it answers")
		}
		if p.Error != nil && p.Data == nil && p.Data64 == nil && p.Topic == "" {
			cmd.kind, cmd.data = commandReplyError, []byte(*p.Error)
			return cmd, nil
		}
	default:
		return cmd, refuseBad("unsupported", "here a command is send, publish, request, reply or leave; the topics of a "+
			"long-poll and of SSE are those of the request")
	}
	if p.Error != nil {
		return cmd, refuseBad("bad-request", "only a reply may have an error, and then it has no data")
	}
	if p.Topic != "" && cmd.kind != commandPublish {
		return cmd, refuseBad("bad-request", "only publish has a topic; the others go to the application")
	}
	switch {
	case (p.Data == nil) == (p.Data64 == nil):
		return cmd, refuseBad("bad-request", "a command has data, or in its place data64")
	case p.Data != nil:
		cmd.data = []byte(*p.Data)
	default:
		cmd.data = *p.Data64
	}
	return cmd, nil
}

// hear does what the client says to the application, and answers where it gave an id. After a panic of the application,
// and after too many commands, the attach ends. hear reports whether there was an answer.
func (a *attach) hear(g *grantee, cmd *command) (answered bool) {
	end := endInternal
	defer func() {
		if end != nil {
			a.end(end)
		}
	}()
	cmd.by = a
	answer, no, err := a.client.hear(a.client.routine.b.ctx, g, cmd)
	switch {
	case err != nil: // the server ends
	case no == nil && cmd.id != "" && cmd.more:
		// The goroutine that serves the attach writes this answer and those behind it at once.
		a.queueUp(&operation{answer: answer})
	case no == nil && cmd.id != "":
		a.post(operation{answer: answer})
	case no == refuseInternal:
		return true
	case no != nil && no.closes:
		end = refused(no)
		return true
	case no != nil:
		a.refuseCommand(no, cmd.id)
	}
	end = nil
	return no != nil || cmd.id != ""
}

// grants returns what the client may do at the moment.
func (a *attach) grants() *grantee {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	return a.grantee
}

func (a *attach) refuseCommand(why *refusal, id string) {
	a.client.routine.b.noteRefusal(why, nil)
	a.post(operation{answer: why.frame(id)})
}

func (a *attach) change(did string, named []string) {
	topics, no := a.client.routine.b.checkTopics(named)
	if no != nil {
		a.refuse(no)
		return
	}
	a.post(operation{did: did, topics: topics})
}

// watch has the client of a stream watch these topics, and no others.
func (a *attach) watch(named []string) {
	topics, no := a.client.routine.b.checkTopics(named)
	if no != nil {
		a.refuse(no)
		return
	}
	if g := a.grants(); g == nil { // post asks a Grant only
		if no := g.mayWatch(a.client.routine.b, topics); no != nil {
			a.refuse(no)
			return
		}
	}
	a.post(operation{did: watching, topics: topics})
	a.tellPresence()
}

// refuse answers a command that cannot be obeyed. The connection stays.
func (a *attach) refuse(why *refusal) { a.post(a.refusal(why)) }
