package gpoll

import (
	"cmp"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/corvuscrypto/gpoll/js"
)

// ListenAndBroadcast mounts the Broadcaster on mux, or on http.DefaultServeMux: path, path/ws, path/events,
// path/commands, and the browser client at path/client.js. At path the request's headers choose the transport
// (Upgrade: WebSocket; Accept: text/event-stream: SSE; else long-poll).
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
	names := []string{"/client.js", "/" + ClientModule(), "/client/{version}/{part}"}
	for _, module := range js.Modules() {
		names = append(names, "/client/"+module)
	}
	for _, name := range names {
		on.HandleFunc("GET "+base+name, b.HandleClient)
		handleIfFree(on, base+name, http.HandlerFunc(b.HandleClient))
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
	case hasToken(r.Header, "Upgrade", "websocket"), // not h2c, which some clients offer at each request
		r.Header["Sec-Websocket-Key"] != nil: // a proxy has dropped Upgrade; the client hears so
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
				e.a.close(e.sent, nil)
			}
		}()
		e.serve()
		whole = true
	}
}

// HandleWebSocket is the WebSocket handler, for applications that mount it themselves.
func (b *Broadcaster) HandleWebSocket(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && b.start() == nil {
		// Behind a proxy that drops Upgrade the Host is often not right either. One thing after the other.
		if refused := missesUpgrade(r); refused != nil {
			b.refuse(w, r, refused)
			return
		}
	}
	var req request
	if b.admit(w, r, &req) {
		b.refuseIf(w, r, b.upgrade(w, r, &req))
	}
}

// HandleCommands takes what clients of long-poll and SSE say, for applications that mount it themselves: POSTs of the
// commands send, publish, request and leave. docs/protocol.md has them.
func (b *Broadcaster) HandleCommands(w http.ResponseWriter, r *http.Request) {
	if b.enter(w, r, refuseNotPost) {
		b.obeyPost(w, r)
	}
}

// HandleClient serves the browser client, for applications that mount it themselves: client.js and [ClientModule], and
// below client/ tabs.js, sealed.js and {version}/{part}, all below the path of the broadcast. It asks neither Authorize
// nor AllowedOrigins: what it serves is the same for everybody. docs/browser.md has its use.
func (b *Broadcaster) HandleClient(w http.ResponseWriter, r *http.Request) {
	if refused := serveClient(w, r); refused != nil {
		b.refuse(w, r, refused)
	}
}

// ListenAndBroadcast mounts the DefaultBroadcaster. See [Broadcaster.ListenAndBroadcast].
func ListenAndBroadcast(path string, mux ...*http.ServeMux) {
	DefaultBroadcaster.ListenAndBroadcast(path, mux...)
}

// route is one address below the mount.
type route struct {
	suffix  string
	handler func(*Broadcaster) http.HandlerFunc
}

// routes is the table of the mount. A test runs the checks of every route over it.
var routes = []route{
	{"", func(b *Broadcaster) http.HandlerFunc { return b.ServeHTTP }},
	{"/ws", func(b *Broadcaster) http.HandlerFunc { return b.HandleWebSocket }},
	{"/events", func(b *Broadcaster) http.HandlerFunc { return b.HandleEvents }},
	{"/commands", func(b *Broadcaster) http.HandlerFunc { return b.HandleCommands }},
}

// plainPath reports whether a ServeMux pattern of that path matches just that path.
func plainPath(p string) bool {
	return strings.HasPrefix(p, "/") && !strings.ContainsAny(p, " {}?#%") &&
		path.Clean(p) == cmp.Or(strings.TrimSuffix(p, "/"), "/")
}
