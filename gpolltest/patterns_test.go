package gpolltest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// Clients of every transport have patterns, which overlap with one another and with topics, and change them while they
// come and go. Each gets every message that it is owed once, or a gap for those that have left the window of their
// topic.
func TestPatterns(t *testing.T) {
	const seed = 5
	rnd := rand.New(rand.NewPCG(seed, seed))
	configure := func(b *gpoll.Broadcaster) {
		smallWindow(b)
		b.History.Count, b.Wildcards, b.RoutineMaxClients = 15, true, 4
		b.TopicLimits = func(topic string) gpoll.Limits {
			return map[string]gpoll.Limits{"s.tick": {Count: 1}, "s.few.x": {Count: 3}, "old": {Age: 3 * time.Second}}[topic]
		}
	}
	topics := []string{"", "s", "s.a", "s.b", "s.tick", "s.few.x", "s.few.y", "old", "other.a"}
	patterns := []string{"s.*", "s.>", "*.a", ">", "s.few.*", "*", "s.a", "s.tick", "other.*.*"}
	inWorld(t, configure, func(w *world) {
		by := map[*Session]Transport{}
		for i, transport := range transports {
			by[w.session(transport, patterns[i%len(patterns)], patterns[(i+3)%len(patterns)])] = transport
		}
		turn := 0
		for range 200 {
			var last gpoll.Position
			burst := func(n int) {
				for range n {
					w.publish(gpoll.Message{Topic: topics[rnd.IntN(len(topics))]})
				}
				last = w.broadcasts(1)
			}
			switch rnd.IntN(4) {
			case 0, 1:
				wait := w.each(func(s *Session) {
					ctx, cancel := w.patience()
					defer cancel()
					s.Receive(ctx)
				})
				burst(rnd.IntN(10))
				wait()
			case 2:
				change := w.subscribe
				if rnd.IntN(2) == 0 {
					change = w.unsubscribe
				}
				change(patterns[rnd.IntN(len(patterns))])
				for _, s := range w.sessions { // for SSE, where the topics are those of the request
					w.attach(s, by[s])
				}
				burst(rnd.IntN(10))
			default:
				for _, s := range w.sessions {
					s.Cut()
				}
				burst(rnd.IntN(25))
				time.Sleep(time.Duration(rnd.IntN(4)) * time.Second)
				turn++
				for i, s := range w.sessions {
					by[s] = transports[(i+turn)%len(transports)]
					w.attach(s, by[s])
				}
			}
			w.await(by, last)
		}
		w.verdict(Checker{})
	})
}
