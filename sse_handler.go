package gpoll

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// admitEvents answers a refusal itself, and returns the response that has to be written here; nil when the connection
// was taken over.
func (b *Broadcaster) admitEvents(w http.ResponseWriter, r *http.Request) *eventWriter {
	var req request
	if !b.admit(w, r, &req) {
		return nil
	}
	e, refused := b.openEvents(w, r, &req)
	b.refuseIf(w, r, refused)
	return e
}

func (b *Broadcaster) openEvents(w http.ResponseWriter, r *http.Request, req *request) (*eventWriter, *refusal) {
	if !canStream(w) {
		b.tell(slog.LevelError, "gpoll: SSE through a ResponseWriter without Flush: "+
			"the middleware around the mount needs a Flush or an Unwrap method")
		return nil, refuseNoStream
	}
	req.anew = isEventSource(r) // it always comes back to its first address
	arr, refused := b.arrive(r, req)
	if refused != nil {
		return nil, refused
	}
	c, o := arr.client, attachOptions{}
	if refused := b.meet(c, r); refused != nil {
		return nil, refused
	}
	arr.options(req, &o)
	f := formEvent
	if req.json {
		f = formJSONEvent
	}
	if !c.giveWay(r.Context().Done()) {
		b.writeEventsInPassing(w, r, f, &arr, req.after)
		return nil, nil
	}
	if b.takeOverEvents(w, r, f, c, o) {
		return nil, nil
	}
	o.transport, o.due = sse, jitter(b.set.heartbeat)
	a, err := c.open(&o)
	if err != nil {
		return nil, b.refusalOf(err)
	}
	b.writeEventHead(w, r)
	return &eventWriter{a: a, w: w, r: r, rc: http.NewResponseController(w), done: r.Context().Done(), form: f,
		padded: r.Header["Accept-Encoding"] != nil && isWrapped(w)}, nil
}

// writeEventsInPassing answers a request for SSE whose sender has stopped sending while another attach has the client:
// with the messages that are there, and without an attach. If the sender has gone altogether, nobody hears the answer,
// and the other attach, which may be its own, goes on.
func (b *Broadcaster) writeEventsInPassing(w http.ResponseWriter, r *http.Request, f form, arr *arrival,
	after Position) {

	items, at, _ := b.readInPassing(arr, after, b.limitReplay())
	if !after.IsZero() {
		at = after
	}
	out := (&attach{client: arr.client, cursor: at}).firstEvent()
	for i := range items {
		out = appendItem(out, &items[i], f)
	}
	b.writeEventHead(w, r)
	_ = writePieces(w, string(out), &everyPiece{w, b.set.writeTimeout}) // it may have gone
	b.countItems(items)
}

// takeOverEvents takes the connection of an SSE response from net/http, which frees its stack and buffers. It reports
// whether it answered. It does not over HTTP/2, nor where middleware keeps the connection or encodes the body.
func (b *Broadcaster) takeOverEvents(w http.ResponseWriter, r *http.Request, f form, c *Client, o attachOptions) bool {
	if r.ProtoMajor != 1 || !canHijack(w) || w.Header()["Content-Encoding"] != nil {
		return false
	}
	s := &streamConn{b: b, form: f}
	if err := s.hijack(w); err != nil {
		b.log.Debug("gpoll: taking an SSE connection over failed", "err", err)
		return false
	}
	b.writeEventHead(w, r)
	h := w.Header()
	h.Set("Connection", "close") // the connection's end is the response's (RFC 9112, section 6.3)
	s.begin(c, o, headOf("200 OK", h))
	b.spawn(s.run)
	return true
}

// padding is a comment, longer than the least that compressing middleware compresses: by default 1,400 bytes at most in
// those that are tried.
var padding = ":" + strings.Repeat(" ", 2048) + "\n"

// An eventWriter writes one SSE response through its http.ResponseWriter: over HTTP/2, or behind middleware that
// keeps the connection.
type eventWriter struct {
	a    *attach
	w    http.ResponseWriter
	r    *http.Request
	rc   *http.ResponseController
	done <-chan struct{}
	late *time.Timer // ends the attach as slow; it runs while a write waits
	form form
	// Compressing middleware may hold back short data even after a Flush: a long comment comes first.
	padded bool
	sent   Position // everything up to here certainly went out
	buf    []byte
	items  []item
}

// serve writes until the attach ends, the client has gone or a write fails. It waits on a small stack.
func (e *eventWriter) serve() {
	e.late = e.a.client.routine.b.after(e.timeout(), func() { e.a.end(endSlow) })
	defer e.late.Stop()
	defer e.a.client.routine.b.watchRequest(e.r)()
	err := e.begin()
	for err == nil {
		select {
		case rec := <-e.a.queue:
			e.a.head = rec
			err = e.proceed()
		case <-e.done:
			err = errGone
		}
	}
	var why *ending
	if isTimeout(err) {
		why = endSlow
	}
	e.a.close(e.sent, why)
}

var errGone = errors.New("gpoll: the client has gone")

// begin writes the registration and what is owed at once.
func (e *eventWriter) begin() error {
	// The server's own time-outs are for requests that do not wait. Behind a wrapper without Unwrap they stay in force.
	_ = e.rc.SetReadDeadline(time.Time{})
	e.sent = e.a.cursor
	first := e.a.firstEvent()
	if e.padded {
		first = append([]byte(padding), first...)
	}
	if err := e.write(first); err != nil {
		return err
	}
	return e.proceed()
}

// proceed writes all that is there.
func (e *eventWriter) proceed() error {
	a := e.a
	b := a.client.routine.b
	for {
		var ev event
		e.items, _, ev = a.ready(b.limitReplay(), e.items[:0])
		e.buf = e.buf[:0]
		switch ev {
		case gotNothing:
			return nil
		case gotItems:
			if err := e.writeItems(); err != nil {
				return err
			}
			continue
		case gotDue:
			e.buf = appendHeartbeat(e.buf, a.cursor)
			a.touch(jitter(b.set.heartbeat))
		case gotOp:
			e.buf = a.operate(e.buf)
		case gotPresence:
			news := a.takeNews()
			if news == nil {
				continue
			}
			e.buf = appendPresenceEvent(e.buf, news)
		case gotEnd:
			_ = e.write(appendEnd(e.buf, a.ending.Load())) // it ends anyway
			return errGone
		}
		if err := e.write(e.buf); err != nil {
			return err
		}
		e.sent = a.cursor
	}
}

// writeItems writes items, whole events at a time. It leaves the rest to the next attach when this one has ended.
func (e *eventWriter) writeItems() error {
	defer clear(e.items)
	from := 0 // index of the first item in buf
	for i := range e.items {
		e.buf = appendItem(e.buf, &e.items[i], e.form)
		last := i == len(e.items)-1
		if len(e.buf) < netHTTPPiece && !last {
			continue
		}
		before, ok := e.a.claim(e.items[i].pos)
		if !ok {
			return nil
		}
		if err := e.write(e.buf); err != nil {
			e.a.disclaim(before, e.items[i].pos)
			return err
		}
		if e.sent = e.items[i].pos; last {
			e.sent = e.a.cursor
		}
		e.a.client.routine.b.countItems(e.items[from : i+1])
		e.buf, from = e.buf[:0], i+1
	}
	return nil
}

// firstEvent tells the client its id and where the stream begins.
func (a *attach) firstEvent() []byte {
	at := a.cursor
	if len(a.backfill) > 0 { // a client that comes back before it has the older messages gets them again
		at.Seq = a.backfill[0].pos.Seq - 1
	}
	return appendEvent(nil, "client-id", at, registrationJSON(a.client))
}

// appendHeartbeat appends an event that moves Last-Event-ID to the scanned Position. It has a name since some clients
// take one without a name for an empty message, and an empty line of data since others do not take the id of an event
// without data.
func appendHeartbeat(b []byte, at Position) []byte {
	return appendEvent(b, "position", at, nil)
}

func (e *eventWriter) timeout() time.Duration { return e.a.client.routine.b.set.writeTimeout }

// write writes and flushes p. A piece that takes longer than WriteTimeout ends the attach as slow. The write goes on
// for as long again, so that the client is told any end that came meanwhile after a whole event.
func (e *eventWriter) write(p []byte) error {
	defer e.late.Stop()
	for begun := false; len(p) > 0 || !begun; begun = true {
		n := min(len(p), netHTTPPiece)
		if !begun || e.a.ending.Load() == nil {
			e.late.Reset(e.timeout())
			err := e.rc.SetWriteDeadline(time.Now().Add(2 * e.timeout()))
			if err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
		}
		if _, err := e.w.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	err := e.rc.Flush()
	_ = e.rc.SetWriteDeadline(time.Time{}) // over HTTP/2 a deadline resets the stream even when nothing is written
	return err
}
