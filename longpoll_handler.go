package gpoll

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// servePoll answers one request of a long-poll client: a registration, or what is owed after its cursor.
func (b *Broadcaster) servePoll(w http.ResponseWriter, r *http.Request, req *request) *refusal {
	g, refused := b.authorize(r)
	if refused != nil {
		return refused
	}
	topics, refused := g.subscription(req.topics)
	if refused != nil {
		return refused
	}
	if req.id == "" {
		return b.answerRegistration(w, r, req, topics, g)
	}
	c, refused := b.find(req.id, g.user())
	if refused != nil {
		return refused
	}
	if b.state.Load() != stateOpen {
		return b.refuseShutdown()
	}
	o := attachOptions{transport: longPoll, cursor: req.after, topics: topics,
		hasTopics: req.hasTopics || !req.after.IsZero(), last: req.last, due: jitter(b.set.pollWait)}
	if g != nil && !g.grant.Expires.IsZero() {
		o.due = max(min(o.due, time.Until(g.grant.Expires)), time.Millisecond) // the next poll asks Authorize
	}
	a, err := c.open(o)
	if err != nil {
		return refuseUnknownClient
	}
	return a.answerPoll(w, r, req)
}

// answerRegistration makes a client and tells it its id.
func (b *Broadcaster) answerRegistration(w http.ResponseWriter, r *http.Request, req *request, topics []string, g *grantee) *refusal {
	c, refused := b.register(registration{remote: true, user: g.user(), topics: topics, cursor: req.after, last: req.last})
	if refused != nil {
		return refused
	}
	r0 := c.routine
	r0.mu.Lock()
	cursor, items := c.cursor, []item(nil)
	if c.kept != nil {
		items = c.kept.backfill
	}
	if req.json { // which carries them
		c.kept = nil
	}
	r0.mu.Unlock()
	w.Header().Set("Gpoll-Position", cursor.String())
	if req.json {
		b.writeBatch(w, c, items, cursor, false)
		return nil
	}
	writeWhole(w, "application/json", registrationJSON(c))
	return nil
}

// registrationJSON is {"client-id":"…"}, the seed's answer.
func registrationJSON(c *Client) []byte {
	return append(append([]byte(`{"client-id":"`), c.ID()...), `"}`...)
}

// answerPoll waits for what the client is owed and writes it: one message in the plain form, a batch in JSON.
func (a *attach) answerPoll(w http.ResponseWriter, r *http.Request, req *request) *refusal {
	c := a.client
	b := c.routine.b
	rc := http.NewResponseController(w)
	// The server's own time-outs are for requests that do not wait. A wrapper without Unwrap leaves them in force.
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Time{})

	started, owed := a.cursor, len(a.backfill)
	limit := replay{count: 1, bytes: b.set.replayBytes}
	if req.json {
		limit.count = b.set.replayCount
	}
	items := make([]item, 0, 1)
	var more bool
	for waiting := true; waiting; {
		var ev event
		items, more, ev = a.next(r.Context().Done(), limit, items)
		switch ev {
		case gotEnd:
			return a.ending.Load().refusal
		case gotDone: // nobody is there to be answered
			a.close(started, Position{}, 0)
			return nil
		case gotDue:
			waiting = false
		default:
			// In the plain form a gap waits for the message that it stands before.
			waiting = !req.json && items[len(items)-1].gap != nil
		}
	}
	// A wrapper without Unwrap leaves the server's own time-out in force, and does not say whether the write went out.
	_ = rc.SetWriteDeadline(time.Now().Add(b.set.writeTimeout))
	var err error
	if req.json {
		err = b.writeBatch(w, c, items, a.cursor, more)
	} else {
		err = a.writePlain(w, items)
	}
	if err == nil {
		if err = rc.Flush(); errors.Is(err, http.ErrNotSupported) {
			err = nil
		}
	}
	switch {
	case !a.implicit:
		a.close(req.after, Position{}, 0)
	case err != nil || r.Context().Err() != nil:
		a.close(started, Position{}, 0) // the same again for the next poll
	default:
		a.close(started, a.cursor, owed-len(a.backfill))
	}
	b.countItems(items)
	return nil
}

// writePlain writes the message of items, which may have gaps before it, or 204 when there is none.
func (a *attach) writePlain(w http.ResponseWriter, items []item) error {
	h := w.Header()
	pos := a.cursor
	var rec *record
	for _, it := range items {
		if it.gap != nil {
			h.Add("Gpoll-Gap", it.gap.String())
		} else {
			rec, pos = it.rec, it.pos
		}
	}
	h.Set("Gpoll-Position", pos.String())
	if rec == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	contentType := "text/plain; charset=utf-8"
	if rec.binary {
		contentType = "application/octet-stream"
	}
	return writeWhole(w, contentType, []byte(rec.data))
}

// writeBatch writes the JSON form of an answer.
func (b *Broadcaster) writeBatch(w http.ResponseWriter, c *Client, items []item, scanned Position, more bool) error {
	w.Header().Set("Gpoll-Position", scanned.String())
	size := 128
	for i := range items {
		if items[i].rec != nil {
			size += len(items[i].rec.in(formElement)) + 1
		} else {
			size += 160
		}
	}
	body := make([]byte, 0, size)
	body = append(body, `{"client-id":"`...)
	body = append(body, c.ID()...)
	body = append(body, `","position":"`...)
	body = scanned.append(body)
	body = append(body, `","messages":[`...)
	for i := range items {
		if i > 0 {
			body = append(body, ',')
		}
		if rec := items[i].rec; rec != nil {
			body = append(body, rec.in(formElement)...)
		} else {
			body = append(body, gapElement(items[i].gap)...)
		}
	}
	body = append(body, `],"more":`...)
	body = strconv.AppendBool(body, more)
	body = append(body, '}')
	return writeWhole(w, "application/json", body)
}

// writeWhole writes a 200 whose length is known.
func writeWhole(w http.ResponseWriter, contentType string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, err := w.Write(body)
	return err
}
