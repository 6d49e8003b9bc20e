package browser

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// 20,000 messages a second of 128 bytes reach one page in order, and its memory stays flat. By each transport it is
// 20,000 messages. With GPOLL_BROWSER=long, on a machine that does nothing else, it is a million, and no task is a long
// one, of more than 50 ms.
func TestThroughput(t *testing.T) {
	const rate, size = 20_000, 128
	long := os.Getenv("GPOLL_BROWSER") == "long"
	n := 20_000
	if long {
		n = 1_000_000
	}
	for _, by := range transports {
		t.Run(by, func(t *testing.T) { // one at a time
			w := newWorld(t, nil)
			tab := newProfile(t).openHideable(w.url()) // for Playwright's own pages the browser reports each frame to it
			tab.eval(nil, `(async () => {
				window.heard = window.bad = 0;
				window.long = [];
				new PerformanceObserver(list => long.push(...list.getEntries().map(e => e.duration))).observe({ type: "longtask" });
				window.feed = new client.GpollSource("./poll", { topics: "news", transports: [ARG] });
				feed.onmessage = e => {
					if (+e.data.slice(0, 8) != ++heard) bad++;
					if (heard == window.wanted) reached();
				};
				feed.ongap = () => bad++;
				await new Promise(open => feed.onopen = open);
			})()`, by)
			padding := strings.Repeat("x", size-8)
			published := 0
			var took time.Duration
			run := func(until int) (heap float64) {
				tab.eval(nil, "(window.wanted = ARG, window.all = new Promise(done => window.reached = done), 1)", until)
				begun := time.Now()
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for first := published; published < until; <-tick.C {
					due := first + int(time.Since(begun).Seconds()*rate)
					for ; published < min(due, until); published++ {
						m := gpoll.Message{Topic: "news", Data: fmt.Appendf(nil, "%08d%s", published+1, padding)}
						if _, err := w.b.Publish(t.Context(), m); err != nil {
							t.Fatal(err)
						}
					}
				}
				tab.eval(&heap, "all.then(() => { gc(); gc(); return performance.memory.usedJSHeapSize; })")
				took += time.Since(begun)
				return heap
			}
			before := run(n / 4)
			after := run(n)
			var bad int
			var tasks []float64
			tab.eval(&bad, "bad")
			tab.eval(&tasks, "long")
			perSecond := float64(n) / took.Seconds()
			t.Logf("%.0f messages a second, tasks of %v ms, %.0f bytes of heap before and %.0f more after",
				perSecond, tasks, before, after-before)
			if bad > 0 {
				t.Errorf("%d messages out of order or missing", bad)
			}
			if long && perSecond < 0.9*rate {
				t.Errorf("only %.0f messages a second", perSecond)
			}
			if long && len(tasks) > 0 {
				t.Errorf("long tasks of %v ms", tasks)
			}
			if after-before > 1<<20 {
				t.Errorf("the heap grows from %.0f to %.0f bytes", before, after)
			}
		})
	}
}
