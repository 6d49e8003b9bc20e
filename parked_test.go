package gpoll_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// The ways in which a poll asks.
var pollForms = []string{"plain", "JSON", "without a cursor"}

// as makes w poll in a form.
func (w *wire) as(form string) *wire {
	w.json = form == "JSON"
	return w
}

// armedAs is armed, in a form.
func (s *server) armedAs(t testing.TB, form string) *wire {
	t.Helper()
	w := s.wire(t).as(form)
	w.register()
	if form == "without a cursor" {
		w.at = ""
	}
	w.arm()
	return w
}

// payloads are the data of what an answer carries, and its gaps as the Gpoll-Gap header spells them.
func (w *wire) payloads(a answer) (all []string) {
	w.t.Helper()
	if a.status == http.StatusNoContent {
		return append(all, a.header["Gpoll-Gap"]...)
	}
	if !w.json {
		if a.status != http.StatusOK {
			w.t.Fatalf("%d %s", a.status, a.body)
		}
		return append(append(all, a.header["Gpoll-Gap"]...), a.body)
	}
	for _, e := range a.batch(w.t).Messages {
		if e.Gap != nil {
			all = append(all, e.Gap.From+".."+e.Gap.To+";"+e.Gap.Reason)
		} else {
			all = append(all, e.payload(w.t))
		}
	}
	return all
}

// Nor do several rounds.
func TestParkedInUseForRounds(t *testing.T) {
	for _, form := range pollForms {
		inBubble(t, form, func(t *testing.T) {
			s := start(t, listening(nil))
			w := s.armedAs(t, form)
			w.poll()
			synctest.Wait()
			letGo := s.HoldConnections()
			want := []string{"a", "b", "c"}
			for _, m := range want {
				s.Send(m)
				s.AwaitRounds()
			}
			letGo()
			var got []string
			for len(got) < len(want) {
				more := w.payloads(w.answer())
				if len(more) == 0 {
					t.Fatalf("got %q and then an answer without a message at %s", got, w.at)
				}
				if got = append(got, more...); len(got) < len(want) {
					w.poll()
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A round that finds the connection of a parked poll in use skips nothing, whatever the round has for the poll.
func TestParkedInUse(t *testing.T) {
	const first = "0000000000000001-"
	for _, form := range pollForms {
		for _, tt := range []struct {
			name string
			news func(*scriptedBroker)
			want []string
		}{
			{"a message", func(b *scriptedBroker) { b.at(1, 102) }, []string{"1-102"}},
			{"two", func(b *scriptedBroker) { b.at(1, 102); b.at(1, 103) }, []string{"1-102", "1-103"}},
			{"a gap of the broker", func(b *scriptedBroker) { b.at(1, 105) },
				[]string{first + "102.." + first + "104;broker", "1-105"}},
			{"a new epoch", func(b *scriptedBroker) { b.at(2, 1) }, []string{first + "102.." + first + "0;epoch", "2-1"}},
		} {
			inBubble(t, form+", "+tt.name, func(t *testing.T) {
				broker := &scriptedBroker{before: gpoll.Position{Epoch: 1, Seq: 100}}
				s := start(t, listening(func(b *gpoll.Broadcaster) { b.Broker = broker }))
				w := s.wire(t).as(form)
				w.register()
				if form == "without a cursor" {
					w.at = ""
				}
				w.poll()
				synctest.Wait()
				broker.at(1, 101)
				w.answer()
				before := s.Stats().Repeats
				w.poll()
				synctest.Wait()
				if s.Stats().Repeats != before+1 {
					t.Fatal("no repeat")
				}
				letGo := s.HoldConnections()
				tt.news(broker)
				s.AwaitRounds() // they have passed the poll
				letGo()

				began := time.Now()
				var got []string
				for len(got) < len(tt.want) {
					more := w.payloads(w.answer())
					if len(more) == 0 {
						t.Fatalf("an answer after %v says that there was nothing up to %s", time.Since(began), w.at)
					}
					if got = append(got, more...); len(got) < len(tt.want) {
						w.poll()
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if d := time.Since(began); d > 0 {
					t.Errorf("it took %v", d)
				}
				if n, want := s.Stats().Delivered, uint64(1+messages(tt.want)); n != want {
					t.Errorf("%d delivered, want %d", n, want)
				}
			})
		}
	}
}

// messages counts what is no gap.
func messages(items []string) (n int) {
	for _, it := range items {
		if !strings.Contains(it, ";") {
			n++
		}
	}
	return n
}

// A poll whose time is over while its connection is in use hears so afterwards.
func TestParkedInUseAtItsEnd(t *testing.T) {
	for _, form := range pollForms {
		inBubble(t, form, func(t *testing.T) {
			s := start(t, listening(func(b *gpoll.Broadcaster) { b.PollWait = time.Second }))
			w := s.armedAs(t, form)
			w.parked()
			letGo := s.HoldConnections()
			advance(10 * time.Second)
			letGo()
			began := time.Now()
			if got := w.payloads(w.answer()); len(got) > 0 {
				t.Errorf("got %q, want nothing", got)
			}
			if d := time.Since(began); d > time.Second {
				t.Errorf("it took %v", d)
			}
			s.Send("next")
			w.poll()
			if got := w.payloads(w.answer()); fmt.Sprint(got) != "[next]" {
				t.Errorf("got %q, want next", got)
			}
		})
	}
}

// Whatever ends a poll that a round had to leave because its connection was in use is what the client hears, once.
func TestParkedInUseAndEnded(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(s *server, w *wire)
		want int
	}{
		{"removed", func(s *server, w *wire) { s.RemoveClient(w.id) }, 404},
		{"superseded", func(s *server, w *wire) {
			if _, err := s.GetChannel(bare(w.id)); err != nil {
				w.t.Fatal(err)
			}
		}, 409},
		{"shutdown", func(s *server, w *wire) { go s.Shutdown(context.Background()) }, 503},
	} {
		inBubble(t, tt.name, func(t *testing.T) {
			s := start(t, listening(nil))
			w := s.armed(t)
			w.parked()
			send := s.witness(t)
			letGo := s.HoldConnections()
			send("missed")
			tt.end(s, w)
			letGo()
			synctest.Wait()
			// The end and the message met: either is right, but the message comes whole, and nothing follows.
			if a := w.answer(); a.status != tt.want && (a.status != 200 || a.body != "missed") {
				t.Errorf("%d %s", a.status, a.body)
			}
			w.get("/nothing")
			if a := w.answer(); a.status != 404 || a.header.Get("Gpoll-Error") != "" {
				t.Errorf("after that: %d %s", a.status, a.body)
			}
		})
	}
}

// bare splits a client id for GetChannel.
func bare(id string) (cid string, rid int) {
	routine, cid, _ := strings.Cut(id, "$")
	_, _ = fmt.Sscan(routine, &rid)
	return cid, rid
}

// The client sends more, or goes, while a round has left its poll: the poll is taken back as ever.
func TestParkedInUseAndTakenBack(t *testing.T) {
	for _, form := range pollForms {
		inBubble(t, form, func(t *testing.T) {
			s := start(t, listening(nil))
			w := s.armedAs(t, form)
			w.parked()
			send := s.witness(t)
			letGo := s.HoldConnections()
			send("missed")
			io.WriteString(w.conn, "GET /nothing HTTP/1.1\r\nHost: gpoll.test\r\n\r\n")
			letGo()
			if got := w.payloads(w.answer()); fmt.Sprint(got) != "[missed]" {
				t.Errorf("got %q, want missed", got)
			}
			if a := w.answer(); a.status != 404 {
				t.Errorf("what follows: %d", a.status)
			}
			w.parked()
			letGo = s.HoldConnections()
			send("missed too")
			w.conn.Close()
			letGo()
			synctest.Wait()
			back := s.wire(t).as(form)
			back.id, back.at = w.id, w.at
			back.poll()
			if got := back.payloads(back.answer()); fmt.Sprint(got) != "[missed too]" {
				t.Errorf("got %q, want what was missed", got)
			}
		})
	}
}
