package gpolltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// TestSessionPayloads sends what is hard to carry by every transport.
func TestSessionPayloads(t *testing.T) {
	payloads := []string{"", "plain", "two\nlines\n", "\n", "carriage\rreturn\r\n", " leading space", "ünïcödé 🎈",
		"\x00\xff\xfe binary",
		`{"id":"x","gap":{}}`, "data: x\n\nevent: end\n\n", "\u2028</script>", strings.Repeat("long ", 10_000)}
	inWorld(t, nil, func(w *world) {
		for _, t := range transports {
			w.session(t, "news")
		}
		for i, data := range payloads {
			m := gpoll.Message{Data: []byte(data), Topic: []string{"", "news"}[i%2]}
			if _, err := w.Publish(context.Background(), w.b, m); err != nil {
				w.Fatal(err)
			}
		}
		for i, s := range w.sessions {
			var got []gpoll.Message
			ctx, cancel := w.patience()
			for len(got) < len(payloads) {
				some, err := s.Receive(ctx)
				if err != nil {
					w.Fatalf("%v: %v", transports[i], err)
				}
				got = append(got, some...)
			}
			cancel()
			for n, m := range got {
				if !bytes.Equal(m.Data, []byte(payloads[n])) {
					w.Errorf("%v: message %d is %.40q, should be %.40q", transports[i], n, m.Data, payloads[n])
				}
				if plain := transports[i]%2 == 1; !plain && m.Topic != []string{"", "news"}[n%2] {
					w.Errorf("%v: message %d has topic %q", transports[i], n, m.Topic)
				}
			}
		}
		w.verdict(Checker{NoGaps: true})
	})
}

// TestSessionSwitches carries one client from every transport to every other.
func TestSessionSwitches(t *testing.T) {
	for _, live := range []bool{false, true} {
		t.Run(fmt.Sprintf("live=%v", live), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				s := w.session(LongPoll, "news")
				id := s.ClientID()
				for _, from := range transports {
					for _, to := range transports {
						w.attach(s, from)
						w.await(map[*Session]Transport{s: from}, w.publish(gpoll.Message{Topic: "news"}))
						if !live {
							s.Cut()
						}
						last := w.broadcasts(2)
						w.attach(s, to)
						w.await(map[*Session]Transport{s: to}, last)
					}
				}
				if s.ClientID() != id || s.Repeats() != 0 {
					w.Errorf("the id was %s and is %s; %d repeats", id, s.ClientID(), s.Repeats())
				}
				w.verdict(Checker{NoGaps: true})
			})
		})
	}
}

// TestSessionLosesAnswers throws an answer away by every transport: it comes again.
func TestSessionLosesAnswers(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for _, t := range transports {
			// A plain WebSocket promises nothing to a client that never had a Position.
			w.attach(w.session(LongPoll), t)
		}
		last := w.broadcasts(1)
		for i, s := range w.sessions {
			ctx, cancel := w.patience()
			if err := s.Lose(ctx); err != nil {
				w.Errorf("%v: %v", transports[i], err)
			}
			if s.Cursor() == last {
				w.Errorf("%v: the lost answer moved the cursor", transports[i])
			}
			if _, err := s.Receive(ctx); !errors.Is(err, ErrCut) {
				w.Errorf("%v: Receive after Lose: %v", transports[i], err)
			}
			w.attach(s, transports[i])
			if err := s.Await(ctx, last); err != nil {
				w.Errorf("%v: %v", transports[i], err)
			}
			cancel()
		}
		w.verdict(Checker{NoGaps: true})
	})
}

func TestSessionEnds(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for _, transport := range transports {
			s := w.session(transport)

			// Cut, from elsewhere, while it waits.
			errs := make(chan error)
			go func() { // ends with Receive
				_, err := s.Receive(context.Background())
				errs <- err
			}()
			synctest.Wait()
			s.Cut()
			if err := <-errs; !errors.Is(err, ErrCut) {
				w.Errorf("%v: Receive while cut: %v", transport, err)
			}

			// The caller's patience.
			w.attach(s, transport)
			ctx, cancel := context.WithTimeoutCause(context.Background(), time.Second, errPatience)
			if _, err := s.Receive(ctx); !errors.Is(err, errPatience) {
				w.Errorf("%v: Receive at the end of its context: %v", transport, err)
			}
			cancel()

			// Removed by the server: the next Attach registers.
			w.attach(s, transport)
			id := s.ClientID()
			w.b.RemoveClient(id)
			_, err := s.Receive(context.Background())
			e, ok := errors.AsType[*ServerError](err)
			if want := []string{"unknown-client", "removed"}; !ok || !slices.Contains(want, e.Code) {
				w.Errorf("%v: Receive of a removed client: %v", transport, err)
			}
			w.attach(s, transport)
			if transport == LongPoll || transport == LongPollPlain {
				if s.ClientID() == id || s.ClientID() == "" {
					w.Errorf("%v: the id is still %s", transport, id)
				}
			}
		}
	})
}

var errPatience = errors.New("no patience")

// TestSessionManyTopics subscribes to so many topics that the request goes by POST.
func TestSessionManyTopics(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		var topics []string
		for i := range 100 {
			topics = append(topics, fmt.Sprintf("a-rather-long-name-for-a-topic/%d", i))
		}
		by := map[*Session]Transport{}
		for _, t := range []Transport{LongPoll, LongPollPlain, SSE, SSEPlain, WebSocket} {
			by[w.session(t, topics...)] = t
		}
		w.await(by, w.publish(gpoll.Message{Topic: topics[99]}))
		for _, s := range w.sessions {
			w.attach(s, by[s])
		}
		w.await(by, w.publish(gpoll.Message{Topic: topics[0]}))
		w.verdict(Checker{NoGaps: true})
	})
}

func TestSessionSubscribes(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		by := map[*Session]Transport{}
		for _, t := range transports[:5] { // a plain WebSocket shows no Positions
			by[w.session(t)] = t
		}
		for range 3 {
			w.subscribe("a", "b")
			for s, t := range by {
				if t == SSE || t == SSEPlain {
					w.attach(s, t)
				}
			}
			w.publish(gpoll.Message{Topic: "a"})
			w.await(by, w.publish(gpoll.Message{Topic: "b"}))
			w.unsubscribe("a")
			for s, t := range by {
				if t == SSE || t == SSEPlain {
					w.attach(s, t)
				}
			}
			w.publish(gpoll.Message{Topic: "a"})
			w.await(by, w.publish(gpoll.Message{Topic: "b"}))
			w.unsubscribe("b")
		}

		// On SSE a change waits for the next Attach, however far the cursor has come meanwhile.
		sse := w.session(SSE)
		by[sse] = SSE
		ctx, cancel := w.patience()
		defer cancel()
		if err := sse.Subscribe(ctx, "a"); err != nil {
			w.Error(err)
		}
		w.publish(gpoll.Message{Topic: "a"})
		if err := sse.Await(ctx, w.publish(gpoll.Message{Topic: "others"})); err != nil {
			w.Error(err)
		}
		w.publish(gpoll.Message{Topic: "a"})
		w.attach(sse, SSE)
		w.await(by, w.broadcasts(1))
		w.verdict(Checker{NoGaps: true})

		// What the server refuses leaves a WebSocket up.
		s := w.session(WebSocket)
		err := s.Subscribe(ctx, "no spaces")
		if e, ok := errors.AsType[*ServerError](err); !ok || e.Code != "bad-topic" || e.Status != 0 {
			w.Errorf("Subscribe to a bad topic: %v", err)
		}
		if err := s.Await(ctx, w.broadcasts(1)); err != nil {
			w.Error(err)
		}
	})
}

// TestSessionFuture brings a cursor that the log has not reached: reading goes on from the log's end.
func TestSessionFuture(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for _, transport := range transports[:5] { // a plain WebSocket cannot say where it goes on
			s := w.session(transport)
			s.Trace = nil // a cursor from nowhere is nothing to account for
			s.Cut()
			s.cursor = gpoll.Position{Epoch: w.broadcasts(1).Epoch, Seq: 1 << 40}
			w.attach(s, transport)
			ctx, cancel := w.patience()
			for s.Cursor().IsZero() || s.Cursor().Seq == 1<<40 {
				if _, err := s.Receive(ctx); err != nil {
					w.Fatalf("%v: %v", transport, err)
				}
			}
			if err := s.Await(ctx, w.broadcasts(1)); err != nil {
				w.Errorf("%v: %v", transport, err)
			}
			cancel()
			s.Cut()
		}
	})
}

func TestParseGap(t *testing.T) {
	for s, want := range map[string]gpoll.Gap{
		"00000000000000a1-3..00000000000000a1-7;evicted": {Epoch: e1, From: 3, To: 7, Reason: "evicted"},
		"00000000000000a1-3..00000000000000a1-0;epoch":   {Epoch: e1, From: 3, Reason: "epoch"},
		"..;future": {Reason: "future"},
	} {
		got, err := parseGap(s)
		if err != nil || *got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
		if back := want.String(); back != s {
			t.Errorf("%v is written %q", want, back)
		}
	}
	for _, s := range []string{"", "x", "..;evicted", "00000000000000a1-3..00000000000000b2-7;evicted",
		"00000000000000a1-3..00000000000000a1-7", "shutdown;retry_ms=10"} {
		if g, err := parseGap(s); err == nil {
			t.Errorf("%q is a gap: %v", s, g)
		}
	}
}
