package gpoll_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// A topic that nobody had named, with a message in the log already, is answered at once and not at the next look round.
func TestFirstNamedTopic(t *testing.T) {
	for name, ask := range map[string]func(t *testing.T, s *server, id, after string) string{
		"poll": func(t *testing.T, s *server, id, after string) string {
			return s.get(t, "/poll"+query("client-id", id, "after", after, "topic", "new")).body
		},
		"json poll": func(t *testing.T, s *server, id, after string) string {
			a := s.get(t, "/poll"+query("client-id", id, "after", after, "topic", "new", "format", "json"))
			return strings.Join(a.batch(t).payloads(t), ",")
		},
		"poll without a cursor": func(t *testing.T, s *server, id, _ string) string {
			return s.get(t, "/poll"+query("client-id", id, "topic", "new")).body
		},
		"sse": func(t *testing.T, s *server, id, after string) string {
			e := s.events(t, "/poll/events"+query("client-id", id, "after", after, "topic", "new"))
			e.next(t)
			return e.next(t).data
		},
		"websocket": func(t *testing.T, s *server, id, after string) string {
			c := s.socket(t, "/poll/ws"+query("client-id", id, "after", after, "topic", "new"), "")
			frame(t, c)
			return frame(t, c)
		},
		"gpoll.v1": func(t *testing.T, s *server, id, after string) string {
			c := s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q,"after":%q,"topics":["new"]}}`, id, after))
			frame(t, c)
			return elementOf(t, frame(t, c)).Data
		},
	} {
		inBubble(t, name, func(t *testing.T) {
			s := start(t, setup{memory: true})
			id, after := s.register(t)
			s.mustPublish(t, "new", "there already")
			began := time.Now()
			if got := ask(t, s, id, after); got != "there already" {
				t.Errorf("got %q", got)
			}
			if d := time.Since(began); d != 0 {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// Of two requests with one client id, the one that arrived later wins, even if the other takes longer on its way to the
// client.
func TestLaterRequestWins(t *testing.T) {
	for _, by := range gets {
		inBubble(t, by.name, func(t *testing.T) {
			hold := make(chan struct{})
			s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
				b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
					if r.Header.Get("Slow") != "" {
						<-hold
					}
					return gpoll.Grant{}, nil
				}
			}})
			id, after := s.register(t)
			slow := s.raw(t)
			io.WriteString(slow, rawGet(by.path+query("client-id", id, "after", after),
				append([]string{"Slow", "yes"}, by.header...))+"\r\n")
			synctest.Wait()
			later := s.later(t, "/poll"+query("client-id", id, "after", after))
			synctest.Wait()
			close(hold)
			status, body := answerOrEnd(t, bufio.NewReader(slow))
			if !strings.Contains(status+body, "superseded") && !strings.Contains(status, "409") {
				t.Errorf("the earlier one: %q %q, want superseded", status, body)
			}
			s.Send("m")
			if a := <-later; a.body != "m" {
				t.Errorf("the later one: %d %s", a.status, a.body)
			}
		})
	}
}

// answerOrEnd reads a response, and if that is a stream, what follows until it ends.
func answerOrEnd(t *testing.T, in *bufio.Reader) (status, text string) {
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := io.Reader(res.Body)
	if res.StatusCode == http.StatusSwitchingProtocols {
		body = in
	}
	all, _ := io.ReadAll(body) // a stream may end in any way
	return res.Status, string(all)
}

// A poll whose sender has closed its sending side is answered, not refused, even while an older poll waits. The answer
// has the messages that are there, or none. The older poll goes on, because the newer one may be a poll that was given
// up.
func TestHalfClosedNewerPoll(t *testing.T) {
	for _, form := range []string{"plain", "json"} {
		for _, there := range []bool{false, true} {
			inBubble(t, fmt.Sprintf("%s, a message %v", form, there), func(t *testing.T) {
				s := start(t, setup{memory: true})
				id, after := s.register(t)
				older := s.later(t, "/poll"+query("client-id", id, "after", after, "topic", "other"))
				synctest.Wait()
				if there {
					s.mustPublish(t, "mine", "m")
				}
				conn := s.raw(t)
				path := "/poll" + query("client-id", id, "after", after, "topic", "mine", "format", form)
				io.WriteString(conn, rawGet(path, nil)+"\r\n")
				conn.(interface{ CloseWrite() error }).CloseWrite()
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				want := http.StatusOK
				if form == "plain" && !there {
					want = http.StatusNoContent
				}
				if res.StatusCode != want || strings.Contains(string(text), `m`) != (there || form == "json") ||
					res.Header.Get("Gpoll-Position") == "" {
					t.Errorf("%s %s", res.Status, text)
				}
				if there && form == "json" && !strings.Contains(string(text), `"data":"m"`) {
					t.Errorf("%s", text)
				}
				s.mustPublish(t, "other", "for the older")
				if a := <-older; a.body != "for the older" {
					t.Errorf("the older: %d %s", a.status, a.body)
				}
			})
		}
	}
}

// So is SSE: with its head, the client's id and what is there. A WebSocket needs both directions, and says so.
func TestHalfClosedNewerStream(t *testing.T) {
	ask := func(t *testing.T, path string, header []string) (s *server, older <-chan answer, status int, text string) {
		s = start(t, setup{memory: true})
		id, after := s.register(t)
		older = s.later(t, "/poll"+query("client-id", id, "after", after, "topic", "other"))
		synctest.Wait()
		s.mustPublish(t, "mine", "m")
		conn := s.raw(t)
		io.WriteString(conn, rawGet(path+query("client-id", id, "after", after, "topic", "mine"), header)+"\r\n")
		conn.(interface{ CloseWrite() error }).CloseWrite()
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return s, older, res.StatusCode, strings.ReplaceAll(string(body), id, "ID")
	}
	goesOn := func(t *testing.T, s *server, older <-chan answer) {
		t.Helper()
		s.mustPublish(t, "other", "for the older")
		if a := <-older; a.body != "for the older" {
			t.Errorf("the older: %d %s", a.status, a.body)
		}
	}
	inBubble(t, "sse", func(t *testing.T) {
		s, older, status, text := ask(t, "/poll/events", nil)
		if status != http.StatusOK || !strings.HasPrefix(text, "event: client-id\n") ||
			!strings.Contains(text, `data: {"client-id":"ID"}`+"\n\n") || !strings.HasSuffix(text, "data: m\n\n") {
			t.Errorf("%d %s", status, text)
		}
		goesOn(t, s, older)
	})
	inBubble(t, "websocket", func(t *testing.T) {
		s, older, status, text := ask(t, "/poll/ws", wsHandshake)
		if status != http.StatusBadRequest || !strings.Contains(text, "needs both") {
			t.Errorf("%d %s", status, text)
		}
		goesOn(t, s, older)
	})
}

// A hello whose sender has gone ends nobody, as no other request of such a sender does.
func TestGivenUpHello(t *testing.T) {
	for _, later := range []time.Duration{0, 10 * time.Millisecond} {
		inBubble(t, later.String(), func(t *testing.T) {
			s := start(t, setup{memory: true})
			id, after := s.register(t)
			stream := s.events(t, "/poll/events"+query("client-id", id, "after", after))
			stream.next(t)
			ghost := s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, ghost, fmt.Sprintf(`{"hello":{"client-id":%q,"after":%q,"topics":["old"]}}`, id, after))
			if later > 0 {
				advance(later)
			}
			ghost.CloseNow()
			advance(time.Second)
			s.mustPublish(t, "old", "not wanted")
			s.Send("wanted")
			if ev := stream.next(t); ev.data != "wanted" {
				t.Errorf("%+v", ev)
			}
		})
	}
}
