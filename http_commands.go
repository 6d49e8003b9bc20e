package gpoll

import (
	"bytes"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"
)

// A POST to path/commands carries the commands of a client that has no gpoll.v1: one of them, or an array. The answer
// has theirs, in their order.

// At most so many commands come in one POST.
const mostCommands = 100

// obeyPost does what a POST to path/commands says.
func (b *Broadcaster) obeyPost(w http.ResponseWriter, r *http.Request) {
	cmds, batch, refused := b.readCommands(w, r)
	if refused == nil {
		refused = b.answerCommands(w, r, cmds, batch)
	}
	b.refuseIf(w, r, refused)
}

// readCommands reads the body.
func (b *Broadcaster) readCommands(w http.ResponseWriter, r *http.Request) (cmds []command, batch bool, no *refusal) {
	if r.URL.RawQuery != "" {
		return nil, false, refuseBad("bad-request", "commands have no query; the client id is the header Gpoll-Client-Id")
	}
	if len(r.Header["Gpoll-Client-Id"]) > 1 {
		return nil, false, refuseBad("bad-client-id", "the header Gpoll-Client-Id is there more than once; send it once")
	}
	data, no := readJSON(w, r, int64(max(b.set.maxMessage, maxBody)))
	if no != nil {
		return nil, false, no
	}
	if !utf8.Valid(data) {
		return nil, false, refuseBad("bad-utf-8", "the body is not UTF-8; send other bytes as data64")
	}
	var frames []frameCommand
	if batch = bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("[")); batch {
		if decodeStrict(data, &frames) != nil {
			return nil, true, refuseCommands
		}
	} else if frames = make([]frameCommand, 1); decodeStrict(data, &frames[0]) != nil {
		return nil, false, refuseCommands
	}
	if len(frames) > mostCommands {
		return nil, true, refuseBad("too-many-commands",
			fmt.Sprintf("%d commands in one POST; the limit is %d", len(frames), mostCommands))
	}
	for i := range frames {
		cmd, no := frames[i].command()
		if no != nil {
			return nil, batch, no
		}
		cmds = append(cmds, cmd)
	}
	return cmds, batch, nil
}

var refuseCommands = refuseBad("bad-request", `the body is a command or an array of commands: `+
	`{"send":{"data":"…"},"id":"…"}, {"publish":{"topic":"…","data":"…"}}, {"request":{"data":"…"},"id":"…"}, `+
	`{"reply":{"data":"…"},"id":"…"}, {"leave":true}`)

// answerCommands does cmds and answers. A single command that cannot be done is refused as requests are. In a batch
// the refusal stands in the command's place; after one that may pass the rest is not done, so that the order stays.
func (b *Broadcaster) answerCommands(w http.ResponseWriter, r *http.Request, cmds []command, batch bool) *refusal {
	g, no := b.authorize(r)
	if no != nil {
		return no
	}
	c, no := b.resolve(&request{id: first(r.Header, "Gpoll-Client-Id")}, g.user())
	if no != nil {
		return no
	}
	if no := b.meet(c, r); no != nil {
		return no
	}
	// What the application does may take longer than the server's own time-outs, which are for requests that do not wait.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Time{})
	body := []byte{'['}
	var passing *refusal
	for i := range cmds {
		var answer []byte
		no := passing
		if no == nil {
			var err error
			if answer, no, err = c.hear(r.Context(), g, &cmds[i]); err != nil {
				return nil // the client has gone
			}
		}
		if no == refuseInternal {
			c.endAttach(endInternal)
		}
		switch {
		case no != nil && !batch:
			return no
		case no != nil:
			b.noteRefusal(no, r)
			answer = no.frame(cmds[i].id)
			if no.passes() {
				passing = no
			}
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, answer...)
	}
	if body = append(body, ']'); !batch {
		body = body[1 : len(body)-1]
	}
	a := answer{status: http.StatusOK, fields: []field{{"Content-Type", "application/json"}}, body: string(body)}
	_ = b.writeAnswer(w, r, &a, &everyPiece{w, b.set.writeTimeout}) // the client may have gone: it asks again by id
	return nil
}
