package browser

import (
	"testing"

	"github.com/corvuscrypto/gpoll/gpolltest"
)

// Each transport alone brings everything once and in order.
func TestEachTransport(t *testing.T) {
	for _, by := range []string{"websocket", "sse", "long-poll"} {
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
			if len(w.heard) != 1 {
				t.Errorf("the application heard %v", w.heard)
			}
		})
	}
}
