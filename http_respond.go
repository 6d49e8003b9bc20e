package gpoll

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// writeAnswer writes a through w: the answer to the poll r.
func (b *Broadcaster) writeAnswer(w http.ResponseWriter, r *http.Request, a *answer, each deadlineSetter) error {
	h := w.Header()
	lines := headLines{h, new([8]string)[:0]}
	b.addHead(&lines, r)
	if _, there := h["Date"]; !there { // net/http would format it for every answer
		lines.set("Date", b.calendar.today().value)
	}
	return a.write(w, &lines, each)
}

// write writes a through w. It adds a's fields to lines.
func (a *answer) write(w http.ResponseWriter, lines *headLines, each deadlineSetter) error {
	for i, f := range a.fields {
		if i > 0 && a.fields[i-1].name == f.name {
			h := lines.h
			h[f.name] = append(h[f.name], f.value)
		} else {
			lines.set(f.name, f.value)
		}
	}
	if a.status == http.StatusNoContent {
		each.beforePiece()
		w.WriteHeader(a.status)
		return nil
	}
	length := a.length
	if length == "" {
		length = strconv.Itoa(len(a.body))
	}
	lines.set("Content-Length", length)
	w.WriteHeader(a.status) // also 200, as http.ServeContent does: some middleware removes Content-Length only here
	return writePieces(w, a.body, each)
}

// writeHead writes the lines that every answer has. It is called with the answer, so that a waiting poll does not hold
// their memory.
func (b *Broadcaster) writeHead(w http.ResponseWriter, r *http.Request) {
	b.addHead(&headLines{w.Header(), new([4]string)[:0]}, r)
}

func (b *Broadcaster) addHead(lines *headLines, r *http.Request) {
	lines.set("Cache-Control", "no-store")
	lines.set("X-Content-Type-Options", "nosniff")
	lines.set("Referrer-Policy", "no-referrer")
	if vary := lines.h["Vary"]; len(vary) == 0 {
		lines.set("Vary", varies)
	} else {
		lines.h["Vary"] = append(vary, varies)
	}
	b.writeCORS(lines.h, r)
}

const varies = "Origin, Gpoll-Client-Id"

// headLines are lines of one value each that are added to a head. The values are in one piece of memory of this
// answer's own, since middleware may change them.
type headLines struct {
	h      http.Header
	values []string
}

// set is h.Set for a name in its canonical form.
func (l *headLines) set(name, value string) {
	n := len(l.values)
	l.values = append(l.values, value)
	l.h[name] = l.values[n : n+1 : n+1]
}

// refuse counts and answers a request that cannot be served.
func (b *Broadcaster) refuse(w http.ResponseWriter, r *http.Request, why *refusal) {
	b.noteRefusal(why, r)
	b.answerRefusal(w, r, why, why.passes())
}

// answerRefusal tells the client. passes says whether the same request may succeed later.
func (b *Broadcaster) answerRefusal(w http.ResponseWriter, r *http.Request, why *refusal, passes bool) {
	if passes && isEventSource(r) {
		b.writeEnd(w, r, why)
		return
	}
	b.writeHead(w, r)
	why.write(w)
}

// refuseIf refuses a request if there is a reason to.
func (b *Broadcaster) refuseIf(w http.ResponseWriter, r *http.Request, why *refusal) {
	if why != nil {
		b.refuse(w, r, why)
	}
}

// write answers a request with e.
func (e *refusal) write(w http.ResponseWriter) {
	a := e.answer()
	_ = a.write(w, &headLines{h: w.Header()}, noDeadline{}) // the peer may be gone; there is nothing left to tell it
}

// isEventSource reports whether a request is one that a browser's EventSource makes. An EventSource gives up after any
// answer but 200, and comes back after any end of a stream. So a refusal that passes with time is a 200 that says when
// to come back, and a new id replaces one that is gone. Other refusals stay errors.
func isEventSource(r *http.Request) bool {
	return r.Method == http.MethodGet && accepts(r.Header, "text/event-stream")
}

// writeEnd answers with a stream that only says why it ends.
func (b *Broadcaster) writeEnd(w http.ResponseWriter, r *http.Request, why *refusal) {
	if why.retry == 0 {
		later := *why
		later.retry = soon()
		why = &later
	}
	b.writeEventHead(w, r)
	w.Header().Set("Gpoll-Error", why.code)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(appendEnd(nil, &ending{refusal: why})) // it may have gone
}

func (b *Broadcaster) writeEventHead(w http.ResponseWriter, r *http.Request) {
	b.writeHead(w, r)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
}

// appendEnd appends the event that says why the stream ends, and when to come back.
func appendEnd(b []byte, why *ending) []byte {
	retry := why.refusal.retry
	if retry == 0 && why.refusal.stops() {
		retry = 24 * time.Hour // an EventSource comes back after any end: two pages with one id would fight
	}
	if retry > 0 {
		b = fmt.Appendf(b, "retry: %d\n", retry.Milliseconds())
	}
	return appendEvent(b, "end", Position{}, why.refusal.body())
}
