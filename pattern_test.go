package gpoll_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll"
)

func wild(b *gpoll.Broadcaster) { b.Wildcards = true }

// Each transport brings the messages of a pattern while they come: once, where a topic and other patterns of the client
// match too, and nothing else.
func TestPatternOnEveryTransport(t *testing.T) {
	topics := []string{"s.>", "s.*", "*.a", "s.a", "none.>"}
	quoted := `"` + strings.Join(topics, `","`) + `"`
	for name, begin := range map[string]func(s *server, id, after string) (next func() string){
		"json poll": func(s *server, id, after string) func() string {
			return func() string {
				pairs := []string{"client-id", id, "after", after, "format", "json"}
				for _, topic := range topics {
					pairs = append(pairs, "topic", topic)
				}
				v := s.get(t, "/poll"+query(pairs...)).batch(t)
				after = v.Position
				return strings.Join(v.payloads(t), " ")
			}
		},
		"post poll": func(s *server, id, after string) func() string {
			return func() string {
				v := s.post(t, "/poll", id, `{"format":"json","after":"`+after+`","topics":[`+quoted+`]}`).batch(t)
				after = v.Position
				return strings.Join(v.payloads(t), " ")
			}
		},
		"plain poll without a cursor": func(s *server, id, after string) func() string {
			s.post(t, "/poll", id, `{"topics":[`+quoted+`]}`)
			return func() string { return s.get(t, "/poll"+query("client-id", id)).body }
		},
		"sse": func(s *server, id, after string) func() string {
			pairs := []string{"client-id", id, "after", after}
			for _, topic := range topics {
				pairs = append(pairs, "topic", topic)
			}
			e := s.events(t, "/poll/events"+query(pairs...))
			e.next(t)
			return func() string { return e.next(t).data }
		},
		"gpoll.v1 hello": func(s *server, id, after string) func() string {
			c := s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, c, `{"hello":{"client-id":`+jsonString(t, id)+`,"topics":[`+quoted+`]}}`)
			frame(t, c)
			return func() string { return elementOf(t, frame(t, c)).payload(t) }
		},
		"gpoll.v1 subscribe": func(s *server, id, after string) func() string {
			c := s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, c, `{"hello":{"client-id":`+jsonString(t, id)+`}}`)
			frame(t, c)
			say(t, c, `{"subscribe":[`+quoted+`]}`)
			if f := frame(t, c); !strings.HasPrefix(f, `{"subscribed":{"topics":["*.a","none.>","s.*","s.>","s.a"],`) {
				t.Errorf("subscribe: %s", f)
			}
			return func() string { return elementOf(t, frame(t, c)).payload(t) }
		},
		"plain websocket": func(s *server, id, after string) func() string {
			pairs := []string{"client-id", id}
			for _, topic := range topics {
				pairs = append(pairs, "topic", topic)
			}
			c := s.socket(t, "/poll/ws"+query(pairs...), "")
			frame(t, c)
			return func() string { return frame(t, c) }
		},
		"channel": func(s *server, id, after string) func() string {
			s.post(t, "/poll", id, `{"format":"json","after":"`+after+`","topics":[`+quoted+`]}`)
			routine, uuid, _ := strings.Cut(id, "$")
			n, err := strconv.Atoi(routine)
			if err != nil {
				t.Fatal(err)
			}
			pipe, err := s.GetChannel(uuid, n)
			if err != nil {
				t.Fatal(err)
			}
			return func() string { return <-pipe }
		},
	} {
		for _, listener := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/listener=%v", name, listener), func(t *testing.T) {
				s := start(t, setup{listener: listener, broadcaster: func(b *gpoll.Broadcaster) {
					wild(b)
					b.PollWait = 200 * time.Millisecond
				}})
				id, after := s.register(t)
				next := begin(s, id, after)
				for i, topic := range []string{"s.a", "s.b", "x.a", "s.a.b", "", "s.a"} {
					for _, other := range []string{"s", "x", "x.b", "none", "S.b", "a.s"} {
						s.mustPublish(t, other, "not for it")
					}
					data := fmt.Sprint(topic, i)
					s.mustPublish(t, topic, data)
					got := ""
					for got == "" {
						got = next()
					}
					if got != data {
						t.Fatalf("got %q, want %q", got, data)
					}
				}
			})
		}
	}
}

// A poll with a pattern that comes again is answered by its connection of Listener, without net/http.
func TestPatternInRepeats(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		s := start(t, listening(wild))
		w := s.wire(t)
		w.get("/poll?client-id=0")
		a := w.answer()
		w.id, w.at = idOf(t, a.body), a.position()
		poll := func() { w.get("/poll?client-id=" + w.id + "&after=" + w.at + "&topic=s.*&topic=s.%3E") }
		for i := range 20 {
			poll()
			s.awaitTransport(t, w.id, "long-poll")
			s.mustPublish(t, "s", "not for it")
			s.mustPublish(t, []string{"s.a", "s.b.c"}[i%2], fmt.Sprint(i))
			w.expect(fmt.Sprint(i))
		}
		if n := s.Stats().Repeats; n < 15 {
			t.Errorf("%d polls were answered without net/http", n)
		}
	})
}

// Without Wildcards a pattern is a bad topic. With them, what is no pattern is one, and so are too many patterns.
func TestBadPattern(t *testing.T) {
	many := strings.Split("q.*"+strings.Repeat(",q.*", 16), ",")
	for i := range many {
		many[i] = fmt.Sprintf("q%d.*", i)
	}
	for _, c := range []struct {
		allowed bool
		topics  []string
		code    string
	}{
		{false, []string{"a.*"}, "bad-topic"}, {false, []string{">"}, "bad-topic"}, {false, []string{"a", "*"}, "bad-topic"},
		{true, []string{"a*"}, "bad-topic"}, {true, []string{"a.>.b"}, "bad-topic"}, {true, []string{"a.b>"}, "bad-topic"},
		{true, []string{"*.*.*.*.*"}, "bad-topic"}, {true, []string{strings.Repeat("a.", 16) + ">"}, "bad-topic"},
		{true, many, "too-many-topics"},
	} {
		s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.Wildcards = c.allowed }})
		id, after := s.register(t)
		quoted := `["` + strings.Join(c.topics, `","`) + `"]`
		for _, by := range gets {
			pairs := []string{"client-id", id}
			for _, topic := range c.topics {
				pairs = append(pairs, "topic", topic)
			}
			if a := s.get(t, by.path+query(pairs...), by.header...); a.status != http.StatusBadRequest || a.code(t) != c.code {
				t.Errorf("%s: %d %s, want %s", by.name, a.status, a.body, c.code)
			}
		}
		for _, path := range []string{"/poll", "/poll/events"} {
			a := s.post(t, path, id, `{"after":"`+after+`","topics":`+quoted+`}`)
			if a.status != http.StatusBadRequest || a.code(t) != c.code {
				t.Errorf("POST %s: %d %s, want %s", path, a.status, a.body, c.code)
			}
		}
		ws := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, ws, `{"hello":{"topics":`+quoted+`}}`)
		if code, reason := closing(t, ws); code != websocket.StatusPolicyViolation || reason != c.code {
			t.Errorf("hello: close %d %q, want 1008 %s", code, reason, c.code)
		}
		ws = s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, ws, `{"hello":{}}`)
		frame(t, ws)
		for i, topic := range c.topics { // one by one
			say(t, ws, `{"subscribe":["`+topic+`"]}`)
			f := frame(t, ws)
			last := i == len(c.topics)-1
			if refused := strings.HasPrefix(f, `{"error":{"code":"`+c.code+`"`); refused != last {
				t.Errorf("subscribe %d: %s", i, f)
			}
		}
	}
}

// Nobody publishes to a pattern.
func TestPublishToPattern(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		wild(b)
		b.Authorize = func(*http.Request) (gpoll.Grant, error) {
			return gpoll.Grant{Publish: func(string) bool { return true }}, nil
		}
	}})
	id, _ := s.register(t)
	for _, topic := range []string{"*", ">", "a.*", "a.>", "*.b"} {
		if _, err := s.Publish(t.Context(), gpoll.Message{Topic: topic}); !errors.Is(err, gpoll.ErrBadMessage) {
			t.Errorf("Publish to %q: %v", topic, err)
		}
		a := s.post(t, "/poll/commands", id, `{"publish":{"topic":"`+topic+`","data":"x"}}`)
		if a.status != http.StatusBadRequest || a.code(t) != "bad-topic" {
			t.Errorf("publish to %q: %d %s", topic, a.status, a.body)
		}
	}
}

// Grant.Subscribe is asked for the pattern itself, by every door.
func TestPatternGrants(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		wild(b)
		b.Authorize = func(*http.Request) (gpoll.Grant, error) {
			return gpoll.Grant{Subscribe: func(topic string) bool {
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, topic)
				return topic == "mine.>"
			}}, nil
		}
	}})
	id, _ := s.register(t)
	for _, by := range gets {
		a := s.get(t, by.path+query("client-id", id, "topic", "mine.*"), by.header...)
		if a.status != http.StatusForbidden || a.code(t) != "topic-forbidden" {
			t.Errorf("%s: %d %s", by.name, a.status, a.body)
		}
	}
	c := s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, `{"hello":{"topics":["mine.>"]}}`)
	frame(t, c)
	say(t, c, `{"subscribe":[">"]}`)
	if f := frame(t, c); !strings.HasPrefix(f, `{"error":{"code":"topic-forbidden"`) {
		t.Errorf("subscribe: %s", f)
	}
	s.mustPublish(t, "other.a", "not for it")
	s.mustPublish(t, "mine.a", "for it")
	if e := elementOf(t, frame(t, c)); e.Topic != "mine.a" {
		t.Errorf("got %+v", e)
	}
	mu.Lock()
	defer mu.Unlock()
	if slices.Sort(asked); !slices.Equal(slices.Compact(asked), []string{">", "mine.*", "mine.>"}) {
		t.Errorf("asked for %q", asked)
	}
}

// Grant.Topics gives patterns, also where clients may not name any.
func TestPatternOfGrant(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.Authorize = func(*http.Request) (gpoll.Grant, error) { return gpoll.Grant{Topics: []string{"team.*"}}, nil }
	}})
	id, after := s.register(t)
	s.mustPublish(t, "team", "not for it")
	s.mustPublish(t, "team.red", "for it")
	v := s.get(t, "/poll"+query("client-id", id, "after", after, "format", "json")).batch(t)
	if got := v.payloads(t); !slices.Equal(got, []string{"for it"}) {
		t.Errorf("got %q", got)
	}
	if a := s.get(t, "/poll"+query("client-id", id, "topic", "team.>")); a.code(t) != "bad-topic" {
		t.Errorf("the client names a pattern: %d %s", a.status, a.body)
	}
}

// So does Client.Subscribe.
func TestPatternOfTheApplication(t *testing.T) {
	s := start(t, setup{})
	id, after := s.register(t)
	c, _ := s.Client(id)
	if err := c.Subscribe("team.*", "team.red"); err != nil {
		t.Fatal(err)
	}
	if err := c.Subscribe("team.*.>.x"); !errors.Is(err, gpoll.ErrBadMessage) {
		t.Errorf("Subscribe to what is no pattern: %v", err)
	}
	s.mustPublish(t, "team", "not for it")
	s.mustPublish(t, "team.red", "for it")
	v := s.get(t, "/poll"+query("client-id", id, "after", after, "format", "json")).batch(t)
	if got := v.payloads(t); !slices.Equal(got, []string{"for it"}) {
		t.Errorf("got %q", got)
	}
}

// last brings the newest messages of each topic that a pattern matches, each once.
func TestLastOfPattern(t *testing.T) {
	s := start(t, setup{broadcaster: wild})
	for i := range 5 {
		for _, topic := range []string{"s.a", "s.b", "x.a"} {
			s.mustPublish(t, topic, fmt.Sprint(topic, i))
		}
	}
	for topics, want := range map[string][]string{
		"s.*":         {"s.a3", "s.b3", "s.a4", "s.b4"},
		"s.*,s.a,*.a": {"s.a3", "s.b3", "x.a3", "s.a4", "s.b4", "x.a4"},
		"s":           nil,
	} {
		pairs := []string{"client-id", "0", "last", "2", "format", "json"}
		for topic := range strings.SplitSeq(topics, ",") {
			pairs = append(pairs, "topic", topic)
		}
		if got := s.get(t, "/poll"+query(pairs...)).batch(t).payloads(t); !slices.Equal(got, want) {
			t.Errorf("last=2 of %s: %q, want %q", topics, got, want)
		}
	}
}

// A topic that is new to the server reaches those who wait with a pattern, of each routine, and only them.
func TestPatternWakesItsRoutines(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		wild(b)
		b.RoutineMaxClients = 1
	}})
	var clients []*websocket.Conn
	for _, topic := range []string{"a.*", "b.>", "*.x", "a.y", ">"} {
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{"topics":["`+topic+`"]}}`)
		frame(t, c)
		clients = append(clients, c)
	}
	for _, m := range []struct {
		topic string
		to    []int
	}{{"a.x", []int{0, 2, 4}}, {"b.x", []int{1, 2, 4}}, {"b.z.z", []int{1, 4}}, {"a.y", []int{0, 3, 4}}, {"c", []int{4}}} {
		s.mustPublish(t, m.topic, m.topic)
		for _, i := range m.to {
			if e := elementOf(t, frame(t, clients[i])); e.Topic != m.topic {
				t.Errorf("client %d got %+v, want %s", i, e, m.topic)
			}
		}
	}
	say(t, clients[4], `{"unsubscribe":[">"]}`)
	if f := frame(t, clients[4]); !strings.HasPrefix(f, `{"unsubscribed":{"topics":[">"]`) {
		t.Error(f)
	}
	s.mustPublish(t, "a.x", "not for the last")
	s.Send("end")
	if e := elementOf(t, frame(t, clients[4])); e.payload(t) != "end" {
		t.Errorf("got %+v", e)
	}
}
