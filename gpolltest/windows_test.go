package gpolltest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// Some topics have windows of their own, and bursts are published that those windows do not hold. Clients of these
// topics come and go. Each gets the messages that are left, and a gap for the rest.
func TestTopicWindows(t *testing.T) {
	const seed = 3
	rnd := rand.New(rand.NewPCG(seed, seed))
	configure := func(b *gpoll.Broadcaster) {
		smallWindow(b)
		b.History.Count = 12
		b.TopicLimits = func(topic string) gpoll.Limits {
			return map[string]gpoll.Limits{"tick": {Count: 1}, "few": {Count: 3}, "old": {Age: 3 * time.Second}}[topic]
		}
	}
	inWorld(t, configure, func(w *world) {
		by := map[*Session]Transport{}
		for _, transport := range transports {
			by[w.session(transport, "tick", "few", "old")] = transport
		}
		for range 150 {
			var last gpoll.Position
			burst := func(n int) {
				for range n {
					w.publish(gpoll.Message{Topic: []string{"", "", "tick", "tick", "few", "old", "other"}[rnd.IntN(7)]})
				}
				last = w.broadcasts(1)
			}
			if rnd.IntN(2) == 0 {
				wait := w.each(func(s *Session) {
					ctx, cancel := w.patience()
					defer cancel()
					s.Receive(ctx)
				})
				burst(rnd.IntN(10))
				wait()
			} else {
				for _, s := range w.sessions {
					s.Cut()
				}
				burst(rnd.IntN(25))
				time.Sleep(time.Duration(rnd.IntN(4)) * time.Second)
				for _, s := range w.sessions {
					w.attach(s, by[s])
				}
			}
			w.await(by, last)
		}
		w.verdict(Checker{})
	})
}
