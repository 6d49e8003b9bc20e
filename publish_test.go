package gpoll_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/corvuscrypto/gpoll"
)

// An audience is the clients of one Broadcaster, each with its channel. It shows what a message does to all of them.
type audience struct {
	*gpoll.Broadcaster
	members []*fellow
}

type fellow struct {
	id, public, after, user string
	topics                  []string
	pipe                    chan string
	want                    []string // payloads
}

// gather registers five clients on three routines. With batches, messages that are published at one instant go out in
// one round.
func gather(t testing.TB, batches bool) *audience {
	b := gpoll.NewBroadcaster()
	alarm(t, b)
	b.RoutineMaxClients, b.ClientBufferSize, b.Authorize = 2, 1000, userOf
	if batches {
		b.SyncDelayMs = 1
	}
	c := &audience{Broadcaster: b, members: []*fellow{
		{user: "alice", topics: []string{"a"}},
		{user: "alice", topics: []string{"a", "b"}},
		{user: "bob", topics: []string{"b"}},
		{},
		{user: "bob", topics: []string{"a", "b"}},
	}}
	for _, f := range c.members {
		w := f.ask(t, b)
		f.id, f.after = idOf(t, w.Body.String()), w.Header().Get("Gpoll-Position")
		f.public = gpoll.PublicID(f.id)
		routine, uuid, _ := strings.Cut(f.id, "$")
		n, err := strconv.Atoi(routine)
		if err != nil {
			t.Fatal(err)
		}
		if f.pipe, err = b.GetChannel(uuid, n); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// ask makes f's request: a registration, or a JSON poll after the cursor.
func (f *fellow) ask(t testing.TB, b *gpoll.Broadcaster) *httptest.ResponseRecorder {
	pairs := []string{"client-id", f.id}
	for _, topic := range f.topics {
		pairs = append(pairs, "topic", topic)
	}
	if f.after != "" {
		pairs = append(pairs, "after", f.after, "format", "json")
	}
	r := httptest.NewRequest(http.MethodGet, "/poll"+query(pairs...), nil)
	r.Header.Set("Authorization", f.user)
	w := httptest.NewRecorder()
	if b.HandleRequests(w, r); w.Code != http.StatusOK {
		t.Fatalf("%+v: %d %s", f, w.Code, w.Body)
	}
	return w
}

// publish publishes m and notes which clients are owed it.
func (c *audience) publish(t testing.TB, m gpoll.Message) {
	t.Helper()
	_, err := c.Publish(t.Context(), m)
	if good := goodMessage(m); (err == nil) != good {
		t.Fatalf("Publish of %+v: %v; it is good: %v", m, err, good)
	}
	if err != nil {
		if !errors.Is(err, gpoll.ErrBadMessage) && !errors.Is(err, gpoll.ErrTooLarge) {
			t.Fatalf("Publish of %+v: %v", m, err)
		}
		return
	}
	for _, f := range c.members {
		to := true
		switch {
		case m.Topic != "":
			to = slices.Contains(f.topics, m.Topic)
		case m.To.Client() != "":
			to = m.To.Client() == f.public
		case m.To.User() != "":
			to = m.To.User() == f.user
		}
		if to && !slices.Contains(m.Except, f.public) {
			f.want = append(f.want, string(m.Data))
		}
	}
}

// check compares the messages that every client got, live and by the replay, with those that it was owed.
func (c *audience) check(t testing.TB) {
	t.Helper()
	for _, f := range c.members {
		var live []string
		for len(f.pipe) > 0 {
			live = append(live, <-f.pipe)
		}
		if !slices.Equal(live, f.want) {
			t.Errorf("%s, live: %q\nwant %q", f.user, live, f.want)
		}
	}
	for _, f := range c.members {
		if len(f.want) == 0 {
			continue // its poll would wait
		}
		w := f.ask(t, c.Broadcaster)
		var replayed []string
		for _, e := range (answer{w.Code, w.Header(), w.Body.String()}).batch(t).Messages {
			replayed = append(replayed, e.payload(t))
		}
		if !slices.Equal(replayed, f.want) {
			t.Errorf("%s, replayed: %q\nwant %q", f.user, replayed, f.want)
		}
	}
}

func goodMessage(m gpoll.Message) bool {
	public := func(id string) bool {
		return len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
	}
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/~@-"
	switch {
	case len(m.Data) > 64<<10, len(m.ID) > 128, len(m.Except) > 1000,
		m.Topic != "" && !m.To.IsZero(),
		len(m.Topic) > 255 || strings.Trim(m.Topic, letters) != "",
		!m.To.IsZero() && m.To.User() == "" && !public(m.To.Client()),
		len(m.To.User()) > 255,
		slices.ContainsFunc(m.Except, func(id string) bool { return !public(id) }):
		return false
	}
	return true
}

// Except may list anything, in any order and several times. Nothing dies, and exactly the clients that it names do not
// get the message, live and in the replay.
func TestExcept(t *testing.T) {
	for _, batches := range []bool{false, true} {
		inBubble(t, fmt.Sprint("in batches ", batches), func(t *testing.T) {
			c := gather(t, batches)
			defer shutdown(t, c.Broadcaster)
			p, q, n := c.members[0].public, c.members[2].public, c.members[3].public
			many := slices.Repeat([]string{p, q, strings.Repeat("0", 32), n}, 250)
			var strangers []string
			for range 1000 {
				strangers = append(strangers, gpoll.PublicID(gpoll.UUID()))
			}
			strangers[500] = p
			next := 0
			for _, m := range []gpoll.Message{
				{Except: []string{p, p}},
				{Except: []string{p, q, p, q, q}},
				{},
				{Topic: "a", Except: []string{p, p}},
				{To: gpoll.ToUser("alice"), Except: []string{p, p}},
				{To: gpoll.ToClient(p), Except: []string{p, p}},
				{To: gpoll.ToClient(p), Except: []string{q}},
				{To: gpoll.ToClient(p)},
				{Except: many},
				{Topic: "b", Except: many},
				{Except: strangers},
				{Except: []string{p, p}},
				{To: gpoll.ToUser("bob"), Except: []string{q}},
				{Except: []string{n, p, n}},
				{},
			} {
				m.Data = fmt.Append(nil, next)
				next++
				c.publish(t, m)
			}
			advance(5 * time.Millisecond)
			c.check(t)
		})
	}
}

// A public id has one spelling. Another is refused, so that it cannot count on one way of delivery and not on the
// other.
func TestPublicIDHasOneSpelling(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		c := gather(t, false)
		defer shutdown(t, c.Broadcaster)
		p := c.members[0].public
		for _, id := range []string{
			strings.ToUpper(p), c.members[0].id, "", " " + p, p[:31], p + "0", "nobody", "g" + p[1:],
		} {
			if id == p {
				continue // without a letter in it
			}
			c.publish(t, gpoll.Message{Data: []byte("to " + id), To: gpoll.ToClient(id)})
			c.publish(t, gpoll.Message{Data: []byte("but " + id), Except: []string{id}})
		}
		c.publish(t, gpoll.Message{Data: []byte("last")})
		advance(5 * time.Millisecond)
		c.check(t)
	})
}

// What a broker delivers was not checked here: another spelling names nobody, live and in the replay, and a repeated
// id is one.
func TestStrangeIDsFromABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &scriptedBroker{before: gpoll.Position{Epoch: 1, Seq: 100}}
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			alarm(t, b)
			b.Broker, b.SyncDelayMs = broker, 1
		}})
		id, after := s.register(t)
		p := gpoll.PublicID(id)
		for strings.ToUpper(p) == p {
			id, after = s.register(t)
			p = gpoll.PublicID(id)
		}
		live := s.events(t, "/poll/events"+query("client-id", id))
		live.next(t)
		seq := uint64(100)
		deliver := func(m gpoll.Message) {
			seq++
			m.Position, m.Data = gpoll.Position{Epoch: 1, Seq: seq}, fmt.Append(nil, seq)
			broker.mu.Lock()
			defer broker.mu.Unlock()
			broker.deliver(m)
		}
		deliver(gpoll.Message{Except: []string{p, strings.ToUpper(p), p}}) // 101
		deliver(gpoll.Message{Except: []string{strings.ToUpper(p), "", "nobody"}})
		deliver(gpoll.Message{To: gpoll.ToClient(strings.ToUpper(p))}) // 103
		deliver(gpoll.Message{To: gpoll.ToClient(p)})
		deliver(gpoll.Message{To: gpoll.ToClient(p), Except: []string{p, p}}) // 105
		deliver(gpoll.Message{})
		for _, want := range []string{"102", "104", "106"} {
			if ev := live.next(t); ev.data != want {
				t.Errorf("live: %+v, want %s", ev, want)
			}
		}
		got := s.get(t, "/poll"+query("client-id", id, "after", after, "format", "json")).batch(t).payloads(t)
		if !slices.Equal(got, []string{"102", "104", "106"}) {
			t.Errorf("replayed: %q", got)
		}
	})
}

// FuzzPublish publishes random messages to an audience: strange holds what a request may have brought, script chooses
// the recipients. Each message is refused or reaches exactly its recipients, live and in the replay, and nothing dies.
func FuzzPublish(f *testing.F) {
	f.Add([]byte{1, 0, 2, 0, 0}, "")
	f.Add([]byte{1, 0, 2, 0, 0, 1, 0, 2, 1, 1, 3, 0, 3, 0, 2, 0, 0, 0}, "a")
	f.Add([]byte{0, 3, 0, 1, 8, 2, 5, 1, 0, 0, 1, 11}, "nobody")
	f.Add([]byte{1, 4, 0, 5, 0, 6, 0, 0, 0}, "alice\x00\xff")
	f.Add([]byte{1, 2, 6, 0, 0, 6, 1, 2, 3, 4, 0, 1}, strings.Repeat("x", 300))
	f.Fuzz(func(t *testing.T, script []byte, strange string) {
		synctest.Test(t, func(t *testing.T) { fuzzPublish(t, script, strange) })
	})
}

func fuzzPublish(t *testing.T, script []byte, strange string) {
	next := func(n int) int {
		if len(script) == 0 {
			return 0
		}
		v := int(script[0])
		script = script[1:]
		return v % n
	}
	c := gather(t, next(2) == 1)
	defer shutdown(t, c.Broadcaster)
	id := func() string {
		switch i := next(12); {
		case i < 2*len(c.members):
			return c.members[i%len(c.members)].public
		case i == 10:
			return strings.ToUpper(c.members[0].public)
		default:
			return strange
		}
	}
	for n := 0; len(script) > 0 && n < 200; n++ {
		m := gpoll.Message{Data: fmt.Append(nil, n)}
		switch next(8) {
		case 1:
			m.Topic = []string{"a", "b", "c", strange}[next(4)]
		case 2:
			m.To = gpoll.ToClient(id())
		case 3:
			m.To = gpoll.ToUser([]string{"alice", "bob", "", strange}[next(4)])
		case 4:
			m.ID = fmt.Sprint(n, strange)
		case 5:
			m.Topic, m.To = strange, gpoll.ToUser(strange)
		case 6:
			if m.Data = append(m.Data, strange...); !utf8.Valid(m.Data) {
				m.Data = m.Data[:1] // the channel and JSON spell it differently
			}
		}
		for range next(7) {
			m.Except = append(m.Except, id())
		}
		if next(5) == 4 {
			m.Except = slices.Repeat(m.Except, 1+next(255))
		}
		c.publish(t, m)
		if next(4) == 0 {
			advance(2 * time.Millisecond)
		}
	}
	advance(5 * time.Millisecond)
	c.check(t)
}
