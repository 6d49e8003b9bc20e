package browser

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// attached returns how many connections listen at the server.
func (w *world) attached() (n int) {
	for _, attached := range w.b.Stats().Attached {
		n += attached
	}
	return n
}

// leader returns which of the tabs leads, once there is one.
func (w *world) leader(tabs []*page) int {
	w.Helper()
	at := -1
	w.until("one tab leads", func() bool {
		leads := 0
		for i, tab := range tabs {
			var does bool
			if tab.eval(&does, "feed.leads"); does {
				at = i
				leads++
			}
		}
		return leads == 1
	})
	return at
}

// tabs opens so many tabs, which listen by a transport.
func (w *world) tabs(p *profile, n int, by string) (tabs []*page) {
	w.Helper()
	for range n {
		tabs = append(tabs, w.listen(p, map[string]any{"transports": []string{by}}))
	}
	return tabs
}

// without returns tabs without the one at i.
func without(tabs []*page, i int) []*page {
	return append(append([]*page{}, tabs[:i]...), tabs[i+1:]...)
}

// Eight tabs on HTTP/1.1 without a WebSocket, for which the browser has six connections: all hear everything by one of
// them, and what else the pages fetch comes at once.
func TestTabs(t *testing.T) {
	for _, by := range []string{"sse", "long-poll"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.shared = true
			tabs := w.tabs(newProfile(t), 8, by)
			w.leader(tabs)
			for _, tab := range tabs {
				tab.eval(nil, `(window.slowest = 0, window.fetching = setInterval(async () => {
					const begun = performance.now();
					await (await fetch("away", { cache: "no-store" })).text();
					slowest = Math.max(slowest, performance.now() - begun);
				}, 200))`)
			}
			w.publish(2000, 1000)
			for i, tab := range tabs {
				w.judge(tab, gpolltest.Checker{NoGaps: true})
				var slowest float64
				if tab.eval(&slowest, "(clearInterval(fetching), slowest)"); slowest == 0 || slowest > 10_000 {
					t.Errorf("tab %d waited %v ms for a page", i, slowest)
				}
			}
			if n := w.attached(); n > 1 {
				t.Errorf("%d connections for eight tabs: %v", n, w.b.Stats().Attached)
			}
		})
	}
}

// When the tab that leads is closed, another one leads in less than a second, as the same client, and nothing is lost.
func TestTabsLeaderCloses(t *testing.T) {
	for _, by := range transports {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.shared = true
			tabs := w.tabs(newProfile(t), 4, by)
			var id string
			tabs[0].eval(&id, "feed.id")
			var took []time.Duration
			for len(tabs) > 1 {
				var publishing sync.WaitGroup
				publishing.Go(func() { w.publish(500, 500) })
				leads := w.leader(tabs)
				closed := time.Now()
				tabs[leads].does("close")
				tabs = without(tabs, leads)
				w.leader(tabs)
				took = append(took, time.Since(closed))
				publishing.Wait()
			}
			if t.Logf("another tab leads after %v", took); slices.Min(took) > time.Second { // the machine may be busy once
				t.Errorf("another tab leads after %v", took)
			}
			seen := w.judge(tabs[0], gpolltest.Checker{NoGaps: true})
			var now string
			if tabs[0].eval(&now, "feed.id"); now != id {
				t.Errorf("the tabs were client %s, and are %s now\n%s", id, now, states(seen))
			}
			if n := w.attached(); n > 1 {
				t.Errorf("%d connections: %v", n, w.b.Stats().Attached)
			}
		})
	}
}

// Each tab has topics of its own, speaks to the server, and sees who is present.
func TestTabsDiffer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(b *gpoll.Broadcaster) {
		b.Authorize = func(*http.Request) (gpoll.Grant, error) {
			return gpoll.Grant{Presence: func(string) bool { return true }}, nil
		}
	})
	w.shared = true
	p := newProfile(t)
	a, b := w.listen(p, map[string]any{"topics": "a"}), w.listen(p, map[string]any{"topics": "b"})
	b.eval(nil, `new Promise(done => feed.presence("room", p => p.count == 1 && done()))`+"\n"+`, feed.subscribe("room")`)
	for _, topic := range []string{"a", "b"} {
		w.until("a topic is granted", func() bool {
			// Nothing tells a page when a topic is granted: its own messages do.
			var heard bool
			if _, err := w.b.Publish(t.Context(), gpoll.Message{Topic: topic, Data: []byte("to " + topic)}); err != nil {
				t.Fatal(err)
			}
			tab := map[string]*page{"a": a, "b": b}[topic]
			tab.eval(&heard, `(window.all ??= [], all.push(...take()), all.some(s => s.topic == ARG))`, topic)
			return heard
		})
	}
	for topic, tab := range map[string]*page{"a": a, "b": b} {
		var reply string
		tab.eval(&reply, `feed.send("hi").then(() => feed.request("from " + ARG))`, topic)
		if reply != "re: from "+topic {
			t.Errorf("the application replies %q", reply)
		}
		var others []string
		tab.eval(&others, `(all.push(...take()), all.filter(s => s.topic && s.topic != ARG).map(s => s.topic))`, topic)
		if len(others) > 0 {
			t.Errorf("the tab of %s hears %v", topic, others)
		}
		var fault string
		tab.eval(&fault, `feed.publish("a", "x").catch(e => e.code)`)
		if fault != "topic-forbidden" {
			t.Errorf("a publish that nobody allows ends with %q", fault)
		}
	}
	if len(w.effects()) != 2 {
		t.Errorf("the application heard %v", w.effects())
	}
}

// Commands that are under way when the tab that leads closes take effect once.
func TestTabsCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.shared = true
	p := newProfile(t)
	tabs := []*page{w.listen(p, nil), w.listen(p, nil), w.listen(p, nil)}
	leads := w.leader(tabs)
	speaker := without(tabs, leads)[0]
	speaker.eval(nil, `(window.answers = 0, window.sending = (async () => {
		for (let i = 0; i < 300; i++) await feed.send("c" + i).then(() => answers++);
	})(), new Promise(done => setTimeout(done, 50)))`)
	tabs[leads].does("close")
	var answers int
	speaker.eval(&answers, "sending.then(() => answers)")
	if answers != 300 || len(w.effects()) != 300 {
		t.Errorf("%d answers; the application heard %d commands", answers, len(w.effects()))
	}
	for id, times := range w.effects() {
		if times != 1 {
			t.Errorf("%s took effect %d times", id, times)
		}
	}
}

// A tab that comes back from the back/forward cache hears what it missed, whether it led before or not.
func TestTabsComeBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.shared = true
	p := newProfile(t)
	tabs := []*page{w.listen(p, nil), w.listen(p, nil), w.listen(p, nil)}
	for round := range 2 {
		leads := w.leader(tabs)
		for _, i := range []int{leads, (leads + 1) % len(tabs)} {
			tabs[i].eval(nil, "window.kept = true")
			tabs[i].does("goto", w.url()+"away")
			w.publish(200, 1000)
			tabs[i].does("back")
			var kept bool
			if tabs[i].eval(&kept, "!!window.kept"); !kept {
				t.Fatalf("round %d: the browser has loaded the page anew", round)
			}
			w.publish(200, 1000)
		}
	}
	for _, tab := range tabs {
		w.judge(tab, gpolltest.Checker{NoGaps: true})
	}
	w.until("one connection is left", func() bool { return w.attached() <= 1 })
}

// A tab that leads and is frozen leaves the lead to another one.
func TestTabsLeaderFrozen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.shared = true
	p := newProfile(t)
	frozen := p.openHideable(w.url())
	w.listenOn(frozen, nil)
	seen := p.openHideable(w.url())
	w.listenOn(seen, nil)
	w.publish(300, 1000)
	frozen.cdp("Page.setWebLifecycleState", map[string]any{"state": "frozen"})
	w.publish(300, 1000)
	seen.eval(nil, leads)
	w.publish(300, 1000)
	frozen.cdp("Page.setWebLifecycleState", map[string]any{"state": "active"})
	w.publish(300, 1000)
	w.judge(seen, gpolltest.Checker{NoGaps: true})
	w.judge(frozen, gpolltest.Checker{NoGaps: true})
	if at := w.leader([]*page{frozen, seen}); at != 1 {
		t.Error("the frozen tab leads again")
	}
}

const leads = "new Promise(done => setInterval(() => feed.leads && feed.readyState == 1 && done(), 50))"

// A tab that leads and does not say anything any more loses the lead to one that is seen.
func TestTabsLeaderStuck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.shared = true
	p := newProfile(t)
	tabs := []*page{w.listen(p, nil), w.listen(p, nil)}
	stuck := tabs[w.leader(tabs)]
	other := without(tabs, w.leader(tabs))[0]
	w.publish(300, 1000)
	other.eval(nil, "reached(ARG)", w.last.String())
	var busy sync.WaitGroup
	busy.Go(func() {
		if err := stuck.try(nil, "(() => { for (const end = Date.now() + 17e3; Date.now() < end;); })()"); err != nil {
			t.Error(err)
		}
	})
	w.publish(300, 1000)
	other.eval(nil, leads)
	w.publish(300, 1000)
	other.eval(nil, "reached(ARG)", w.last.String())
	busy.Wait()
	w.publish(300, 1000)
	w.judge(other, gpolltest.Checker{NoGaps: true})
	w.judge(stuck, gpolltest.Checker{NoGaps: true})
	if at := w.leader([]*page{stuck, other}); at != 1 {
		t.Error("the stuck tab leads again")
	}
}

// A new tab gets the messages after a place, or the recent ones, before those that come.
func TestTabsBegin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.shared = true
	p := newProfile(t)
	first := w.listen(p, nil)
	var after string
	first.eval(&after, "feed.position")
	w.publish(100, 1000)
	for name, options := range map[string]map[string]any{"after": {"after": after}, "last": {"last": 100}} {
		tab := w.listen(p, options)
		w.publish(100, 1000)
		var seen []sight
		tab.eval(&seen, "reached(ARG).then(take)", w.last.String())
		var got []string
		for _, s := range seen {
			if s.Position != "" && s.Open == "" {
				got = append(got, s.Data)
			}
		}
		var want []string
		for i := range w.count {
			if i >= w.count-200 || name == "after" {
				want = append(want, fmt.Sprint("n", i+1))
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("with %s the tab got %d messages: %.100s", name, len(got), strings.Join(got, " "))
		}
	}
}

// A new log of the server is told to each tab once, also when the tab that leads closes at that moment.
func TestTabsKilled(t *testing.T) {
	for _, by := range transports {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.shared = true
			tabs := w.tabs(newProfile(t), 4, by)
			w.publish(300, 1000)
			for range 2 {
				leads := w.leader(tabs)
				w.kill()
				tabs[leads].does("close")
				tabs = without(tabs, leads)
				w.begin()
				w.publish(300, 1000)
			}
			for i, tab := range tabs {
				gaps := 0
				for _, s := range w.judge(tab, gpolltest.Checker{}) {
					if s.Gap != nil {
						gaps++
					}
				}
				if gaps != 2 {
					t.Errorf("tab %d was told of %d gaps, of 2 new logs", i, gaps)
				}
			}
		})
	}
}
