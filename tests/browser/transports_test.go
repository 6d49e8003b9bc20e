package browser

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// Each transport alone brings everything once and in order.
func TestEachTransport(t *testing.T) {
	for _, by := range transports {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			tab := w.listen(newProfile(t), map[string]any{"transports": []string{by}})
			w.publish(2000, 1000)
			w.judge(tab, gpolltest.Checker{NoGaps: true})
			var reply string
			tab.eval(&reply, `feed.send("hi").then(() => feed.request("what"))`)
			if reply != "re: what" {
				t.Errorf("the application replies %q", reply)
			}
			if len(w.effects()) != 1 {
				t.Errorf("the application heard %v", w.effects())
			}
		})
	}
}

// What stands in the way of a transport makes the client go down, with a reason that page and server are told, and
// nothing is lost on the way.
func TestFallback(t *testing.T) {
	for _, tt := range []struct {
		name    string
		block   func(*world)
		by      string
		reasons string
	}{
		{"WebSocket refused", func(w *world) { w.block(forbidden, socket) }, "sse", "ws_refused"},
		{"WebSocket silent", func(w *world) { w.block(silent, socket) }, "sse", "ws_silent"},
		{"Upgrade stripped", func(w *world) { w.block(w.stripped, socket) }, "sse", "ws_refused"},
		{"WebSocket dies young", func(w *world) { w.block(w.dyingYoung, socket) }, "sse", "ws_died_young"},
		{"SSE buffered", func(w *world) { w.block(forbidden, socket); w.block(w.buffered, events) },
			"long-poll", "ws_refused sse_buffered"},
		{"SSE refused", func(w *world) { w.block(forbidden, socket, events) }, "long-poll", "ws_refused sse_refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			tt.block(w)
			tab := w.listen(newProfile(t), nil)
			w.publish(1000, 500)
			tab.eval(nil, "by(ARG)", tt.by)
			w.publish(1000, 1000)
			seen := w.judge(tab, gpolltest.Checker{NoGaps: true})
			var got string
			tab.eval(&got, `feed.status.reasons.join(" ")`)
			if got != tt.reasons {
				t.Errorf("the reasons are %q, not %q:\n%s", got, tt.reasons, states(seen))
			}
			for reason := range strings.FieldsSeq(tt.reasons) {
				if w.b.Stats().Fallbacks[reason] != 1 {
					t.Errorf("the server counts %v", w.b.Stats().Fallbacks)
				}
			}
			// The next page of this tab knows what failed, and does not try it.
			tab.does("goto", w.url())
			tab.eval(nil, "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))")
			w.listenOn(tab, nil)
			var next []sight
			tab.eval(&next, "take()")
			if got, want := states(next), "connected "+tt.by+" "+tt.reasons; strings.Contains(got, "waiting") ||
				!strings.HasSuffix(got, want) {
				t.Errorf("the next page went\n%s", got)
			}
		})
	}
}

// A client that was kept from the better transports climbs again, in one session.
func TestClimb(t *testing.T) {
	for _, from := range []string{"sse", "long-poll"} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.hasty = true
			w.block(forbidden, socket)
			if from == "long-poll" {
				w.block(forbidden, events)
			}
			tab := w.listen(newProfile(t), nil)
			tab.eval(nil, "by(ARG)", from)
			w.publish(500, 1000)
			var id, climbed string
			tab.eval(&id, "feed.id")
			if from == "long-poll" {
				w.block(nil, events)
				tab.eval(nil, `by("sse")`)
				w.publish(500, 1000)
			}
			w.block(nil, socket)
			w.publish(500, 500)
			tab.eval(nil, `by("websocket")`)
			w.publish(500, 500)
			seen := w.judge(tab, gpolltest.Checker{NoGaps: true})
			if tab.eval(&climbed, "feed.id"); id != climbed {
				t.Errorf("another client has climbed:\n%s", states(seen))
			}
		})
	}
}

// Connections that break in the middle of everything.
func TestCuts(t *testing.T) {
	for by, way := range map[string]string{"websocket": socket, "sse": events, "long-poll": polls} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			tab := w.listen(newProfile(t), map[string]any{"transports": []string{by}})
			cuts := 0
			for range 6 { // the waits between two attempts double
				w.publish(350, 2000)
				tab.eval(nil, "until(() => feed.readyState == 1)")
				cuts += w.cut(way)
			}
			w.judge(tab, gpolltest.Checker{NoGaps: true})
			if cuts < 6 {
				t.Errorf("only %d cuts", cuts)
			}
		})
	}
}

// A server that is killed and starts again twice loses nothing that its broker has, and tells of a new log.
func TestKilled(t *testing.T) {
	for _, by := range transports {
		for _, keeps := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, log kept %v", by, keeps), func(t *testing.T) {
				t.Parallel()
				broker := gpoll.NewMemoryBroker()
				w := newWorld(t, func(b *gpoll.Broadcaster) {
					if keeps {
						b.Broker = broker
					}
				})
				tab := w.listen(newProfile(t), map[string]any{"transports": []string{by}})
				w.publish(700, 1000)
				for range 2 {
					w.kill()
					w.begin()
					w.publish(650, 1000)
				}
				seen := w.judge(tab, gpolltest.Checker{NoGaps: keeps})
				gaps := 0
				for _, s := range seen {
					if s.Gap != nil {
						gaps++
					}
				}
				if !keeps && gaps != 2 {
					t.Errorf("%d gaps told, of 2 new logs:\n%s", gaps, states(seen))
				}
			})
		}
	}
}

// What a browser has of its own hears everything, too.
func TestBare(t *testing.T) {
	for name, listen := range map[string]string{
		"WebSocket":   `new WebSocket("ws://" + location.host + "/poll/ws?topic=news")`,
		"EventSource": `new EventSource("/poll/events?topic=news")`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			tab := newProfile(t).open(w.url())
			tab.eval(nil, `new Promise(open => {
				window.heard = [];
				window.bare = `+listen+`;
				bare.onmessage = e => {
					if (!e.data.startsWith("{")) heard.push(e.data); // a WebSocket begins with the client's id
					window.look?.();
				};
				bare.onopen = open;
			})`)
			for at := w.b.Stats().Attached; at["sse"]+at["websocket"] == 0; at = w.b.Stats().Attached {
				<-time.After(5 * time.Millisecond)
			}
			w.publish(200, 1000)
			var heard []string
			tab.eval(&heard, `new Promise(done => (window.look = () => heard.length >= 200 && done(heard))())`)
			for i, data := range heard {
				if data != fmt.Sprint("n", i+1) {
					t.Fatalf("message %d is %q", i+1, data)
				}
			}
		})
	}
}
