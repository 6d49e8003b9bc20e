package gpoll_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
)

// openly is a Broadcaster that shows everything to everybody. The header User names a user, and Info what they say of
// themselves.
func openly(b *gpoll.Broadcaster) {
	b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
		return gpoll.Grant{
			User:     r.Header.Get("User"),
			Info:     r.Header.Get("Info"),
			Presence: func(topic string) bool { return topic != "secret" },
		}, nil
	}
	b.AuthHeaders = []string{"User", "Info"}
	b.MaxClientsPerUser = 10_000
}

// A presence is what the field, frame or event of that name says.
type presence struct {
	Position string          `json:"position"`
	Topics   []presenceTopic `json:"topics"`
}

type presenceTopic struct {
	Topic   string            `json:"topic"`
	Count   *int              `json:"count"`
	Members *[]presenceMember `json:"members"`
	Join    []presenceMember  `json:"join"`
	Leave   []string          `json:"leave"`
}

type presenceMember struct {
	ID   string `json:"id"`
	User string `json:"user"`
	Info string `json:"info"`
}

func presenceOf(t testing.TB, text string) presence {
	t.Helper()
	var p presence
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("presence %s: %v", text, err)
	}
	return p
}

// A view is what a watcher knows, and how often it was told what.
type view struct {
	mu       sync.Mutex // guards the fields below
	position string
	topics   map[string]map[string]presenceMember // nil: only the number is known
	counts   map[string]int
	whole    int // snapshots
	joins    int
	leaves   int
	told     int
}

func newView() *view {
	return &view{topics: map[string]map[string]presenceMember{}, counts: map[string]int{}}
}

// take holds p against what the watcher knows.
func (v *view) take(t testing.TB, p presence) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if p.Position == "" {
		t.Errorf("no position: %+v", p)
	}
	v.position = p.Position
	v.told++
	for _, in := range p.Topics {
		if in.Count == nil {
			t.Errorf("%s: no count", in.Topic)
			continue
		}
		v.counts[in.Topic] = *in.Count
		known := v.topics[in.Topic]
		switch {
		case in.Members != nil:
			v.whole++
			known = map[string]presenceMember{}
			for _, m := range *in.Members {
				known[m.ID] = m
			}
			sorted := slices.IsSortedFunc(*in.Members, func(a, b presenceMember) int { return cmp.Compare(a.ID, b.ID) })
			if !sorted {
				t.Errorf("%s: the members are not sorted", in.Topic)
			}
		case in.Join == nil && in.Leave == nil:
			known = nil
		case known == nil:
			continue
		}
		for _, m := range in.Join {
			if old, there := known[m.ID]; there && old == m {
				t.Errorf("%s: %v joins again", in.Topic, m)
			}
			v.joins++
			known[m.ID] = m
		}
		for _, id := range in.Leave {
			if _, there := known[id]; !there {
				t.Errorf("%s: %s leaves and is not there", in.Topic, id)
			}
			v.leaves++
			delete(known, id)
		}
		if known != nil && len(known) != *in.Count {
			t.Errorf("%s: %d members, and the count is %d", in.Topic, len(known), *in.Count)
		}
		v.topics[in.Topic] = known
	}
}

// ids returns the members of topic.
func (v *view) ids(topic string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.topics[topic]))
}

// member returns what v knows of a member of topic, count how many it has, and named whether v knows them.
func (v *view) member(topic, id string) presenceMember {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.topics[topic][id]
}

func (v *view) count(topic string) (count int, named bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.counts[topic], v.topics[topic] != nil
}

// tellings returns how often v was told something, and how many snapshots were in it.
func (v *view) tellings() (told, whole int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.told, v.whole
}

// numbers returns how many joins and leaves v was told.
func (v *view) numbers() (joins, leaves int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.joins, v.leaves
}

func idsOf(members []gpoll.Member) (ids []string) {
	for _, m := range members {
		ids = append(ids, m.ID)
	}
	return ids
}

// A watching is a way to watch. open begins in a goroutine, and goes on until the test ends.
type watching struct {
	name string
	open func(t *testing.T, s *server, v *view, header []string, topics ...string) (stop func())
}

// presenceQuery spells the parameters of a watcher.
func presenceQuery(after string, topics []string) string {
	pairs := []string{"format", "json"}
	for _, topic := range topics {
		pairs = append(pairs, "presence", topic)
	}
	if after != "" {
		pairs = append(pairs, "presence-after", after)
	}
	return query(pairs...)
}

// watchByPoll polls until ctx ends.
func watchByPoll(t *testing.T, s *server, ctx context.Context, v *view, id, position string, header, topics []string) {
	for ctx.Err() == nil {
		path := "/poll" + presenceQuery(v.position, topics) + "&" + query("after", position)[1:]
		a, err := s.try(s.request(t, ctx, path, append(header, "Gpoll-Client-Id", id)...))
		if err != nil {
			return
		}
		var body struct {
			Position string
			Presence json.RawMessage
		}
		if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.status != http.StatusOK || body.Presence == nil {
			t.Errorf("a poll that watches: %d %s (%v)", a.status, a.body, err)
			return
		}
		position = body.Position
		v.take(t, presenceOf(t, string(body.Presence)))
	}
}

var watchings = []watching{
	{"long-poll", func(t *testing.T, s *server, v *view, header []string, topics ...string) func() {
		id, position := s.register(t, header...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { // ends with ctx
			defer close(done)
			watchByPoll(t, s, ctx, v, id, position, header, topics)
		}()
		return func() { cancel(); <-done }
	}},
	{"sse", func(t *testing.T, s *server, v *view, header []string, topics ...string) func() {
		e := s.events(t, "/poll/events"+presenceQuery(v.position, topics), header...)
		done := make(chan struct{})
		go func() { // ends with the stream
			defer close(done)
			for {
				ev, err := e.read()
				if err != nil {
					return
				}
				if ev.name == "presence" {
					if ev.id != e.lastID {
						t.Errorf("an event of presence has an id of its own")
					}
					v.take(t, presenceOf(t, ev.data))
				}
			}
		}()
		return func() { e.close(); <-done }
	}},
	{"gpoll.v1", func(t *testing.T, s *server, v *view, header []string, topics ...string) func() {
		c := s.socket(t, "/poll/ws", "gpoll.v1", header...)
		hello := map[string]any{"presence": topics}
		if v.position != "" {
			hello["presence-after"] = v.position
		}
		text, err := json.Marshal(map[string]any{"hello": hello})
		if err != nil {
			t.Fatal(err)
		}
		say(t, c, string(text))
		done := make(chan struct{})
		go func() { // ends with the connection
			defer close(done)
			for {
				_, data, err := c.Read(context.Background())
				if err != nil {
					return
				}
				var f struct{ Presence json.RawMessage }
				if json.Unmarshal(data, &f) == nil && f.Presence != nil {
					v.take(t, presenceOf(t, string(f.Presence)))
				}
			}
		}()
		return func() { c.CloseNow(); <-done }
	}},
}

// present polls in a topic until ctx ends.
func present(t *testing.T, s *server, ctx context.Context, id, position, topic string, header ...string) {
	for ctx.Err() == nil {
		path := "/poll" + query("format", "json", "topic", topic, "after", position)
		a, err := s.try(s.request(t, ctx, path, append(header, "Gpoll-Client-Id", id)...))
		if err != nil {
			return
		}
		position = a.batch(t).Position
	}
}

// Two hundred clients poll for five minutes. Each watcher sees each of them come once, and go once: ClientTTL after the
// last poll.
func TestPresenceDoesNotFlap(t *testing.T) {
	for _, w := range watchings {
		t.Run(w.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, setup{memory: true, broadcaster: openly})
				v := newView()
				defer w.open(t, s, v, nil, "room")()
				synctest.Wait()
				ctx, cancel := context.WithCancel(t.Context())
				const clients = 200
				var polls sync.WaitGroup
				defer polls.Wait()
				defer cancel()
				for range clients {
					id, position := s.register(t)
					polls.Go(func() { present(t, s, ctx, id, position, "room") })
				}
				time.Sleep(5 * time.Minute)
				if joins, leaves := v.numbers(); joins != clients || leaves != 0 {
					t.Fatalf("after 5 minutes: %d joins, %d leaves", joins, leaves)
				}
				if got, want := v.ids("room"), idsOf(s.Presence("room")); len(want) != clients || !slices.Equal(got, want) {
					t.Errorf("the watcher knows %d members, Presence has %d", len(got), len(want))
				}
				cancel()
				polls.Wait()
				time.Sleep(59 * time.Second)
				if joins, leaves := v.numbers(); joins != clients || leaves != 0 {
					t.Fatalf("59 seconds after the last poll: %d joins, %d leaves", joins, leaves)
				}
				time.Sleep(5 * time.Second)
				if joins, leaves := v.numbers(); joins != clients || leaves != clients {
					t.Fatalf("at the end: %d joins, %d leaves", joins, leaves)
				}
				if members := s.Presence("room"); len(members) != 0 {
					t.Errorf("Presence still has %d", len(members))
				}
			})
		})
	}
}

// A client whose other topics change is present in those that stay, at every moment: the routines' index must not lose
// them in between, for a message and a watcher look there.
func TestPresenceWhileOtherTopicsChange(t *testing.T) {
	s := start(t, setup{})
	c := s.socket(t, "/poll/ws"+query("topic", "stays"), "")
	client, _ := s.Client(idOf(t, frame(t, c)))
	over := make(chan struct{})
	go func() { // ends after so many changes
		defer close(over)
		for range 200_000 {
			if err := errors.Join(client.Subscribe("other"), client.Unsubscribe("other")); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	lost := 0
	for {
		select {
		case <-over:
			if lost > 0 {
				t.Errorf("%d times nobody was present", lost)
			}
			return
		default:
			if len(s.Presence("stays")) != 1 {
				lost++
			}
		}
	}
}

// A client goes from each transport to each. Nobody sees it come or go.
func TestPresenceStaysAcrossTransports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: openly})
		var views []*view
		for _, w := range watchings {
			v := newView()
			defer w.open(t, s, v, nil, "room")()
			views = append(views, v)
		}
		synctest.Wait()
		id, position := s.register(t)
		attach := []func() (stop func()){
			func() func() {
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { // ends with ctx, or when it is superseded
					defer close(done)
					r := s.request(t, ctx, "/poll"+query("topic", "room", "after", position), "Gpoll-Client-Id", id)
					_, _ = s.try(r)
				}()
				return func() { cancel(); <-done }
			},
			func() func() {
				return s.events(t, "/poll/events"+query("topic", "room", "client-id", id)).close
			},
			func() func() {
				c := s.socket(t, "/poll/ws"+query("topic", "room", "client-id", id), "")
				return func() { c.CloseNow() }
			},
			func() func() {
				c := s.socket(t, "/poll/ws", "gpoll.v1")
				say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q,"topics":["room"]}}`, id))
				return func() { c.CloseNow() }
			},
		}
		for i := range attach {
			for j := range attach {
				for _, first := range []bool{true, false} { // the old attach goes first, or the new one comes first
					stop := attach[i]()
					time.Sleep(3 * time.Second)
					if first {
						stop()
						time.Sleep(3 * time.Second)
					}
					again := attach[j]()
					time.Sleep(3 * time.Second)
					stop()
					again()
					time.Sleep(3 * time.Second)
				}
			}
		}
		for i, v := range views {
			if joins, leaves := v.numbers(); joins != 1 || leaves != 0 {
				t.Errorf("%s: %d joins, %d leaves", watchings[i].name, joins, leaves)
			}
		}
		s.RemoveClient(id)
		time.Sleep(2 * time.Second)
		for i, v := range views {
			if joins, leaves := v.numbers(); joins != 1 || leaves != 1 {
				t.Errorf("%s, at the end: %d joins, %d leaves", watchings[i].name, joins, leaves)
			}
		}
	})
}

// Who asks how, and what the Grant says: each transport and form answers in its way, and says what to do.
func TestPresenceIsAskedFor(t *testing.T) {
	const plain, forbidden = "presence-needs-json", "presence-forbidden"
	for _, how := range []string{"granted", "denied", "no function", "no Authorize"} {
		t.Run(how, func(t *testing.T) {
			s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
				if how == "no Authorize" {
					return
				}
				b.Authorize = func(*http.Request) (g gpoll.Grant, err error) {
					if how != "no function" {
						g.Presence = func(string) bool { return how == "granted" }
					}
					return g, nil
				}
			}})
			granted := how == "granted"
			id, position := s.register(t)
			for _, tt := range []struct {
				query, body, code string
			}{
				{"?presence=room&format=json", "", forbidden},
				{"?presence=room&presence=hall&format=json", "", forbidden},
				{"?presence=room", "", plain},
				{"?presence=room&format=plain", "", plain},
				{"", `{"presence":["room"],"format":"json"}`, forbidden},
				{"", `{"presence":["room"]}`, plain},
				{"?presence=no%20spaces&format=json", "", "bad-topic"},
				{"?presence-after=" + position + "&format=json", "", "bad-request"},
				{"?presence=room&presence-after=1&format=json", "", "bad-position"},
				{"?presence=room&format=json&presence-after=" + position + "&presence-after=" + position, "", "bad-request"},
				{"?presence=room" + strings.Repeat("&presence=a", 128) + "&format=json", "", "too-many-topics"},
				{"?presence=room", `{"format":"json"}`, "bad-request"},
				{"?presence-after=" + position, `{"format":"json"}`, "bad-request"},
			} {
				for _, path := range []string{"/poll", "/poll/events"} {
					if granted && tt.code == forbidden && path == "/poll/events" {
						continue // below
					}
					var a answer
					if tt.body == "" {
						a = s.get(t, path+tt.query, "Gpoll-Client-Id", id)
					} else {
						a = s.post(t, path+tt.query, id, tt.body)
					}
					if granted && tt.code == forbidden {
						if a.status != http.StatusOK || !strings.Contains(a.body, `"presence":{"position":"`) {
							t.Errorf("%s%s %s: %d %s", path, tt.query, tt.body, a.status, a.body)
						}
						continue
					}
					if got := a.code(t); got != tt.code {
						t.Errorf("%s%s %s: %s, want %s", path, tt.query, tt.body, got, tt.code)
					}
				}
			}
			if granted {
				e := s.events(t, "/poll/events?presence=room&format=json")
				for _, name := range []string{"client-id", "presence"} {
					if got := e.next(t); got.name != name {
						t.Errorf("an event %+v, want %s", got, name)
					}
				}
			}
			// A WebSocket.
			if _, a, err := s.trySocket(t, "/poll/ws?presence=room", ""); err == nil || a.status != http.StatusBadRequest {
				t.Errorf("plain WebSocket: %v, %d", err, a.status)
			}
			if _, a, err := s.trySocket(t, "/poll/ws?presence=room&format=json", ""); err == nil ||
				a.status != http.StatusBadRequest {
				t.Errorf("plain WebSocket, format=json: %v, %d", err, a.status)
			}
			if _, a, err := s.trySocket(t, "/poll/ws?presence=room&format=json", "gpoll.v1"); err == nil ||
				a.status != http.StatusBadRequest {
				t.Errorf("gpoll.v1 with presence in the query: %v, %d", err, a.status)
			}
			c := s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, c, `{"hello":{"presence":["room"]}}`)
			if granted {
				if got := frame(t, c); !strings.HasPrefix(got, `{"welcome"`) {
					t.Errorf("the answer to the hello is %s", got)
				}
				if got := frame(t, c); !strings.HasSuffix(got, `"topics":[{"topic":"room","count":0,"members":[]}]}}`) {
					t.Errorf("then comes %s", got)
				}
			} else if code, reason := closing(t, c); code != 4001 || reason != forbidden {
				t.Errorf("the hello: close %d %s", code, reason)
			}
			c = s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, c, `{"hello":{}}`)
			frame(t, c)
			want := `{"error":{"code":"presence-forbidden"`
			if granted {
				want = `{"watching":{"topics":["hall","room"],"position":"`
			}
			say(t, c, `{"presence":["room","hall"]}`)
			if got := frame(t, c); !strings.HasPrefix(got, want) {
				t.Errorf("a frame: %s", got)
			}
			if granted {
				frame(t, c)
			}
			for _, tt := range [][2]string{
				{`{"presence":["no spaces"]}`, `{"error":{"code":"bad-topic"`},
				{`{"presence":"room"}`, `{"error":{"code":"bad-request"`},
				{`{"presence":["room"],"subscribe":["room"]}`, `{"error":{"code":"bad-request"`},
				{`{"presence":[]}`, `{"watching":{"topics":[],"position":"`},
			} {
				say(t, c, tt[0])
				if got := frame(t, c); !strings.HasPrefix(got, tt[1]) {
					t.Errorf("%s: %s", tt[0], got)
				}
			}
			a := s.post(t, "/poll/commands", id, `{"presence":["room"]}`)
			if got := a.code(t); got != "unsupported" {
				t.Errorf("posted: %s", got)
			}
		})
	}
}

// What comes and goes within one batch is not told, and what it tells is sorted.
func TestPresenceBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: openly})
		v := newView()
		defer watchings[2].open(t, s, v, nil, "room", "hall")()
		time.Sleep(time.Second)
		if told, whole := v.tellings(); told != 1 || whole != 2 {
			t.Fatalf("told %d times, %d snapshots", told, whole)
		}
		c := s.socket(t, "/poll/ws", "gpoll.v1", "User", "alice")
		say(t, c, `{"hello":{"topics":["room"]}}`)
		frame(t, c)
		for range 10 {
			for _, command := range []string{"unsubscribe", "subscribe"} {
				say(t, c, `{"`+command+`":["room"]}`)
				frame(t, c)
				say(t, c, `{"`+command+`":["hall"]}`)
				frame(t, c)
			}
		}
		say(t, c, `{"unsubscribe":["hall"]}`)
		frame(t, c)
		time.Sleep(10 * time.Second)
		joins, leaves := v.numbers()
		if told, _ := v.tellings(); told != 2 || joins != 1 || leaves != 0 {
			t.Errorf("told %d times: %d joins, %d leaves", told, joins, leaves)
		}
		if got := s.Presence("room"); len(got) != 1 || got[0].User != "alice" || len(s.Presence("hall")) != 0 {
			t.Errorf("Presence: %v", got)
		}
		// The same the other way round: it goes and is back.
		for _, command := range []string{"unsubscribe", "subscribe"} {
			say(t, c, `{"`+command+`":["room"]}`)
			frame(t, c)
		}
		time.Sleep(10 * time.Second)
		if told, _ := v.tellings(); told != 2 {
			t.Errorf("told %d times", told)
		}
		// Changes come once in a second.
		for range 10 {
			say(t, c, `{"unsubscribe":["room"]}`)
			frame(t, c)
			time.Sleep(time.Second)
			say(t, c, `{"subscribe":["room"]}`)
			frame(t, c)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		joins, leaves = v.numbers()
		if told, _ := v.tellings(); told > 23 || joins != leaves+1 {
			t.Errorf("told %d times in 22 seconds: %d joins, %d leaves", told, joins, leaves)
		}
		if s.Stats().WindowMessages != 0 {
			t.Error("the window of the messages is not empty")
		}
	})
}

// A watcher that comes back gets the changes since its position, and the members where those have left the window.
func TestPresenceResumes(t *testing.T) {
	for _, w := range watchings {
		for _, away := range []time.Duration{10 * time.Second, 50 * time.Second, 3 * time.Minute} {
			t.Run(fmt.Sprintf("%s after %v", w.name, away), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := start(t, setup{memory: true, broadcaster: openly})
					other := newView()
					defer watchings[1].open(t, s, other, nil, "room")() // the topic stays in the book
					stay := s.events(t, "/poll/events?topic=room", "User", "bob")
					go func() { _, _ = stay.read(); _, _ = stay.read() }() // ends with the test
					time.Sleep(2 * time.Second)
					v := newView()
					stop := w.open(t, s, v, nil, "room")
					time.Sleep(2 * time.Second)
					stop()
					if v.whole != 1 || len(v.ids("room")) != 1 {
						t.Fatalf("%d snapshots, members %v", v.whole, v.ids("room"))
					}
					for range 3 {
						s.events(t, "/poll/events?topic=room")
						time.Sleep(1200 * time.Millisecond)
					}
					time.Sleep(away)
					stop = w.open(t, s, v, nil, "room")
					time.Sleep(2 * time.Second)
					stop()
					if got, want := v.ids("room"), idsOf(s.Presence("room")); len(want) != 4 || !slices.Equal(got, want) {
						t.Errorf("members %v, Presence has %v", got, want)
					}
					want := 1
					if away > 2*time.Minute {
						want = 2
					}
					if v.whole != want {
						t.Errorf("%d snapshots, want %d", v.whole, want)
					}
					// A position of another life of the server, or of the future, is no position.
					for _, position := range []string{"9f86d081884c7d65-1", v.position[:17] + "9007199254740991"} {
						v.position = position
						before := v.whole
						stop = w.open(t, s, v, nil, "room")
						time.Sleep(2 * time.Second)
						stop()
						if v.whole != before+1 || !slices.Equal(v.ids("room"), idsOf(s.Presence("room"))) {
							t.Errorf("%s: %d snapshots more", position, v.whole-before)
						}
					}
				})
			})
		}
	}
}

// Nobody watches a topic for longer than ClientTTL: a position of before is no position any more.
func TestPresenceIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: openly})
		v := newView()
		watchings[2].open(t, s, v, nil, "room")()
		time.Sleep(5 * time.Minute)
		s.events(t, "/poll/events?topic=room")
		time.Sleep(time.Minute)
		defer watchings[2].open(t, s, v, nil, "room")()
		time.Sleep(2 * time.Second)
		if got := v.ids("room"); len(got) != 1 {
			t.Errorf("members %v", got)
		}
	})
}

// Of a topic with more than MaxPresence members a watcher is told the number.
func TestPresenceOfManyMembers(t *testing.T) {
	for _, w := range watchings {
		t.Run(w.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { openly(b); b.MaxPresence = 10 }})
				v := newView()
				defer w.open(t, s, v, nil, "room")()
				time.Sleep(time.Second)
				var members []string
				for i := range 15 {
					members = append(members, idOf(t, s.events(t, "/poll/events?topic=room").next(t).data))
					time.Sleep(2 * time.Second)
					if n, named := v.count("room"); n != i+1 || named != (i+1 <= 10) {
						t.Errorf("with %d members: count %d, members %v", i+1, n, v.ids("room"))
					}
				}
				late := newView()
				defer w.open(t, s, late, nil, "room")()
				time.Sleep(2 * time.Second)
				if n, named := late.count("room"); n != 15 || named {
					t.Errorf("a late watcher: count %d, members %v", n, late.ids("room"))
				}
				for i, id := range members {
					s.RemoveClient(id)
					time.Sleep(2 * time.Second)
					left := 15 - i - 1
					for _, v := range []*view{v, late} {
						if n, named := v.count("room"); n != left || named != (left <= 9) {
							t.Errorf("with %d members: count %d, members %v", left, n, v.ids("room"))
						}
					}
				}
			})
		})
	}
}

// Revoke ends a watch, and the user's clients leave. A Grant that is renewed may take the right to watch away, and
// change what is said of a client.
func TestPresenceFollowsTheGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		may, info := true, "first"
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
				mu.Lock()
				defer mu.Unlock()
				user := r.Header.Get("Authorization")
				g := gpoll.Grant{User: user, Info: info, Expires: time.Now().Add(10 * time.Second)}
				if user == "watcher" {
					g.Expires = time.Time{}
				}
				here := may || user == "watcher"
				g.Presence = func(string) bool { return here }
				return g, nil
			}
		}})
		v := newView()
		defer watchings[2].open(t, s, v, []string{"Authorization", "watcher"}, "room")()
		synctest.Wait()
		events := s.events(t, "/poll/events?topic=room&presence=room&format=json", "Authorization", "alice")
		events.next(t)
		events.next(t)
		c := s.socket(t, "/poll/ws", "gpoll.v1", "Authorization", "bob")
		say(t, c, `{"hello":{"topics":["room"]}}`)
		frame(t, c)
		say(t, c, `{"presence":["room"]}`)
		frame(t, c)
		time.Sleep(2 * time.Second)
		if joins, _ := v.numbers(); joins != 2 {
			t.Fatalf("%d joins", joins)
		}
		for _, m := range s.Presence("room") {
			if m.Info != "first" || v.member("room", m.ID) != (presenceMember{m.ID, m.User, "first"}) {
				t.Errorf("%v; the watcher knows %v", m, v.member("room", m.ID))
			}
		}
		mu.Lock()
		info = "second"
		mu.Unlock()
		time.Sleep(12 * time.Second)
		for _, m := range s.Presence("room") {
			if m.Info != "second" || v.member("room", m.ID).Info != "second" {
				t.Errorf("renewed: %v; the watcher knows %v", m, v.member("room", m.ID))
			}
		}
		if _, leaves := v.numbers(); leaves != 0 {
			t.Errorf("%d leaves", leaves)
		}
		mu.Lock()
		may = false
		mu.Unlock()
		if code, reason := closing(t, c); code != 4001 || reason != "presence-forbidden" {
			t.Errorf("close %d %s", code, reason)
		}
		for {
			ev, err := events.read()
			if err != nil {
				t.Fatal("no end")
			}
			if ev.name == "end" {
				if !strings.Contains(ev.data, `"presence-forbidden"`) {
					t.Errorf("the end is %s", ev.data)
				}
				if ev.retry != "86400000" { // an EventSource is not to come back
					t.Errorf("retry %s", ev.retry)
				}
				break
			}
		}
		if n := s.Revoke("alice") + s.Revoke("bob"); n != 2 {
			t.Errorf("revoked %d", n)
		}
		time.Sleep(2 * time.Second)
		if _, leaves := v.numbers(); leaves != 2 || len(s.Presence("room")) != 0 {
			t.Errorf("%d leaves, Presence %v", leaves, s.Presence("room"))
		}
		s.Revoke("watcher")
	})
}

// What is said of a client changes while it is away from the topic, all within one batch.
func TestPresenceTellsInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: openly})
		v := newView()
		defer watchings[2].open(t, s, v, nil, "room")()
		synctest.Wait()
		id := "0"
		hello := func(info, topics string) {
			c := s.socket(t, "/poll/ws", "gpoll.v1", "Info", info)
			say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q,"topics":[%s]}}`, id, topics))
			if id == "0" {
				_, welcome, _ := strings.Cut(frame(t, c), `"client-id":"`)
				id, _, _ = strings.Cut(welcome, `"`)
			}
			go closeFrame(c) // ends with the connection
			time.Sleep(50 * time.Millisecond)
		}
		public := func() string { return gpoll.PublicID(id) }
		hello("one", `"room"`)
		time.Sleep(2 * time.Second)
		if got := v.member("room", public()).Info; got != "one" {
			t.Fatalf("at first %q", got)
		}
		hello("two", "")
		hello("two", `"room"`)
		time.Sleep(2 * time.Second)
		if got := v.member("room", public()).Info; got != "two" {
			t.Errorf("then %q", got)
		}
		hello("", `"room"`)
		time.Sleep(2 * time.Second)
		if got := v.member("room", public()); got.ID == "" || got.Info != "" {
			t.Errorf("in the end %v", got)
		}
		if _, leaves := v.numbers(); leaves != 0 {
			t.Errorf("%d leaves", leaves)
		}
	})
}

// A Grant.Info that cannot be told is refused.
func TestPresenceOfABadInfo(t *testing.T) {
	for _, info := range []string{strings.Repeat("x", 513), "\xff"} {
		s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
			b.Logger = slog.New(slog.DiscardHandler)
			b.Authorize = func(*http.Request) (gpoll.Grant, error) { return gpoll.Grant{Info: info}, nil }
		}})
		if a := s.get(t, "/poll"); a.status != http.StatusInternalServerError || a.code(t) != "internal" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

// A client is present from its first attach, not from its registration; and AddClient's clients are in no topic.
func TestPresenceBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		a := s.get(t, "/poll"+query("topic", "room", "client-id", "0"))
		id := idOf(t, a.body)
		if got := s.Presence("room"); len(got) != 0 {
			t.Errorf("registered: %v", got)
		}
		if _, err := s.GetChannel(s.AddClient()); err != nil {
			t.Fatal(err)
		}
		done := s.later(t, "/poll"+query("client-id", id))
		synctest.Wait()
		if got := s.Presence("room"); len(got) != 1 || got[0] != (gpoll.Member{ID: gpoll.PublicID(id)}) {
			t.Errorf("attached: %v", got)
		}
		s.Send("x")
		<-done
		if got := s.Presence("room"); len(got) != 1 {
			t.Errorf("between two polls: %v", got)
		}
		// The next poll with a cursor names other topics.
		done = s.later(t, "/poll"+query("client-id", id, "topic", "hall", "after", a.position()))
		<-done
		if len(s.Presence("room")) != 0 || len(s.Presence("hall")) != 1 {
			t.Errorf("room %v, hall %v", s.Presence("room"), s.Presence("hall"))
		}
	})
}

// Polls on Listener that watch always pass through net/http; others of the same connection do not, and end the watch.
func TestPresenceOnListener(t *testing.T) {
	s := start(t, setup{listener: true, broadcaster: func(b *gpoll.Broadcaster) {
		openly(b)
		b.PollWait = 50 * time.Millisecond
	}})
	id, position := s.register(t)
	for range 5 { // the same bytes each time
		a := s.get(t, "/poll?format=json&topic=room&presence=room&after="+position, "Gpoll-Client-Id", id)
		if !strings.Contains(a.body, `"presence":{"position":"`) {
			t.Fatal(a.body)
		}
	}
	if n := s.Stats().Repeats; n != 0 {
		t.Errorf("%d polls that watch did not pass through net/http", n)
	}
	for i := range 10 {
		v := newView()
		a := s.get(t, "/poll"+presenceQuery("", []string{"room"})+"&after="+position+"&topic=room", "Gpoll-Client-Id", id)
		var body struct{ Presence json.RawMessage }
		if err := json.Unmarshal([]byte(a.body), &body); err != nil {
			t.Fatalf("%s: %v", a.body, err)
		}
		v.take(t, presenceOf(t, string(body.Presence)))
		a = s.get(t, "/poll"+presenceQuery(v.position, []string{"room"})+"&after="+position+"&topic=room",
			"Gpoll-Client-Id", id)
		if !strings.Contains(a.body, `"presence":{"position":"`) {
			t.Fatalf("round %d: %s", i, a.body)
		}
		a = s.get(t, "/poll?format=json&topic=room&after="+position, "Gpoll-Client-Id", id)
		if strings.Contains(a.body, "presence") {
			t.Fatalf("round %d: %s", i, a.body)
		}
	}
}

// Clients come, go, subscribe and stay away at random, and so do the watchers. In the end each watcher knows what
// Presence says, and all that it was told fitted what it knew.
func TestPresenceAtRandom(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { presenceAtRandom(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func presenceAtRandom(t *testing.T, rnd *rand.Rand) {
	s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
		openly(b)
		b.RoutineMaxClients = 3
		b.ClientTTL = 5 * time.Second
		b.MaxPresence = 6
	}})
	topics := []string{"a", "b", "c"}
	some := func() (in []string) {
		for _, topic := range topics {
			if rnd.IntN(2) == 0 {
				in = append(in, topic)
			}
		}
		return in
	}
	type member struct {
		c  *websocket.Conn
		id string
	}
	var members []member
	type watched struct {
		v    *view
		stop func()
		open func(*testing.T, *server, *view, []string, ...string) func()
	}
	var all []watched
	for range 2 {
		for _, w := range watchings {
			v := newView()
			all = append(all, watched{v, w.open(t, s, v, nil, topics...), w.open})
		}
	}
	for range 400 {
		switch n := rnd.IntN(10); {
		case n < 4 && len(members) < 12:
			c := s.socket(t, "/poll/ws", "gpoll.v1", "Info", fmt.Sprint(rnd.IntN(2)))
			id := "0"
			if len(members) > 0 && n == 0 { // it takes over
				id = members[rnd.IntN(len(members))].id
			}
			text, _ := json.Marshal(map[string]any{"hello": map[string]any{"client-id": id, "topics": some()}})
			say(t, c, string(text))
			var f struct {
				Welcome struct {
					ClientID string `json:"client-id"`
				}
			}
			if _, data, err := c.Read(t.Context()); err == nil && json.Unmarshal(data, &f) == nil && f.Welcome.ClientID != "" {
				go closeFrame(c) // ends with the connection
				members = append(members, member{c, f.Welcome.ClientID})
			}
		case n < 7 && len(members) > 0:
			m := members[rnd.IntN(len(members))]
			command := []string{"subscribe", "unsubscribe"}[rnd.IntN(2)]
			text, _ := json.Marshal(map[string]any{command: append([]string{}, some()...)})
			_ = m.c.Write(t.Context(), websocket.MessageText, text) // it may have been superseded
		case n < 8 && len(members) > 0:
			i := rnd.IntN(len(members))
			if rnd.IntN(2) == 0 {
				s.RemoveClient(members[i].id)
			}
			_ = members[i].c.CloseNow() // it may have been superseded
			members = slices.Delete(members, i, i+1)
		case n < 9:
			w := &all[rnd.IntN(len(all))]
			w.stop()
			if rnd.IntN(2) == 0 {
				time.Sleep(time.Duration(rnd.IntN(8)) * time.Second)
			}
			w.stop = w.open(t, s, w.v, nil, topics...)
		default:
			time.Sleep(time.Duration(rnd.IntN(1500)) * time.Millisecond)
		}
		synctest.Wait()
	}
	time.Sleep(20 * time.Second)
	for i, w := range all {
		w.stop()
		for _, topic := range topics {
			want := idsOf(s.Presence(topic))
			if w.v.counts[topic] != len(want) {
				t.Errorf("watcher %d: %d members of %s, want %d", i, w.v.counts[topic], topic, len(want))
			}
			if got := w.v.ids(topic); w.v.topics[topic] != nil && !slices.Equal(got, want) {
				t.Errorf("watcher %d: %s has %v, want %v", i, topic, got, want)
			}
			for _, m := range s.Presence(topic) {
				if known := w.v.topics[topic]; known != nil && known[m.ID].Info != m.Info {
					t.Errorf("watcher %d: %v, want %v", i, known[m.ID], m)
				}
			}
		}
	}
}
