package gpoll_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
)

// A question is what the server asks, as the client gets it.
type question struct {
	ID   string `json:"id"`
	Data string `json:"data"`
}

// An asked client waits for the next question, by one transport.
type asked struct {
	name string
	open func(t *testing.T, s *server, id string, seen int) (next func() question, leave func())
}

var askedBy = []asked{
	{"gpoll.v1", func(t *testing.T, s *server, id string, seen int) (func() question, func()) {
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q,"asked":%d}}`, id, seen))
		frame(t, c)
		return func() question { return questionIn(t, c) }, func() { c.CloseNow() }
	}},
	{"SSE", askedByEvents("/poll/events")},
	{"SSE over HTTP/2's way", askedByEvents("/unhijacked/events")},
	{"long-poll", func(t *testing.T, s *server, id string, seen int) (func() question, func()) {
		return func() question {
			t.Helper()
			a := s.get(t, "/poll"+query("client-id", id, "format", "json", "asked", fmt.Sprint(seen)))
			seen++
			return questionOf(t, a)
		}, func() {}
	}},
	{"POST", func(t *testing.T, s *server, id string, seen int) (func() question, func()) {
		return func() question {
			t.Helper()
			a := s.post(t, "/poll", id, fmt.Sprintf(`{"format":"json","asked":%d}`, seen))
			seen++
			return questionOf(t, a)
		}, func() {}
	}},
}

func askedByEvents(path string) func(t *testing.T, s *server, id string, seen int) (func() question, func()) {
	return func(t *testing.T, s *server, id string, seen int) (func() question, func()) {
		e := s.events(t, path+query("client-id", id, "format", "json", "asked", fmt.Sprint(seen)))
		e.next(t)
		return func() (q question) {
			t.Helper()
			ev := e.next(t)
			if err := json.Unmarshal([]byte(ev.data), &q); err != nil || ev.name != "request" {
				t.Fatalf("%+v, %v", ev, err)
			}
			return q
		}, e.close
	}
}

func questionOf(t testing.TB, a answer) question {
	t.Helper()
	var v struct{ Requests []question }
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || len(v.Requests) != 1 {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return v.Requests[0]
}

func questionIn(t testing.TB, c *websocket.Conn) question {
	t.Helper()
	var v struct{ Request *question }
	data := frame(t, c)
	for strings.HasPrefix(data, `{"position"`) || strings.HasPrefix(data, `{"replied"`) {
		data = frame(t, c)
	}
	if err := json.Unmarshal([]byte(data), &v); err != nil || v.Request == nil {
		t.Fatalf("%s: %v", data, err)
	}
	return *v.Request
}

// reply is what Request returned.
type reply struct {
	data string
	err  error
}

func request(ctx context.Context, c *gpoll.Client, data string) <-chan reply {
	got := make(chan reply, 1)
	go func() { // ends with the reply, or with ctx
		data, err := c.Request(ctx, []byte(data))
		got <- reply{string(data), err}
	}()
	return got
}

// unhijacked mounts b a second time, behind middleware that keeps the connection.
func unhijacked(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	mux.Handle("/unhijacked/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/poll/" + strings.TrimPrefix(r.URL.Path, "/unhijacked/")
		next.ServeHTTP(flushOnly{w}, r)
	}))
	return mux
}

type flushOnly struct{ http.ResponseWriter }

func (w flushOnly) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// The server asks, and the client answers, by every transport, through every door.
func TestRequest(t *testing.T) {
	for _, listener := range []bool{false, true} {
		for _, by := range askedBy {
			for _, d := range doors[1:] {
				t.Run(fmt.Sprint(by.name, ", ", d.name, ", Listener ", listener), func(t *testing.T) {
					s := start(t, setup{listener: listener, wrap: unhijacked})
					id, _ := s.register(t)
					client, _ := s.Client(id)
					next, leave := by.open(t, s, id, 0)
					say := d.open(t, s, id)
					for n, data := range []string{"what?", "\"quoted\"\n", ""} {
						got := request(t.Context(), client, data)
						q := next()
						if q.ID != fmt.Sprint(n+1) || q.Data != data {
							t.Errorf("%+v", q)
						}
						a := say(fmt.Sprintf(`{"reply":{"data":"that"},"id":%q}`, q.ID))
						if a != fmt.Sprintf(`{"replied":{"id":%q}}`, q.ID) {
							t.Errorf("%s", a)
						}
						if got := <-got; got.data != "that" || got.err != nil {
							t.Errorf("%+v", got)
						}
					}
					got := request(t.Context(), client, "no?")
					a := say(fmt.Sprintf(`{"reply":{"error":"not now"},"id":%q}`, next().ID))
					if !strings.HasPrefix(a, `{"replied"`) {
						t.Errorf("%s", a)
					}
					e, ok := errors.AsType[*gpoll.ReplyError]((<-got).err)
					if !ok || e.Text != "not now" {
						t.Errorf("%v", e)
					}
					leave()
				})
			}
		}
	}
}

// On gpoll.v1 the reply is a frame, and its acknowledgement too.
func TestRequestInFrames(t *testing.T) {
	s := start(t, setup{})
	c := s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, `{"hello":{}}`)
	var v struct {
		Welcome struct {
			ClientID string `json:"client-id"`
		}
	}
	if err := json.Unmarshal([]byte(frame(t, c)), &v); err != nil {
		t.Fatal(err)
	}
	client, _ := s.Client(v.Welcome.ClientID)
	got := request(t.Context(), client, "\xff")
	if q := frame(t, c); q != `{"request":{"id":"1","data64":"/w=="}}` {
		t.Error(q)
	}
	say(t, c, `{"reply":{"data64":"/w=="},"id":"1"}`)
	if a := frame(t, c); a != `{"replied":{"id":"1"}}` {
		t.Error(a)
	}
	if got := <-got; got.data != "\xff" || got.err != nil {
		t.Errorf("%+v", got)
	}
}

// What was asked of a client that is away waits, and comes again at each attach, until it is answered.
func TestRequestComesAgain(t *testing.T) {
	for _, first := range askedBy {
		for _, second := range askedBy {
			t.Run(first.name+", then "+second.name, func(t *testing.T) {
				s := start(t, setup{wrap: unhijacked})
				id, _ := s.register(t)
				client, _ := s.Client(id)
				got := request(t.Context(), client, "what?") // before it ever attached
				next, leave := first.open(t, s, id, 0)
				if q := next(); q.ID != "1" || q.Data != "what?" {
					t.Errorf("%+v", q)
				}
				leave()
				next, leave = second.open(t, s, id, 0)
				if q := next(); q.ID != "1" || q.Data != "what?" {
					t.Errorf("again: %+v", q)
				}
				leave()
				other := request(t.Context(), client, "and?")
				next, leave = second.open(t, s, id, 1) // it says that it has the first
				if q := next(); q.ID != "2" || q.Data != "and?" {
					t.Errorf("the second: %+v", q)
				}
				a := s.post(t, "/poll/commands", id, `[{"reply":{"data":"so"},"id":"2"},{"reply":{"data":"that"},"id":"1"}]`)
				if a.body != `[{"replied":{"id":"2"}},{"replied":{"id":"1"}}]` {
					t.Errorf("%s", a.body)
				}
				if got := <-got; got.data != "that" {
					t.Errorf("%+v", got)
				}
				if got := <-other; got.data != "so" {
					t.Errorf("%+v", got)
				}
				leave()
			})
		}
	}
}

// A poll that does not say what it has gets each request once: it does not come back at once with the same one.
func TestRequestOfSimplePoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		id, _ := s.register(t)
		client, _ := s.Client(id)
		got := request(t.Context(), client, "what?")
		if q := questionOf(t, s.get(t, "/poll"+query("client-id", id, "format", "json"))); q.ID != "1" {
			t.Errorf("%+v", q)
		}
		poll := s.later(t, "/poll"+query("client-id", id, "format", "json"))
		time.Sleep(10 * time.Second)
		select {
		case a := <-poll:
			t.Errorf("answered: %d %s", a.status, a.body)
		default:
		}
		again := request(t.Context(), client, "and?")
		if q := questionOf(t, <-poll); q.ID != "2" || q.Data != "and?" {
			t.Errorf("%+v", q)
		}
		s.post(t, "/poll/commands", id, `[{"reply":{"data":""},"id":"1"},{"reply":{"data":""},"id":"2"}]`)
		if a, b := <-got, <-again; a.err != nil || b.err != nil {
			t.Errorf("%+v, %+v", a, b)
		}
	})
}

// Messages and requests stand in one answer, or in two that follow: nothing of either is lost.
func TestRequestAmongMessages(t *testing.T) {
	s := start(t, setup{})
	id, at := s.register(t)
	client, _ := s.Client(id)
	got := request(t.Context(), client, "what?")
	s.Send("one")
	messages, questions := "", ""
	for len(messages) == 0 || len(questions) == 0 {
		a := s.get(t, "/poll"+query("client-id", id, "after", at, "format", "json"))
		var v struct {
			Position string
			Messages []struct{ Data string }
			Requests []question
		}
		if err := json.Unmarshal([]byte(a.body), &v); err != nil {
			t.Fatalf("%d %s: %v", a.status, a.body, err)
		}
		at = v.Position
		for _, m := range v.Messages {
			messages += m.Data
		}
		for _, q := range v.Requests {
			questions += q.Data
		}
	}
	if messages != "one" || questions != "what?" {
		t.Errorf("%q, %q", messages, questions)
	}
	client.Close("")
	if got := <-got; !errors.Is(got.err, gpoll.ErrUnknownClient) {
		t.Errorf("after the client's removal: %+v", got)
	}
}

// What cannot be asked, and replies that nobody waits for.
func TestRequestsThatFail(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.MaxMessage = 100 }})
	for _, w := range entries {
		if w.json {
			continue
		}
		id, _ := s.register(t)
		client, _ := s.Client(id)
		early := request(t.Context(), client, "what?")
		leave := w.open(t, s, id)
		late := request(t.Context(), client, "what?")
		for _, got := range []reply{<-early, <-late} {
			if !errors.Is(got.err, errors.ErrUnsupported) {
				t.Errorf("%s: %+v", w.name, got)
			}
		}
		leave()
		s.RemoveClient(id)
	}
	id, _ := s.register(t)
	client, _ := s.Client(id)
	if _, err := client.Request(t.Context(), make([]byte, 101)); !errors.Is(err, gpoll.ErrTooLarge) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	var all []<-chan reply
	for range 16 {
		all = append(all, request(ctx, client, "what?"))
	}
	next, leave := askedBy[0].open(t, s, id, 0)
	for range 16 {
		next()
	}
	if _, err := client.Request(t.Context(), nil); !errors.Is(err, errors.ErrUnsupported) ||
		!strings.Contains(err.Error(), "16 requests") {
		t.Error(err)
	}
	for reply, code := range map[string]string{
		`{"reply":{"data":"x"},"id":"17"}`:                               "no-request",
		`{"reply":{"data":"x"},"id":"0"}`:                                "no-request",
		`{"reply":{"data":"x"},"id":"-1"}`:                               "no-request",
		`{"reply":{"data":"x"},"id":"one"}`:                              "no-request",
		`{"reply":{"data":"x"}}`:                                         "bad-request",
		`{"reply":{},"id":"1"}`:                                          "bad-request",
		`{"reply":{"data":"x","error":"y"},"id":"1"}`:                    "bad-request",
		`{"reply":{"topic":"t","error":"y"},"id":"1"}`:                   "bad-request",
		`{"reply":{"topic":"t","data":"y"},"id":"1"}`:                    "bad-request",
		`{"send":{"error":"y"},"id":"1"}`:                                "bad-request",
		`{"reply":{"data":"` + strings.Repeat("x", 101) + `"},"id":"1"}`: "too-large",
	} {
		if a := s.post(t, "/poll/commands", id, reply); a.code(t) != code {
			t.Errorf("%.60s: %d %s", reply, a.status, a.body)
		}
	}
	cancel(errors.New("enough"))
	for _, got := range all {
		if got := <-got; got.err == nil || got.err.Error() != "enough" {
			t.Errorf("%+v", got)
		}
	}
	if a := s.post(t, "/poll/commands", id, `{"reply":{"data":"x"},"id":"1"}`); a.code(t) != "no-request" {
		t.Errorf("after ctx: %d %s", a.status, a.body)
	}
	leave()
	waiting := request(t.Context(), client, "what?")
	client.Close("")
	if got := <-waiting; !errors.Is(got.err, gpoll.ErrUnknownClient) {
		t.Errorf("%+v", got)
	}
	if _, err := client.Request(t.Context(), nil); !errors.Is(err, gpoll.ErrUnknownClient) {
		t.Error(err)
	}
}

// A handler may wait for an answer of another client, and a goroutine of its own for one of its own client.
func TestRequestFromInside(t *testing.T) {
	var s *server
	other := make(chan *gpoll.Client, 1)
	s = start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.OnRequest = func(c *gpoll.Client, m gpoll.Message) ([]byte, error) {
			return (<-other).Request(context.Background(), m.Data)
		}
	}})
	a, _ := s.register(t)
	b, _ := s.register(t)
	of, _ := s.Client(b)
	other <- of
	next, leave := askedBy[0].open(t, s, b, 0)
	got := s.laterPost(t, "/poll/commands", a, `{"request":{"data":"ping"},"id":"1"}`)
	s.post(t, "/poll/commands", b, fmt.Sprintf(`{"reply":{"data":"pong"},"id":%q}`, next().ID))
	if got := <-got; got.body != `{"reply":{"id":"1","data":"pong"}}` {
		t.Errorf("%d %s", got.status, got.body)
	}
	leave()
}

// laterPost is post in a goroutine of its own, which ends with the answer.
func (s *server) laterPost(t testing.TB, path, id, body string) <-chan answer {
	done := make(chan answer, 1)
	go func() { done <- s.post(t, path, id, body) }()
	return done
}
