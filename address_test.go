package gpoll_test

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// To whom a message goes, live and in the replay after a cursor, by one mechanism.
func TestAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
				return gpoll.Grant{User: r.Header.Get("Authorization")}, nil
			}
		}})
		type reader struct {
			id, after, user string
			topics          []string
			want            []string
			live            *eventStream
		}
		readers := map[string]*reader{
			"alice's laptop": {user: "alice", topics: []string{"a"}},
			"alice's phone":  {user: "alice", topics: []string{"a", "b"}},
			"bob":            {user: "bob", topics: []string{"b"}},
			"nobody":         {},
		}
		header := func(r *reader) []string {
			if r.user == "" {
				return nil
			}
			return []string{"Authorization", r.user}
		}
		path := func(p string, r *reader) string {
			pairs := []string{"client-id", r.id, "after", r.after, "format", "json"}
			for _, topic := range r.topics {
				pairs = append(pairs, "topic", topic)
			}
			return p + query(pairs...)
		}
		for _, r := range readers {
			r.id, r.after = s.register(t, header(r)...)
			r.live = s.events(t, path("/poll/events", r), header(r)...)
			if ev := r.live.next(t); ev.name != "client-id" {
				t.Fatalf("first event %+v", ev)
			}
		}
		public := func(names ...string) (ids []string) {
			for _, name := range names {
				ids = append(ids, gpoll.PublicID(readers[name].id))
			}
			return ids
		}
		all := []string{"alice's laptop", "alice's phone", "bob", "nobody"}
		for i, c := range []struct {
			message gpoll.Message
			to      []string
		}{
			{gpoll.Message{}, all},
			{gpoll.Message{Topic: "a"}, all[:2]},
			{gpoll.Message{Topic: "b"}, all[1:3]},
			{gpoll.Message{Topic: "c"}, nil},
			{gpoll.Message{To: gpoll.ToClient(public("bob")[0])}, all[2:3]},
			{gpoll.Message{To: gpoll.ToClient("0123456789abcdef0123456789abcdef")}, nil},
			{gpoll.Message{To: gpoll.ToUser("alice")}, all[:2]},
			{gpoll.Message{To: gpoll.ToUser("a")}, nil}, // a topic's name is no user's
			{gpoll.Message{Topic: "alice"}, nil},
			{gpoll.Message{Topic: public("bob")[0]}, nil},
			{gpoll.Message{Except: public("nobody", "bob")}, all[:2]},
			{gpoll.Message{Topic: "b", Except: public("alice's phone")}, all[2:3]},
			{gpoll.Message{To: gpoll.ToUser("alice"), Except: public("alice's laptop")}, all[1:2]},
			{gpoll.Message{Except: public(all...)}, nil},
			{gpoll.Message{}, all},
		} {
			c.message.Data = fmt.Append(nil, i)
			if _, err := s.Publish(t.Context(), c.message); err != nil {
				t.Fatal(err)
			}
			for _, name := range c.to {
				readers[name].want = append(readers[name].want, fmt.Sprint(i))
			}
		}
		for name, r := range readers {
			want := strings.Join(r.want, " ")
			var live []string
			for range r.want {
				ev := r.live.next(t)
				live = append(live, elementOf(t, ev.data).Data)
			}
			if got := strings.Join(live, " "); got != want {
				t.Errorf("%s, live: %s\nwant %s", name, got, want)
			}
			r.live.close()
			v := s.get(t, path("/poll", r), header(r)...).batch(t)
			if got := strings.Join(v.payloads(t), " "); got != want || len(v.Messages) != len(r.want) {
				t.Errorf("%s, replayed: %s\nwant %s", name, got, want)
			}
		}

		for what, m := range map[string]gpoll.Message{
			"Topic and To":     {Topic: "a", To: gpoll.ToUser("alice")},
			"To nobody":        {To: gpoll.ToUser("")},
			"a long id":        {ID: strings.Repeat("x", 1000)},
			"a topic of space": {Topic: " "},
		} {
			_, err := s.Publish(t.Context(), m)
			if what == "To nobody" && m.To.IsZero() {
				continue
			}
			if !errors.Is(err, gpoll.ErrBadMessage) {
				t.Errorf("Publish with %s: %v", what, err)
			}
		}
	})
}

// A topic of a request with a cursor is owed from that cursor on, even a new topic. Without a cursor the client keeps
// its topics.
func TestTopicsOfARequest(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.PollWait = 20 * time.Millisecond }})
	id, after := s.register(t)
	s.mustPublish(t, "a", "1")
	s.mustPublish(t, "b", "2")
	last := s.mustPublish(t, "a", "3").String()
	poll := func(pairs ...string) string {
		t.Helper()
		v := s.get(t, "/poll"+query(append([]string{"client-id", id, "format", "json"}, pairs...)...)).batch(t)
		if v.Position != last {
			t.Errorf("scanned to %s, want %s", v.Position, last)
		}
		return strings.Join(v.payloads(t), ",")
	}
	for range 2 { // a pure function of the request
		if got := poll("after", after, "topic", "a"); got != "1,3" {
			t.Errorf("a: %s", got)
		}
		if got := poll("after", after, "topic", "b"); got != "2" {
			t.Errorf("b: %s", got)
		}
		if got := poll("after", after, "topic", "b", "topic", "a", "topic", "b"); got != "1,2,3" {
			t.Errorf("a and b: %s", got)
		}
	}
	if c, _ := s.Client(id); strings.Join(c.Topics(), ",") != "a,b" {
		t.Errorf("Topics() is %v", c.Topics())
	}
	if got := poll("after", after); got != "" {
		t.Errorf("no topic: %s", got)
	}
	if c, _ := s.Client(id); len(c.Topics()) > 0 {
		t.Errorf("Topics() is %v", c.Topics())
	}

	// Without a cursor it goes on after the last one that was brought, which is what the client has certainly got.
	if got := poll("after", last); got != "" {
		t.Errorf("at the end: %s", got)
	}
	if a := s.get(t, "/poll"+query("client-id", id, "topic", "a")); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
	s.mustPublish(t, "b", "4")
	s.mustPublish(t, "a", "5")
	s.mustPublish(t, "a", "6")
	for _, want := range []string{"5", "6"} {
		if a := s.get(t, "/poll"+query("client-id", id)); a.body != want {
			t.Errorf("%d %q, want %q", a.status, a.body, want)
		}
	}
}

func TestLast(t *testing.T) {
	s := start(t, setup{})
	for i := range 10 {
		s.mustPublish(t, "a", fmt.Sprint("a", i))
		s.mustPublish(t, "b", fmt.Sprint("b", i))
		s.Send(fmt.Sprint("all", i))
	}
	_, now := s.register(t)
	v := s.get(t, "/poll?format=json&topic=a&topic=b&topic=none&last=3").batch(t)
	if got := strings.Join(v.payloads(t), ","); got != "a7,b7,a8,b8,a9,b9" || v.Position != now {
		t.Errorf("JSON registration: %s at %s, want it at %s", got, v.Position, now)
	}

	// Plain: the registration carries the id, the polls carry the messages.
	id := idOf(t, s.get(t, "/poll?topic=a&last=2").body)
	s.Send("new")
	for _, want := range []string{"a8", "a9", "new"} {
		if a := s.get(t, "/poll"+query("client-id", id)); a.body != want {
			t.Errorf("plain poll: %d %q, want %q", a.status, a.body, want)
		}
	}

	e := s.events(t, "/poll/events?topic=a&last=2")
	e.next(t)
	for _, want := range []string{"a8", "a9"} {
		if ev := e.next(t); ev.data != want {
			t.Errorf("SSE: %+v, want %q", ev, want)
		}
	}
	e.close()

	c := s.socket(t, "/poll/ws?topic=a&last=2", "")
	frame(t, c)
	for _, want := range []string{"a8", "a9"} {
		if got := frame(t, c); got != want {
			t.Errorf("WebSocket: %q, want %q", got, want)
		}
	}
	c.CloseNow()

	c = s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, `{"hello":{"topics":["a"],"last":2}}`)
	frame(t, c)
	for _, want := range []string{"a8", "a9"} {
		if got := elementOf(t, frame(t, c)); got.Data != want {
			t.Errorf("gpoll.v1: %+v, want %q", got, want)
		}
	}
	c.CloseNow()

	// Beside a cursor it is ignored.
	id, _ = s.register(t)
	after := s.mustPublish(t, "a", "later").String()
	s.mustPublish(t, "a", "latest")
	v = s.get(t, "/poll"+query("client-id", id, "after", after, "topic", "a", "last", "5", "format", "json")).batch(t)
	if got := strings.Join(v.payloads(t), ","); got != "latest" {
		t.Errorf("beside a cursor: %s", got)
	}

	// Also where a client registers.
	pairs := []string{"after", after, "topic", "a", "last", "5"}
	v = s.get(t, "/poll"+query(append(pairs, "format", "json")...)).batch(t)
	for v.More || len(v.Messages) == 0 {
		v = s.get(t, "/poll"+query("client-id", v.ClientID, "after", v.Position, "topic", "a", "format", "json")).batch(t)
	}
	if got := strings.Join(v.payloads(t), ","); got != "latest" {
		t.Errorf("JSON registration beside a cursor: %s", got)
	}
	a := s.get(t, "/poll"+query("client-id", idOf(t, s.get(t, "/poll"+query(pairs...)).body)))
	if a.body != "latest" {
		t.Errorf("plain registration beside a cursor: %d %q", a.status, a.body)
	}
	e = s.events(t, "/poll/events"+query(pairs...))
	e.next(t)
	if ev := e.next(t); ev.data != "latest" {
		t.Errorf("SSE beside a cursor: %+v", ev)
	}
	c = s.socket(t, "/poll/ws"+query(pairs...), "")
	frame(t, c)
	if got := frame(t, c); got != "latest" {
		t.Errorf("WebSocket beside a cursor: %q", got)
	}
	c = s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, fmt.Sprintf(`{"hello":{"topics":["a"],"after":%q,"last":2}}`, after))
	frame(t, c)
	if got := elementOf(t, frame(t, c)); got.Data != "latest" {
		t.Errorf("gpoll.v1 beside a cursor: %+v", got)
	}
}

// A topic with limits of its own does not push out the others, and the others do not push it out.
func TestTopicLimits(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.History = gpoll.Limits{Count: 20}
		b.TopicLimits = func(topic string) gpoll.Limits {
			if topic == "busy" {
				return gpoll.Limits{Count: 5}
			}
			return gpoll.Limits{}
		}
	}})
	id, after := s.register(t)
	send := s.witness(t)
	s.mustPublish(t, "quiet", "whisper")
	for i := range 1000 {
		s.mustPublish(t, "busy", fmt.Sprint(i))
	}
	send("end")
	v := s.get(t, "/poll"+query("client-id", id, "after", after, "topic", "quiet", "format", "json")).batch(t)
	if got := strings.Join(v.payloads(t), ","); got != "whisper,end" || len(v.Messages) != 2 {
		t.Errorf("quiet: %+v", v.Messages)
	}
	v = s.get(t, "/poll"+query("client-id", id, "after", after, "topic", "busy", "format", "json")).batch(t)
	if got := strings.Join(v.payloads(t), ","); got != "995,996,997,998,999,end" || v.Messages[0].Gap == nil ||
		len(v.Messages) != 7 {
		t.Errorf("busy: %+v", v.Messages)
	}
}

// A publish with an id that was published already returns the first Position and adds nothing.
func TestPublishID(t *testing.T) {
	s := start(t, setup{})
	id, after := s.register(t)
	m := gpoll.Message{ID: "once", Data: []byte("m")}
	first, err := s.Publish(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if again, err := s.Publish(t.Context(), m); err != nil || again != first {
			t.Errorf("again: %v %v, want %v", again, err, first)
		}
	}
	m.ID = "another"
	if second, err := s.Publish(t.Context(), m); err != nil || second.Seq != first.Seq+1 || second.Epoch != first.Epoch {
		t.Errorf("another id: %v %v", second, err)
	}
	v := s.get(t, "/poll"+query("client-id", id, "after", after, "format", "json")).batch(t)
	if len(v.Messages) != 2 {
		t.Errorf("%+v", v.Messages)
	}
}

// What was published is a copy: the publisher may write to its bytes.
func TestPublishCopies(t *testing.T) {
	s := start(t, setup{})
	id, after := s.register(t)
	data := []byte("before")
	if _, err := s.Publish(t.Context(), gpoll.Message{Data: data}); err != nil {
		t.Fatal(err)
	}
	copy(data, "after!")
	if a := s.get(t, "/poll"+query("client-id", id, "after", after)); a.body != "before" {
		t.Errorf("%q", a.body)
	}
}

func TestTopicForbidden(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.Authorize = func(*http.Request) (gpoll.Grant, error) {
			return gpoll.Grant{User: "alice", Topics: []string{"given"},
				Subscribe: func(topic string) bool { return topic == "a" }}, nil
		}
	}})
	id, after := s.register(t)
	for _, by := range gets {
		a := s.get(t, by.path+query("client-id", id, "topic", "a", "topic", "b"), by.header...)
		if a.status != http.StatusForbidden || a.code(t) != "topic-forbidden" {
			t.Errorf("%s: %d %s", by.name, a.status, a.body)
		}
	}
	if a := s.post(t, "/poll", id, `{"topics":["b"]}`); a.status != http.StatusForbidden {
		t.Errorf("POST: %d %s", a.status, a.body)
	}
	c := s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, `{"hello":{"topics":["b"]}}`)
	if code, reason := closing(t, c); code != 4001 {
		t.Errorf("hello: close %d %q", code, reason)
	}
	c = s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, `{"hello":{"topics":["a"]}}`)
	frame(t, c)
	say(t, c, `{"subscribe":["b"]}`)
	if got := frame(t, c); !strings.HasPrefix(got, `{"error":{"code":"topic-forbidden"`) {
		t.Errorf("subscribe: %s", got)
	}
	s.mustPublish(t, "b", "secret")
	s.mustPublish(t, "given", "granted")
	s.mustPublish(t, "a", "asked")
	for _, want := range []string{"granted", "asked"} {
		if got := elementOf(t, frame(t, c)); got.Data != want {
			t.Errorf("gpoll.v1: %+v, want %q", got, want)
		}
	}
	v := s.get(t, "/poll"+query("client-id", id, "after", after, "topic", "a", "format", "json")).batch(t)
	if got := strings.Join(v.payloads(t), ","); got != "granted,asked" {
		t.Errorf("replay: %s", got)
	}
}

// A client that registered with topics keeps them when it is attached inside the process.
func TestGetChannelKeepsTopics(t *testing.T) {
	s := start(t, setup{memory: true})
	id := idOf(t, s.get(t, "/poll?client-id=0&topic=news").body)
	routine, uuid, _ := strings.Cut(id, "$")
	n, err := strconv.Atoi(routine)
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := s.GetChannel(uuid, n)
	if err != nil {
		t.Fatal(err)
	}
	s.mustPublish(t, "sport", "no")
	s.mustPublish(t, "news", "yes")
	if got := <-pipe; got != "yes" {
		t.Errorf("got %q", got)
	}
}
