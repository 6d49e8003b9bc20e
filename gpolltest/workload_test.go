package gpolltest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// smallWindow keeps 8 messages and answers a waiting poll after a second or two.
func smallWindow(b *gpoll.Broadcaster) {
	b.History = gpoll.Limits{Count: 8}
	b.Heartbeat = time.Second
	b.PollWait = 2 * time.Second
}

// TestPlantedWorkload is a short script that shows each of the planted bugs. TestPlantedBugs runs it once with each
// bug. Here no bug is planted, and the checker must find nothing.
func TestPlantedWorkload(t *testing.T) {
	t.Run("steady", func(t *testing.T) { inWorld(t, smallWindow, steady) })
	t.Run("faults", func(t *testing.T) { inWorld(t, smallWindow, faults) })
}

// steady sends every kind of message in bursts to clients that keep up, by each transport. Its run has no fault, so it
// has no gaps.
func steady(w *world) {
	by := map[*Session]Transport{}
	for i, t := range transports {
		by[w.session(t, [][]string{{"a"}, {"b"}, {"a", "c"}}[i%3]...)] = t
	}
	last := w.broadcasts(1)
	w.await(by, last)
	for range 80 {
		// Of each five messages the first wakes the clients that wait, and the others may come as one batch.
		wait := w.each(func(s *Session) {
			ctx, cancel := w.patience()
			defer cancel()
			s.Receive(ctx)
		})
		some, other := w.sessions[w.n%len(w.sessions)].PublicID(), w.sessions[(w.n+1)%len(w.sessions)].PublicID()
		w.publish(gpoll.Message{Topic: "a"})
		w.publish(gpoll.Message{Topic: "bc"[w.n%2 : w.n%2+1]})
		w.publish(gpoll.Message{To: gpoll.ToClient(some)})
		w.publish(gpoll.Message{Topic: "a", Except: []string{some, other}})
		last := w.publish(gpoll.Message{})
		wait()
		w.await(by, last)
	}
	w.verdict(Checker{NoGaps: true})
}

// faults breaks connections, stays away for longer than the window, restarts the server and changes subscriptions while
// it publishes. Every client goes through all transports on the way.
func faults(w *world) {
	by := map[*Session]Transport{}
	for _, t := range transports {
		by[w.session(t, "a")] = t
	}
	turn := 0
	// again attaches every client by the transport after its present one.
	again := func() {
		turn++
		for i, s := range w.sessions {
			by[s] = transports[(i+turn)%len(transports)]
			w.attach(s, by[s])
		}
	}
	cut := func() {
		for _, s := range w.sessions {
			s.Cut()
		}
	}
	// restart changes the server while nobody is attached, and lets it publish before they come back.
	restart := func(before int) {
		cut()
		w.restart()
		w.broadcasts(before)
		again()
	}
	w.await(by, w.broadcasts(3))

	for range transports {
		// An answer that the server sent and the application never got.
		wait := w.each(func(s *Session) {
			ctx, cancel := w.patience()
			defer cancel()
			if err := s.Lose(ctx); err != nil {
				w.Errorf("Lose by %v: %v", by[s], err)
			}
		})
		last := w.broadcasts(2)
		wait()
		again()
		w.await(by, last)

		// Away, inside the window.
		cut()
		last = w.broadcasts(3)
		again()
		w.await(by, last)

		// Away for longer than the window, that of everybody and that of a topic.
		cut()
		last = w.broadcasts(12)
		again()
		w.await(by, last)
		cut()
		for i := range 12 {
			w.publish(gpoll.Message{Topic: "ab"[i%2 : i%2+1]})
		}
		last = w.broadcasts(1)
		again()
		w.await(by, last)

		// A topic that is new is owed from the cursor on, and on an attached WebSocket from the answer on.
		cut()
		w.publish(gpoll.Message{Topic: "b"})
		w.publish(gpoll.Message{Topic: "a"})
		w.publish(gpoll.Message{Topic: "b"})
		w.subscribe("b")
		again()
		last = w.broadcasts(1)
		w.await(by, last)
		w.subscribe("c")
		w.publish(gpoll.Message{Topic: "c"})
		w.publish(gpoll.Message{Topic: "c"})
		last = w.broadcasts(1)
		again() // for SSE, where the topics are those of the request
		w.await(by, last)
		w.unsubscribe("b", "c")
		again()
		w.publish(gpoll.Message{Topic: "b"})
		last = w.broadcasts(1)
		w.await(by, last)

		// While somebody publishes.
		published := make(chan gpoll.Position)
		go func() { // ends with the last publish
			var last gpoll.Position
			for range 30 {
				last = w.publish(gpoll.Message{Topic: "d"})
			}
			published <- last
		}()
		w.subscribe("d")
		<-published
		w.unsubscribe("d")
		w.await(by, w.broadcasts(1))

		// A restart: before anything is published, behind a few messages, and behind more than the window holds.
		restart(0)
		w.await(by, w.broadcasts(3))
		restart(3)
		w.await(by, w.broadcasts(1))
		restart(12)
		w.await(by, w.broadcasts(1))
	}
	w.verdict(Checker{Window: 8})
}

func (w *world) subscribe(topics ...string) {
	w.Helper()
	w.change((*Session).Subscribe, topics)
}

func (w *world) unsubscribe(topics ...string) {
	w.Helper()
	w.change((*Session).Unsubscribe, topics)
}

func (w *world) change(how func(*Session, context.Context, ...string) error, topics []string) {
	w.Helper()
	w.each(func(s *Session) {
		ctx, cancel := w.patience()
		defer cancel()
		err := how(s, ctx, topics...)
		if e, ok := errors.AsType[*ServerError](err); err != nil && (!ok || e.Code != "gap") {
			w.Errorf("subscription to %v: %v", topics, err)
		}
	})()
}
