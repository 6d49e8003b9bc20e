package gpoll

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// serveEvents answers with Server-Sent Events until the client or the server ends them.
func (b *Broadcaster) serveEvents(w http.ResponseWriter, r *http.Request, req *request) *refusal {
	g, refused := b.authorize(r)
	if refused != nil {
		return refused
	}
	c, o, refused := b.client(req, g)
	if refused != nil {
		return refused
	}
	o.transport, o.due = sse, jitter(b.set.heartbeat)
	a, err := c.open(o)
	if err != nil {
		return refuseUnknownClient
	}
	e := &eventWriter{a: a, w: w, rc: http.NewResponseController(w), form: formEvent}
	if req.json {
		e.form = formJSONEvent
	}
	e.serve(r.Context().Done())
	return nil
}

// client finds or registers the client of a request for a stream, and says how to attach to it.
func (b *Broadcaster) client(req *request, g *grantee) (*Client, attachOptions, *refusal) {
	o := attachOptions{cursor: req.after, last: req.last, grantee: g}
	topics, refused := g.subscription(req.topics)
	if refused != nil {
		return nil, o, refused
	}
	if b.state.Load() != stateOpen {
		return nil, o, b.refuseShutdown()
	}
	if req.id == "" {
		o.cursor = Position{} // the registration's
		c, refused := b.register(registration{remote: true, user: g.user(), topics: topics, cursor: req.after, last: req.last})
		return c, o, refused
	}
	o.topics, o.hasTopics = topics, req.hasTopics || !req.after.IsZero()
	c, refused := b.find(req.id, g.user())
	return c, o, refused
}

// An eventWriter writes one SSE response.
type eventWriter struct {
	a    *attach
	w    http.ResponseWriter
	rc   *http.ResponseController
	form form
	buf  []byte
}

// serve writes until the attach ends, done is closed or a write fails.
func (e *eventWriter) serve(done <-chan struct{}) {
	a := e.a
	b := a.client.routine.b
	// The server's own time-outs are for requests that do not wait. A wrapper without Unwrap leaves them in force.
	_ = e.rc.SetReadDeadline(time.Time{})
	h := e.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	cursor := a.cursor // what certainly went out
	first := cursor
	if len(a.backfill) > 0 { // who comes back before it has the older messages gets them again
		first = Position{cursor.Epoch, a.backfill[0].pos.Seq - 1}
	}
	err := e.write(appendEvent(nil, "client-id", first, registrationJSON(a.client)))
	var items []item
	beaten := cursor
	for err == nil {
		var ev event
		items, _, ev = a.next(done, b.limitReplay(), items[:0])
		e.buf = e.buf[:0]
		switch ev {
		case gotItems:
			for i := range items {
				e.buf = appendItem(e.buf, &items[i], e.form)
			}
			err = e.write(e.buf)
			b.countItems(items)
			clear(items)
		case gotDue:
			e.buf = append(e.buf, ":\n\n"...)
			if a.cursor != beaten { // an id without data moves Last-Event-ID and dispatches nothing
				e.buf = append(appendEventID(e.buf[:0], a.cursor), '\n')
				beaten = a.cursor
			}
			err = e.write(e.buf)
			a.touch(jitter(b.set.heartbeat))
		case gotEnd:
			why := a.ending.Load().refusal
			if why.retry > 0 {
				e.buf = fmt.Appendf(e.buf, "retry: %d\n", why.retry.Milliseconds())
			}
			_ = e.write(appendEvent(e.buf, "end", Position{}, why.body())) // the end is the end
			return
		case gotDone:
			a.close(a.cursor, Position{}, 0)
			return
		}
		if err == nil {
			cursor = a.cursor
		}
	}
	if a.close(cursor, Position{}, 0) && isTimeout(err) {
		b.countEnd(endSlow)
	}
}

// write writes and flushes p within WriteTimeout.
func (e *eventWriter) write(p []byte) error {
	err := e.rc.SetWriteDeadline(time.Now().Add(e.a.client.routine.b.set.writeTimeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := e.w.Write(p); err != nil {
		return err
	}
	return e.rc.Flush()
}
