package gpoll

import (
	"fmt"
	"net/http"
	"strings"
)

// ListenAndBroadcast mounts the Broadcaster on mux, or on http.DefaultServeMux: path, path/ws and path/events. At path
// the request's headers choose the transport (Upgrade: WebSocket; Accept: text/event-stream: SSE; else long-poll).
// Middleware may wrap the ResponseWriter as long as it has an Unwrap method (see http.ResponseController).
//
// It mounts each path method by method, so that patterns like "GET /" and "GET /{page}" may stand beside it.
//
// It panics when the path is not a plain one or is taken, when the mux is nil or there are several, and when a setting
// is bad.
func (b *Broadcaster) ListenAndBroadcast(path string, mux ...*http.ServeMux) {
	on := http.DefaultServeMux
	switch {
	case len(mux) > 1:
		panic("gpoll: ListenAndBroadcast takes one mux; call it once for each")
	case len(mux) == 1 && mux[0] == nil:
		panic("gpoll: ListenAndBroadcast got a nil mux; leave it out for http.DefaultServeMux")
	case len(mux) == 1:
		on = mux[0]
	}
	if !plainPath(path) {
		panic(fmt.Sprintf("gpoll: ListenAndBroadcast takes a path like /poll, which begins with / and has no query, "+
			"space, brace, dot segment or double slash, not %q", path))
	}
	if err := b.prepare(); err != nil {
		panic(err)
	}
	if err := b.start(); err != nil {
		b.log.Error("gpoll: mounted, and tried again at each request", "err", err)
	}
	base := strings.TrimSuffix(path, "/")
	for _, rt := range routes {
		pattern := base + rt.suffix
		if rt.suffix == "" && base != path {
			pattern = path + "{$}" // "/poll/" means that path alone, not all below it
		}
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions} {
			on.Handle(method+" "+pattern, rt.handler(b))
		}
		handleIfFree(on, pattern, rt.handler(b)) // the 405 for other methods; else the mux answers
	}
}

// handleIfFree registers a pattern unless it conflicts with another.
func handleIfFree(mux *http.ServeMux, pattern string, h http.Handler) {
	defer func() { _ = recover() }() // ServeMux panics at a conflict
	mux.Handle(pattern, h)
}

// ServeHTTP serves all transports on one path and chooses by the request's headers.
func (b *Broadcaster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case hasToken(r.Header, "Upgrade", "websocket"): // not h2c, which some clients offer at each request
		b.HandleWebSocket(w, r)
	case accepts(r.Header, "text/event-stream"):
		b.HandleEvents(w, r)
	default:
		b.HandleRequests(w, r)
	}
}

// HandleRequests is the long-poll handler, for applications that mount it themselves. docs/protocol.md has its answers.
func (b *Broadcaster) HandleRequests(w http.ResponseWriter, r *http.Request) {
	if p := b.admitPoll(w, r); p != nil {
		whole := false
		defer func() {
			if !whole { // middleware has panicked: net/http logs that
				p.end(false)
			}
		}()
		p.serve()
		whole = true
		p.free()
	}
}

// HandleEvents is the Server-Sent Events handler, for applications that mount it themselves. Over HTTP/1.1
// it takes the connection over (http.Hijacker), as a WebSocket does, where the ResponseWriter allows it.
func (b *Broadcaster) HandleEvents(w http.ResponseWriter, r *http.Request) {
	if e := b.admitEvents(w, r); e != nil {
		whole := false
		defer func() {
			if !whole { // as above
				e.a.close(e.sent, Position{}, 0)
			}
		}()
		e.serve()
		whole = true
	}
}

// HandleWebSocket is the WebSocket handler, for applications that mount it themselves.
func (b *Broadcaster) HandleWebSocket(w http.ResponseWriter, r *http.Request) {
	var req request
	if b.admit(w, r, &req) {
		b.refuseIf(w, r, b.upgrade(w, r, &req))
	}
}

// admit checks a request of any transport: its origin, its method, whether the Broadcaster shuts down. Then it parses
// the request into req. When it reports false it has answered. A request waits only after admit has returned, so that
// its goroutine keeps a small stack.
func (b *Broadcaster) admit(w http.ResponseWriter, r *http.Request, req *request) bool {
	if err := b.start(); err == ErrClosed { // before it ever served
		b.refuse(w, r, b.refuseShutdown())
		return false
	} else if err != nil {
		if leftOut, due := b.refusals.due("", b.now()); due {
			b.log.Error("gpoll: cannot serve", "err", err, "left out", leftOut)
		}
		b.writeHead(w, r)
		refuseInternal.write(w)
		return false
	}
	if !b.originAllowed(r) {
		b.refuse(w, r, refuseOrigin)
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodPost:
	case http.MethodOptions:
		b.answerPreflight(w, r)
		return false
	default:
		b.refuse(w, r, refuseMethod)
		return false
	}
	if b.state.Load() != stateOpen { // before any look-up: Shutdown removes the clients
		b.refuse(w, r, b.refuseShutdown())
		return false
	}
	if refused := b.parseRequest(w, r, req); refused != nil {
		b.refuse(w, r, refused)
		return false
	}
	return true
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
	if isEventSource(r) && why.passes() {
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
