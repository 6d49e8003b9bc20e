package browser

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

var transports = []string{"websocket", "sse", "long-poll"}

// A page that was frozen reads on from where it was when it goes on, by a connection that lives.
func TestFrozen(t *testing.T) {
	for _, by := range transports {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(b *gpoll.Broadcaster) { b.Heartbeat = time.Second })
			tab := newProfile(t).openHideable(w.url())
			w.listenOn(tab, map[string]any{"transports": []string{by}})
			tab.does("hide")
			w.publish(500, 2000)
			tab.eval(nil, `(window.stood = 0, document.addEventListener("freeze", () => stood++))`)
			tab.cdp("Page.setWebLifecycleState", map[string]any{"state": "frozen"})
			w.publish(500, 2000)
			w.cut(socket, events, polls) // the machine sleeps
			w.publish(500, 2000)
			tab.cdp("Page.setWebLifecycleState", map[string]any{"state": "active"})
			var stood int
			if tab.eval(&stood, "stood"); stood != 1 {
				t.Errorf("the page was frozen %d times", stood)
			}
			w.publish(500, 2000)
			w.judge(tab, gpolltest.Checker{NoGaps: true})
		})
	}
}

// A page that nobody sees hears everything.
func TestHidden(t *testing.T) {
	for _, by := range transports {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			tab := newProfile(t).openHideable(w.url())
			w.listenOn(tab, map[string]any{"transports": []string{by}})
			var hidden bool
			tab.does("hide")
			if tab.eval(&hidden, "document.hidden"); !hidden {
				t.Fatal("the page is not hidden")
			}
			w.publish(2000, 1000)
			w.judge(tab, gpolltest.Checker{NoGaps: true})
		})
	}
}

// A page that the visitor has left and comes back to was kept by the browser, and hears what it missed.
func TestBackForwardCache(t *testing.T) {
	for _, by := range transports {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			tab := w.listen(newProfile(t), map[string]any{"transports": []string{by}})
			w.publish(500, 2000)
			tab.eval(nil, "reached(ARG); window.kept = true", w.last.String())
			tab.does("goto", w.url()+"away")
			w.publish(1000, 2000)
			tab.does("back")
			var kept bool
			if tab.eval(&kept, "!!window.kept"); !kept {
				t.Fatal("the browser has loaded the page anew")
			}
			w.publish(500, 2000)
			w.judge(tab, gpolltest.Checker{NoGaps: true})
		})
	}
}

// Without a network the page waits, and goes on when there is one.
func TestOffline(t *testing.T) {
	for _, by := range transports {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(b *gpoll.Broadcaster) { b.Heartbeat = time.Second })
			p := newProfile(t)
			tab := w.listen(p, map[string]any{"transports": []string{by}})
			w.publish(500, 2000)
			p.offline(true)
			w.cut(socket, events, polls)
			w.publish(1000, 2000)
			tab.eval(nil, "until(() => feed.status.state == 'waiting')")
			p.offline(false)
			w.publish(500, 2000)
			w.judge(tab, gpolltest.Checker{NoGaps: true})
		})
	}
}

// A page that is closed leaves.
func TestLeaves(t *testing.T) {
	for _, by := range transports {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			tab := w.listen(newProfile(t), map[string]any{"transports": []string{by}})
			if n := w.b.Stats().Clients; n != 1 {
				t.Fatalf("%d clients", n)
			}
			tab.eval(nil, "feed.close()")
			w.until("no client is left", func() bool { return w.b.Stats().Clients == 0 })
			w.listenOn(tab, map[string]any{"transports": []string{by}})
			tab.does("goto", w.url()+"away")
			w.until("at most the kept page is left", func() bool { return w.b.Stats().Clients <= 1 })
		})
	}
}

// elsewhere returns the address of a page of another origin.
func elsewhere(t *testing.T) string {
	other := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = rw.Write([]byte(`<!doctype html><link rel="icon" href="data:,"><title>another origin</title>`))
	}))
	t.Cleanup(other.Close)
	return other.URL
}

// A page of another origin gets nothing, whatever it tries, and the server has no client of it.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	other := elsewhere(t)
	tab := newProfile(t).open(other)
	for _, by := range transports {
		for _, credentials := range []bool{false, true} {
			var got string
			tab.eval(&got, `import(ARG).then(({ GpollSource }) => new Promise(done => {
				const feed = new GpollSource(ARG, { topics: "news", transports: [ARG], withCredentials: ARG });
				feed.onmessage = feed.onopen = e => done(e.type + " " + e.data);
				feed.onstatus = e => {
					if (e.state == "waiting" || e.state == "closed") done(e.state + " " + e.error.code);
				};
			}))`, w.url()+"poll/client.js", w.url()+"poll", by, credentials)
			if !strings.HasPrefix(got, "waiting ") && !strings.HasPrefix(got, "closed ") {
				t.Errorf("by %s the page got %s", by, got)
			}
		}
	}
	var bare string
	tab.eval(&bare, `Promise.race([
		new Promise(done => new WebSocket(ARG).onmessage = e => done(e.data)),
		new Promise(done => new EventSource(ARG).onmessage = e => done(e.data)),
		fetch(ARG).then(r => r.text(), e => new Promise(() => { })),
		fetch(ARG, { mode: "no-cors", credentials: "include" })
			.then(r => r.text()).then(text => text || new Promise(() => { })),
		new Promise(done => setTimeout(done, 500, "")),
	])`, "ws://"+w.addr+"/poll/ws", w.url()+"poll/events", w.url()+"poll?client-id=0", w.url()+"poll?client-id=0")
	if bare != "" {
		t.Errorf("the page got %s", bare)
	}
	if s := w.b.Stats(); s.Clients != 0 {
		t.Errorf("the server has %d clients", s.Clients)
	}
}

// A page of an origin that the server allows gets everything, with its cookies.
func TestAllowedOrigin(t *testing.T) {
	other := elsewhere(t)
	for _, by := range transports {
		t.Run(by, func(t *testing.T) {
			w := newWorld(t, func(b *gpoll.Broadcaster) { b.AllowedOrigins = []string{other} })
			tab := newProfile(t).open(other)
			var reply string
			tab.eval(&reply, `import(ARG).then(async ({ GpollSource }) => {
				window.feed = new GpollSource(ARG, { topics: "news", transports: [ARG], withCredentials: true });
				window.heard = [];
				feed.onmessage = e => heard.push(e.data);
				await new Promise(open => feed.onopen = open);
				return feed.request("what");
			})`, w.url()+"poll/client.js", w.url()+"poll", by)
			if reply != "re: what" {
				t.Errorf("the application replies %q", reply)
			}
			w.publish(200, 1000)
			var heard []string
			tab.eval(&heard, `(async () => {
				while (heard.length < 200) await new Promise(done => feed.addEventListener("message", done, { once: true }));
				return heard;
			})()`)
			if heard[0] != "n1" || heard[199] != "n200" {
				t.Errorf("%q", heard)
			}
		})
	}
}
