package gpolltest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// TestQuietTopic lets more than a hundred windows of other messages pass beside a topic that is quiet. Its clients, who
// are cut off and come back all the time, adopt the scanned Positions and so must see no gap.
func TestQuietTopic(t *testing.T) {
	const (
		window = 64
		rate   = 10 // messages a second: six heartbeats or polls pass in a window
		total  = 110 * window
	)
	inWorld(t, func(b *gpoll.Broadcaster) {
		b.History.Count = window
		b.Heartbeat = time.Second
		b.PollWait = time.Second
	}, func(w *world) {
		by := []Transport{LongPoll, LongPollPlain, SSE, SSEPlain, WebSocket}
		for _, t := range by {
			w.session(t, "quiet")
		}
		w.publish(gpoll.Message{Topic: "quiet"}) // it leaves the window: that alone is no loss
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var listening sync.WaitGroup
		for i, s := range w.sessions {
			listening.Go(func() {
				for turn := i; ; turn++ {
					again := time.Now().Add(20 * time.Second)
					for time.Now().Before(again) {
						if _, err := s.Receive(ctx); err != nil {
							if ctx.Err() == nil {
								w.Errorf("%v: %v", by[turn%len(by)], err)
							}
							return
						}
					}
					if turn%2 == 0 {
						s.Cut()
					}
					w.attach(s, by[(turn+1)%len(by)])
				}
			})
		}
		tick := time.NewTicker(time.Second / rate)
		for range total {
			<-tick.C
			w.publish(gpoll.Message{Topic: "busy"})
		}
		tick.Stop()
		last := w.publish(gpoll.Message{Topic: "quiet"})
		<-time.After(3 * time.Second)
		cancel()
		listening.Wait()
		for _, s := range w.sessions {
			if c := s.Cursor(); c.Epoch != last.Epoch || c.Seq < last.Seq {
				w.Errorf("a cursor is at %v, the last message is %v", c, last)
			}
		}
		w.verdict(Checker{NoGaps: true})
	})
}
