package browser

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
	"github.com/corvuscrypto/gpoll/js"
)

// The ways to a server.
const (
	socket   = "socket"
	events   = "events"
	polls    = "polls"
	commands = "commands"
)

func wayOf(path string) string {
	switch {
	case strings.HasSuffix(path, "/ws"):
		return socket
	case strings.HasSuffix(path, "/events"):
		return events
	case strings.HasSuffix(path, "/commands"):
		return commands
	case strings.HasSuffix(path, "/poll"):
		return polls
	}
	return ""
}

// A world has a server and its history. The server can be killed, and starts again at the same address.
type world struct {
	*testing.T
	gpolltest.History
	settings func(*gpoll.Broadcaster)
	addr     string
	last     gpoll.Position
	count    int  // of published messages
	hasty    bool // the client tries a transport that has failed again after 1 s, not after 10 minutes
	shared   bool // the tabs of a profile share one connection

	mu     sync.Mutex // guards the fields below
	b      *gpoll.Broadcaster
	srv    *http.Server
	conns  map[net.Conn]string // and the way that it served last
	blocks map[string]http.HandlerFunc
	heard  map[string]int
}

// newWorld starts a server, and has settings set up each of its Broadcasters.
func newWorld(t *testing.T, settings func(*gpoll.Broadcaster)) *world {
	w := &world{T: t, settings: settings, addr: "127.0.0.1:0", conns: map[net.Conn]string{},
		blocks: map[string]http.HandlerFunc{}, heard: map[string]int{}}
	w.begin()
	t.Cleanup(func() { w.kill() })
	return w
}

type connKey struct{}

// begin starts a server in the place of one that was killed.
func (w *world) begin() {
	w.Helper()
	b := gpoll.NewBroadcaster()
	b.Logger = slog.New(slog.DiscardHandler)
	b.UpstreamRate = -1
	b.History.Count, b.History.Bytes = 50_000, 64<<20
	b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.heard[m.ID]++
	}
	b.OnRequest = func(_ *gpoll.Client, m gpoll.Message) ([]byte, error) { return append([]byte("re: "), m.Data...), nil }
	if w.settings != nil {
		w.settings(b)
	}
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	mux.Handle("GET /page.js", file("testdata/page.js", "text/javascript"))
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		rw.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'; "+
			"img-src data:; require-trusted-types-for 'script'; trusted-types 'none'")
		fmt.Fprint(rw, `<!doctype html><link rel="icon" href="data:,"><title>a page</title>`+
			`<script type="module" src="page.js"></script>`)
	})
	mux.HandleFunc("GET /hasty.js", func(rw http.ResponseWriter, _ *http.Request) {
		text := string(js.Core().Text)
		hasty := strings.Replace(text, "leftBy=6e5", "leftBy=1e3", 1)
		if hasty == text {
			http.Error(rw, "the client has another constant now", http.StatusInternalServerError)
			return
		}
		rw.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(rw, strings.ReplaceAll(hasty, `"./client/`, `"./poll/client/`))
	})
	mux.HandleFunc("GET /away", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(rw, `<!doctype html><link rel="icon" href="data:,"><title>elsewhere</title>`)
	})
	ln, err := net.Listen("tcp", w.addr)
	if err != nil {
		w.Fatal(err)
	}
	w.addr = ln.Addr().String()
	srv := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.conns[c] = ""
			return context.WithValue(ctx, connKey{}, c)
		},
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			way := wayOf(r.URL.Path)
			w.conns[connOf(r)] = way
			block := w.blocks[way]
			w.mu.Unlock()
			if block != nil {
				block(rw, r)
			} else {
				mux.ServeHTTP(rw, r)
			}
		}),
	}
	w.mu.Lock()
	w.b, w.srv = b, srv
	w.mu.Unlock()
	go srv.Serve(ln) // ends with kill
}

func connOf(r *http.Request) net.Conn { return r.Context().Value(connKey{}).(net.Conn) }

func file(name, contentType string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		text, err := os.ReadFile(name)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		rw.Header().Set("Content-Type", contentType)
		_, _ = rw.Write(text) // the browser says what it lacks
	})
}

// kill ends the server as kill -9 does: its clients hear nothing but the end of their connections.
func (w *world) kill() {
	w.Helper()
	_ = w.srv.Close()
	w.cut(socket, events, polls, commands, "")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.b.Shutdown(ctx); err != nil {
		w.Error(err)
	}
}

// cut breaks the connections of ways, and returns how many.
func (w *world) cut(ways ...string) (cuts int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c, way := range w.conns {
		for _, cut := range ways {
			if way == cut {
				_ = c.Close()
				delete(w.conns, c)
				cuts++
			}
		}
	}
	return cuts
}

// block puts something in front of ways. nil takes it away.
func (w *world) block(how http.HandlerFunc, ways ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, way := range ways {
		w.blocks[way] = how
	}
}

// What stands in the way.

func forbidden(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "no", http.StatusForbidden) }

func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// stripped is a proxy that drops Upgrade, as it drops every header of the connection.
func (w *world) stripped(rw http.ResponseWriter, r *http.Request) {
	r.Header.Del("Upgrade")
	r.Header.Del("Connection")
	w.b.ServeHTTP(rw, r)
}

// dyingYoung lets a WebSocket open, and breaks it soon.
func (w *world) dyingYoung(rw http.ResponseWriter, r *http.Request) {
	c := connOf(r)
	time.AfterFunc(200*time.Millisecond, func() { _ = c.Close() })
	w.b.HandleWebSocket(rw, r)
}

// buffered keeps everything back that the server writes.
func (w *world) buffered(rw http.ResponseWriter, r *http.Request) {
	w.b.HandleEvents(keptBack{rw.Header()}, r)
}

type keptBack struct{ h http.Header }

func (k keptBack) Header() http.Header         { return k.h }
func (k keptBack) WriteHeader(int)             {}
func (k keptBack) Write(p []byte) (int, error) { return len(p), nil }
func (k keptBack) Flush()                      {}

// url of the page.
func (w *world) url() string { return "http://" + w.addr + "/" }

// publish publishes so many messages, at most rate a second.
func (w *world) publish(n, rate int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for due := 0; n > 0; n-- {
		if due == 0 {
			<-tick.C
			due = max(rate/50, 1)
		}
		due--
		w.count++
		p, err := w.Publish(ctx, w.b, gpoll.Message{Topic: "news", Data: fmt.Append(nil, "n", w.count)})
		if err != nil {
			w.Fatal(err)
		}
		w.last = p
	}
}

// A sight is something that testdata/page.js has written down.
type sight struct {
	Topic, Data, Position string
	Gap                   *struct{ From, To, Reason string }

	Open, ID string

	State, Transport string
	Reasons          []string
	Error            *struct{ Code, Message string }
}

// listen opens a page that listens to news, and waits until it is attached.
func (w *world) listen(p *profile, options map[string]any) *page {
	w.Helper()
	tab := p.open(w.url())
	w.listenOn(tab, options)
	return tab
}

func (w *world) listenOn(tab *page, options map[string]any) {
	w.Helper()
	all := map[string]any{"topics": "news"}
	maps.Copy(all, options)
	source := "client.GpollSource"
	if w.hasty {
		source = "(await import('./hasty.js')).GpollSource"
	}
	if w.shared {
		source = "(await import('./poll/client/tabs.js')).SharedSource"
	}
	tab.eval(nil, "(async () => { listen(ARG, "+source+"); await until(() => feed.readyState == 1); })()", all)
}

// judge waits until the page has all that it is owed, and asks the checker. It returns what the page has seen.
func (w *world) judge(tab *page, checker gpolltest.Checker) []sight {
	w.Helper()
	tab.eval(nil, "reached(ARG)", w.last.String())
	var seen []sight
	tab.eval(&seen, "take()")
	w.check(seen, checker)
	return seen
}

// check asks the checker about what a page has seen.
func (w *world) check(seen []sight, checker gpolltest.Checker) {
	w.Helper()
	trace, id := w.Trace("page"), ""
	for _, s := range seen {
		switch {
		case s.Open != "":
			if s.ID != id {
				trace.Registered(s.ID, "")
			}
			if id == "" {
				trace.Scanned(w.position(s.Position))
				trace.Subscribed("news", w.position(s.Position))
			}
			id = s.ID
		case s.Gap != nil:
			g := gpoll.Gap{Reason: s.Gap.Reason}
			if s.Gap.From != "" {
				p := w.position(s.Gap.From)
				g.Epoch, g.From = p.Epoch, p.Seq
			}
			if s.Gap.To != "" {
				p := w.position(s.Gap.To)
				g.Epoch, g.To = p.Epoch, p.Seq
			}
			trace.Gap(g)
		case s.Position != "":
			trace.Delivered(gpoll.Message{Topic: s.Topic, Data: []byte(s.Data), Position: w.position(s.Position)})
		}
	}
	trace.Drained()
	for _, v := range checker.Check(&w.History) {
		w.Error(v)
	}
}

func (w *world) position(text string) gpoll.Position {
	w.Helper()
	p, err := gpoll.ParsePosition(text)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

// states are what the page's statuses were.
func states(seen []sight) string {
	var all []string
	for _, s := range seen {
		if s.State != "" {
			all = append(all, strings.TrimSpace(s.State+" "+strings.Join(append([]string{s.Transport}, s.Reasons...), " ")))
		}
	}
	return strings.Join(all, "\n")
}

// until waits until something holds that no event tells.
func (w *world) until(what string, holds func() bool) {
	w.Helper()
	for deadline := time.Now().Add(patience); !holds(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("it does not come about that %s: %+v", what, w.b.Stats())
		}
	}
}

// effects returns how often each command took effect, by its id.
func (w *world) effects() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.heard)
}
