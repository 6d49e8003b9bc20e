package gpoll_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
)

// hearing is the application of the transcripts and of the fuzz targets.
func hearing(b *gpoll.Broadcaster) {
	b.OnMessage = func(*gpoll.Client, gpoll.Message) {}
	b.OnRequest = func(_ *gpoll.Client, m gpoll.Message) ([]byte, error) {
		if string(m.Data) == "no" {
			return nil, errors.New("not today")
		}
		return m.Data, nil
	}
	b.Authorize = func(*http.Request) (gpoll.Grant, error) {
		open := func(topic string) bool { return topic == "open" }
		return gpoll.Grant{Publish: open, Presence: open}, nil
	}
}

// A door is a way for commands to come in. say gives one and returns its answer: a frame of gpoll.v1, or of a batch.
type door struct {
	name string
	open func(t *testing.T, s *server, id string) (say func(command string) (answer string))
}

var doors = []door{
	{"gpoll.v1", func(t *testing.T, s *server, id string) func(string) string {
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q}}`, id))
		frame(t, c)
		return func(command string) string {
			say(t, c, command)
			return frame(t, c)
		}
	}},
	{"POST", func(t *testing.T, s *server, id string) func(string) string {
		return func(command string) string {
			a := s.post(t, "/poll/commands", id, "["+command+"]")
			return strings.TrimSuffix(strings.TrimPrefix(a.body, "["), "]")
		}
	}},
	{"POST of one", func(t *testing.T, s *server, id string) func(string) string {
		return func(command string) string {
			a := s.post(t, "/poll/commands", id, command)
			if a.status == http.StatusOK {
				return a.body
			}
			var e struct{ Error, Message string }
			if err := json.Unmarshal([]byte(a.body), &e); err != nil {
				t.Fatalf("%d %q: %v", a.status, a.body, err)
			}
			return fmt.Sprintf(`{"error":{"code":%q`, e.Error)
		}
	}},
}

// Every command, on every way in, with every outcome.
func TestCommands(t *testing.T) {
	for _, d := range doors {
		for _, hears := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, hears=%v", d.name, hears), func(t *testing.T) {
				var calls atomic.Int32
				s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
					b.MaxMessage = 1000
					if hears {
						hearing(b)
						inner := b.OnMessage
						b.OnMessage = func(c *gpoll.Client, m gpoll.Message) {
							calls.Add(1)
							inner(c, m)
						}
					}
				}})
				id, _ := s.register(t)
				tell := d.open(t, s, id)
				deaf := func(answer string) string {
					if hears {
						return answer
					}
					return `{"error":{"code":"unsupported"`
				}
				forbidden := `{"error":{"code":"topic-forbidden"`
				published := forbidden
				if hears {
					published = `{"published":{"id":"5","position":"`
				}
				large := strings.Repeat("x", 1001)
				for _, tt := range [][2]string{
					{`{"send":{"data":"hi"},"id":"1"}`, deaf(`{"sent":{"id":"1"}}`)},
					{`{"send":{"data":"hi"},"id":"1"}`, deaf(`{"sent":{"id":"1"}}`)},
					{`{"send":{"data64":"/w=="},"id":"2"}`, deaf(`{"sent":{"id":"2"}}`)},
					{`{"request":{"data":"hi"},"id":"1"}`, deaf(`{"error":{"code":"id-reused"`)},
					{`{"request":{"data":""},"id":"3"}`, deaf(`{"reply":{"id":"3","data":""}}`)},
					{`{"request":{"data":"no"},"id":"4"}`, deaf(`{"error":{"code":"refused"`)},
					{`{"request":{"data":"no"}}`, `{"error":{"code":"bad-request"`},
					{`{"publish":{"topic":"open","data":"x"},"id":"5"}`, published},
					{`{"publish":{"topic":"open","data":"x"},"id":"5"}`, published},
					{`{"publish":{"topic":"closed","data":"x"},"id":"6"}`, forbidden},
					{`{"publish":{"topic":"","data":"x"},"id":"6"}`, `{"error":{"code":"bad-topic"`},
					{`{"publish":{"topic":"open","data":"` + large + `"},"id":"6"}`, `{"error":{"code":"too-large"`},
					{`{"send":{"data":"` + large + `"},"id":"6"}`, `{"error":{"code":"too-large"`},
					{`{"send":{"data":"x"},"id":"` + large[:65] + `"}`, `{"error":{"code":"bad-request"`},
					{`{"send":{"topic":"a","data":"x"},"id":"6"}`, `{"error":{"code":"bad-request"`},
					{`{"send":{},"id":"6"}`, `{"error":{"code":"bad-request"`},
					{`{"send":null,"id":"6"}`, `{"error":{"code":"bad-request"`},
					{`{}`, `{"error":{"code":"bad-request"`},
					{`{"shout":{"data":"x"}}`, `{"error":{"code":"bad-request"`},
					{`{"send":{"data":"x"},"publish":{"topic":"open","data":"x"},"id":"6"}`, `{"error":{"code":"bad-request"`},
					{strings.Repeat(`{"send":`, 5000) + "1" + strings.Repeat("}", 5000), `{"error":{"code":"bad-request"`},
				} {
					got := tell(tt[0])
					if d.name == "POST" && strings.Contains(tt[1], "bad-request") {
						got = strings.Replace(got, `{"error":"bad-request"`, `{"error":{"code":"bad-request"`, 1)
					}
					if !strings.HasPrefix(got, tt[1]) {
						t.Errorf("%.100s: %s, want %s", tt[0], got, tt[1])
					}
				}
				if n := calls.Load(); hears && n != 2 {
					t.Errorf("OnMessage was called %d times", n)
				}
				if got := s.Stats().Published; hears && got != 1 || !hears && got != 0 {
					t.Errorf("%d messages were published", got)
				}
			})
		}
	}
}

// What is no command of the client itself has no effect, and says what is wrong.
func TestCommandsAreGuarded(t *testing.T) {
	var heard atomic.Int32
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.OnMessage = func(*gpoll.Client, gpoll.Message) { heard.Add(1) }
		b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
			if r.Header.Get("Authorization") == "nobody" {
				return gpoll.Grant{}, errors.New("who?")
			}
			return gpoll.Grant{User: r.Header.Get("Authorization")}, nil
		}
	}})
	id, _ := s.register(t, "Authorization", "alice")
	const command = `{"send":{"data":"x"}}`
	for _, tt := range []struct {
		name, path, method, body string
		header                   []string
		status                   int
		code                     string
	}{
		{name: "a form", header: []string{"Content-Type", "application/x-www-form-urlencoded"}, status: 415},
		{name: "text", header: []string{"Content-Type", "text/plain"}, status: 415},
		{name: "no type", header: []string{"Content-Type", ""}, status: 415},
		{name: "encoded", header: []string{"Content-Encoding", "gzip"}, status: 415},
		{name: "no id", header: []string{"Gpoll-Client-Id", ""}, status: 415},
		{name: "id 0", header: []string{"Gpoll-Client-Id", "0"}, status: 404},
		{name: "id in the query", path: "/poll/commands" + query("client-id", id), status: 400},
		{name: "GET", method: "GET", status: 405},
		{name: "PUT", method: "PUT", status: 405},
		{name: "another user", header: []string{"Authorization", "bob"}, status: 404},
		{name: "nobody", header: []string{"Authorization", "nobody"}, status: 401},
		{name: "another site", header: []string{"Origin", "https://evil.example"}, status: 403},
		{name: "another site's form", header: []string{"Sec-Fetch-Site", "cross-site"}, status: 403},
		{name: "no JSON", body: "send", status: 400},
		{name: "two values", body: command + command, status: 400},
		{name: "not UTF-8", body: `{"send":{"data":"` + "\xff" + `"}}`, status: 400, code: "bad-utf-8"},
		{name: "one of two is bad", body: "[" + command + `,{"send":1}]`, status: 400},
		{name: "subscribe", body: `{"subscribe":["a"]}`, status: 400, code: "unsupported"},
		{name: "too many", body: "[" + strings.Repeat(command+",", 100) + command + "]", status: 400,
			code: "too-many-commands"},
		{name: "too large", body: `{"send":{"data":"` + strings.Repeat("x", 1<<16) + `"}}`, status: 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := s.request(t, t.Context(), cmp.Or(tt.path, "/poll/commands"), "Content-Type", "application/json",
				"Gpoll-Client-Id", id, "Authorization", "alice")
			for i := 0; i < len(tt.header); i += 2 {
				if r.Header.Set(tt.header[i], tt.header[i+1]); tt.header[i+1] == "" {
					r.Header.Del(tt.header[i])
				}
			}
			body := cmp.Or(tt.body, command)
			r.Method, r.ContentLength = cmp.Or(tt.method, http.MethodPost), int64(len(body))
			r.Body = io.NopCloser(strings.NewReader(body))
			if a := s.do(t, r); a.status != tt.status || tt.code != "" && a.code(t) != tt.code {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	if n := heard.Load(); n != 0 {
		t.Errorf("OnMessage was called %d times", n)
	}
	if a := s.post(t, "/poll/commands", id, command, "Authorization", "alice"); a.status != http.StatusOK ||
		heard.Load() != 1 {
		t.Errorf("her own: %d %s", a.status, a.body)
	}
}

// While a handler has not returned, its client's next commands wait, by whatever transport they come. A repeated one
// gets the answer of the first. Nobody else waits.
func TestCommandsWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		var heard []string
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.AttachTimeout = time.Hour
			b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) {
				heard = append(heard, string(m.Data))
				if string(m.Data) == "slow" {
					<-goOn
				}
			}
		}})
		id, _ := s.register(t)
		other, _ := s.register(t)
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q}}`, id))
		frame(t, c)
		say(t, c, `{"send":{"data":"slow"},"id":"a"}`)
		say(t, c, `{"send":{"data":"after it"},"id":"b"}`)
		synctest.Wait()
		again := make(chan string, 1)
		go func() { again <- s.post(t, "/poll/commands", id, `{"send":{"data":"slow"},"id":"a"}`).body }() // ends with it
		time.Sleep(time.Minute)
		if a := s.post(t, "/poll/commands", other, `{"send":{"data":"another client's"}}`); a.body != `{"sent":{}}` {
			t.Errorf("another client's command: %d %s", a.status, a.body)
		}
		if !slices.Equal(heard, []string{"slow", "another client's"}) {
			t.Errorf("heard %q", heard)
		}
		close(goOn)
		for _, want := range []string{`{"sent":{"id":"a"}}`, `{"sent":{"id":"b"}}`} {
			got := frame(t, c)
			for strings.HasPrefix(got, `{"position"`) { // the heartbeats of the minute
				got = frame(t, c)
			}
			if got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		if got := <-again; got != `{"sent":{"id":"a"}}` {
			t.Errorf("the repeated command: %s", got)
		}
		if !slices.Equal(heard, []string{"slow", "another client's", "after it"}) {
			t.Errorf("heard %q", heard)
		}
	})
}

// A handler that panics, or ends its goroutine, costs its client the attach, and nobody else anything. The command
// counts as done.
func TestCommandHandlersFail(t *testing.T) {
	for how, fail := range map[string]func(){"panic": func() { panic("the application's") }, "Goexit": runtime.Goexit} {
		for _, command := range []string{"send", "request", "publish"} {
			for _, d := range doors {
				t.Run(fmt.Sprint(how, " ", command, " ", d.name), func(t *testing.T) {
					var calls atomic.Int32
					failing := func() {
						calls.Add(1)
						fail()
					}
					s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
						b.OnMessage = func(*gpoll.Client, gpoll.Message) { failing() }
						b.OnRequest = func(*gpoll.Client, gpoll.Message) ([]byte, error) {
							failing()
							return nil, nil
						}
						b.Authorize = func(*http.Request) (gpoll.Grant, error) {
							return gpoll.Grant{Publish: func(string) bool {
								failing()
								return true
							}}, nil
						}
						b.Logger = slog.New(slog.DiscardHandler)
					}})
					id, _ := s.register(t)
					c := s.socket(t, "/poll/ws", "gpoll.v1")
					say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q}}`, id))
					frame(t, c)
					text := fmt.Sprintf(`{%q:{"data":"x"},"id":"1"}`, command)
					if command == "publish" {
						text = `{"publish":{"topic":"t","data":"x"},"id":"1"}`
					}
					if d.name == "gpoll.v1" {
						say(t, c, text)
					} else {
						r := s.request(t, t.Context(), "/poll/commands", "Content-Type", "application/json", "Gpoll-Client-Id", id)
						r.Method, r.Body, r.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader(text)), int64(len(text))
						if a, err := s.try(r); how == "panic" && (err != nil || a.status != http.StatusInternalServerError) {
							t.Errorf("POST: %d %s, %v", a.status, a.body, err)
						}
					}
					if how == "panic" || d.name == "gpoll.v1" {
						if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusInternalError {
							t.Errorf("the WebSocket: %v", err)
						}
					}
					a := s.post(t, "/poll/commands", id, "["+text+"]")
					if !strings.HasPrefix(a.body, `[{"error":{"code":"internal"`) {
						t.Errorf("again: %s", a.body)
					}
					if n := calls.Load(); n != 1 {
						t.Errorf("%d calls", n)
					}
				})
			}
		}
	}
}

// A handler may call every method, also those that end its own client.
func TestCommandHandlersCallBack(t *testing.T) {
	for _, d := range doors {
		t.Run(d.name, func(t *testing.T) {
			var b *gpoll.Broadcaster
			s := start(t, setup{broadcaster: func(it *gpoll.Broadcaster) {
				b = it
				b.OnRequest = func(c *gpoll.Client, m gpoll.Message) ([]byte, error) {
					b.Send("from inside")
					c.Send("to itself")
					b.Stats()
					c.Topics()
					b.CleanUp([]int{999})
					if !b.RemoveClient(c.ID()) {
						return nil, errors.New("not removed")
					}
					return m.Data, nil
				}
			}})
			id, _ := s.register(t)
			if d.name == "gpoll.v1" {
				c := s.socket(t, "/poll/ws", "gpoll.v1")
				say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q}}`, id))
				frame(t, c)
				say(t, c, `{"request":{"data":"x"},"id":"1"}`)
				for {
					if _, _, err := c.Read(t.Context()); err != nil {
						if websocket.CloseStatus(err) != 4004 {
							t.Error(err)
						}
						return
					}
				}
			}
			if got := d.open(t, s, id)(`{"request":{"data":"x"},"id":"1"}`); got != `{"reply":{"id":"1","data":"x"}}` {
				t.Errorf("%s", got)
			}
			if a := s.post(t, "/poll/commands", id, `{"leave":true}`); a.status != http.StatusNotFound {
				t.Errorf("afterwards: %d %s", a.status, a.body)
			}
		})
	}
}

// The bucket of one client, on fake time.
func TestUpstreamRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := 0
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.OnMessage = func(*gpoll.Client, gpoll.Message) { heard++ }
		}})
		id, _ := s.register(t)
		many := "[" + strings.TrimSuffix(strings.Repeat(`{"send":{"data":"x"}},`, 100), ",") + "]"
		if a := s.post(t, "/poll/commands", id, many); strings.Count(a.body, `{"sent":{}}`) != 100 {
			t.Errorf("100 at once: %d %s", a.status, a.body)
		}
		a := s.post(t, "/poll/commands", id, `{"send":{"data":"x"}}`)
		if a.status != http.StatusTooManyRequests || a.code(t) != "rate" || !strings.Contains(a.body, `"retry_ms":50`) ||
			!strings.Contains(a.body, "20 commands in a second and 100 at once") {
			t.Errorf("the next: %d %s", a.status, a.body)
		}
		time.Sleep(50 * time.Millisecond)
		// One more may come; the rest of a batch is not done, so that it stays in its order.
		a = s.post(t, "/poll/commands", id, many)
		if strings.Count(a.body, `{"sent":{}}`) != 1 || strings.Count(a.body, `"code":"rate"`) != 99 || heard != 101 {
			t.Errorf("after 50 ms: %d heard, %s", heard, a.body)
		}
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q}}`, id))
		frame(t, c)
		refused := 0
		for {
			say(t, c, `{"send":{"data":"x"}}`)
			_, data, err := c.Read(t.Context())
			if websocket.CloseStatus(err) == 4029 {
				break
			}
			if refused++; !strings.HasPrefix(string(data), `{"error":{"code":"rate"`) || refused > 200 {
				t.Fatalf("%s, %v", data, err)
			}
		}
		if refused < 90 || refused > 100 || heard != 101 {
			t.Errorf("closed after %d refusals, %d heard", refused, heard)
		}
	})
}

// A plain WebSocket reaches OnMessage if the application wants it.
func TestPlainMessages(t *testing.T) {
	heard := make(chan gpoll.Message, 2)
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.PlainMessages = true
		b.OnMessage = func(c *gpoll.Client, m gpoll.Message) {
			m.Data = bytes.Clone(m.Data)
			heard <- m
			c.Send("heard " + string(m.Data))
		}
	}})
	c := s.socket(t, "/poll/ws", "")
	frame(t, c)
	say(t, c, "hi")
	if m := <-heard; string(m.Data) != "hi" || m.ID != "" || m.Topic != "" {
		t.Errorf("heard %+v", m)
	}
	if got := frame(t, c); got != "heard hi" {
		t.Errorf("got %q", got)
	}
	if err := c.Write(t.Context(), websocket.MessageBinary, []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	if m := <-heard; string(m.Data) != "\xff" {
		t.Errorf("heard %+v", m)
	}
}

// A client's ids are remembered for 2 minutes, 1,024 of them, and their replies up to 256 KiB.
func TestCommandIDsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.UpstreamRate = -1
			b.ClientTTL = time.Hour
			b.OnRequest = func(_ *gpoll.Client, m gpoll.Message) ([]byte, error) {
				asked++
				return []byte(strings.Repeat("x", len(m.Data))), nil
			}
		}})
		id, at := s.register(t)
		s.later(t, "/poll"+query("client-id", id, "after", at)) // it stays attached
		ask := func(name, data string) string {
			return s.post(t, "/poll/commands", id, fmt.Sprintf(`[{"request":{"data":%q},"id":%q}]`, data, name)).body
		}
		ask("first", "")
		time.Sleep(2*time.Minute - time.Second)
		if ask("first", ""); asked != 1 {
			t.Errorf("within two minutes: asked %d times", asked)
		}
		time.Sleep(2 * time.Second)
		if ask("first", ""); asked != 2 {
			t.Errorf("after two minutes: asked %d times", asked)
		}
		for i := range 1023 {
			ask(fmt.Sprint(i), "")
		}
		if ask("first", ""); asked != 1025 {
			t.Errorf("after 1,023 others: asked %d times", asked)
		}
		ask("one more", "")
		if ask("first", ""); asked != 1027 {
			t.Errorf("after 1,024 others: asked %d times", asked)
		}
		large := strings.Repeat("y", 60_000)
		for i := range 5 {
			ask("large "+fmt.Sprint(i), large)
		}
		if got := ask("large 0", large); !strings.Contains(got, `"code":"reply-gone"`) || asked != 1032 {
			t.Errorf("a reply of long ago: %.100s, asked %d times", got, asked)
		}
		if got := ask("large 4", large); !strings.HasPrefix(got, `[{"reply":`) || asked != 1032 {
			t.Errorf("the last reply: %.100s, asked %d times", got, asked)
		}
	})
}

// A client leaves by POST, whatever it has open meanwhile.
func TestLeaveWhileAttached(t *testing.T) {
	for _, listener := range []bool{false, true} {
		t.Run(fmt.Sprint("Listener ", listener), func(t *testing.T) {
			s := start(t, setup{listener: listener, wrap: unhijacked})
			leave := func(id string) {
				t.Helper()
				if a := s.post(t, "/poll/commands", id, `{"leave":true}`); a.body != `{"left":true}` {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
			for _, format := range []string{"plain", "json"} {
				id, _ := s.register(t)
				path := "/poll" + query("client-id", id, "format", format)
				for range 2 { // on Listener the last poll is a repeat
					poll := s.later(t, path)
					s.awaitAttached(t, "long-poll", 1)
					s.Send("hi")
					<-poll
					s.awaitAttached(t, "long-poll", 0)
				}
				waiting := s.later(t, path)
				s.awaitAttached(t, "long-poll", 1)
				leave(id)
				if a := <-waiting; a.status != http.StatusNotFound || a.code(t) != "left" {
					t.Errorf("the poll: %d %s", a.status, a.body)
				}
			}
			for _, path := range []string{"/poll/events", "/unhijacked/events"} {
				id, _ := s.register(t)
				e := s.events(t, path+query("client-id", id))
				e.next(t)
				leave(id)
				if ev := e.next(t); ev.name != "end" || ev.retry != "86400000" || !strings.Contains(ev.data, `"left"`) ||
					strings.Contains(ev.data, "retry_ms") {

					t.Errorf("%s: %+v", path, ev)
				}
			}
			c := s.socket(t, "/poll/ws", "")
			leave(idOf(t, frame(t, c)))
			if code, reason := closing(t, c); code != websocket.StatusNormalClosure || reason != "left" {
				t.Errorf("the WebSocket: %d %q", code, reason)
			}
		})
	}
}
