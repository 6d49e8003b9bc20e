//go:build explore && linux

package explore

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/wire"
)

// A watcher watches who is present in all topics: by polls, by SSE or by gpoll.v1, and now and then by another of them,
// from the position that it has. All that it is told must fit what it knows, to the number, and in the end it knows
// what Presence says.
type watcher struct {
	w        *world
	rnd      *rand.Rand
	id       string // the whole client id; "": none yet
	position string
	members  map[string]map[string]bool // by topic
	givenUp  bool                       // a request was, which may still reach the server, and take a later one's place
}

// told is what the server tells of presence.
type told struct {
	Position string
	Topics   []struct {
		Topic   string
		Count   int
		Members *[]struct{ ID string }
		Join    []struct{ ID string }
		Leave   []string
	}
}

// addWatchers adds some. They draw from a source of their own, so that the other actors of a seed stay what they were.
func (w *world) addWatchers(authorized bool) {
	rnd := rand.New(rand.NewPCG(w.seed, 0x5741_5443_48))
	if !authorized || rnd.IntN(2) == 0 {
		return
	}
	for range 1 + rnd.IntN(2) {
		x := &watcher{w: w, rnd: rand.New(rand.NewPCG(rnd.Uint64(), 0)), members: map[string]map[string]bool{}}
		times := 1 + x.rnd.IntN(4)
		w.say("a watcher, %d times", times)
		w.watchers = append(w.watchers, x)
		w.actors = append(w.actors, func() {
			for range times {
				time.Sleep(moment(x.rnd))
				ctx, cancel := context.WithTimeout(context.Background(),
					pick(x.rnd, time.Millisecond, 100*time.Millisecond, 3*time.Second, 30*time.Second))
				x.watch(ctx)
				cancel()
			}
		})
	}
}

// watch watches until ctx ends or the server ends it.
func (x *watcher) watch(ctx context.Context) {
	switch x.rnd.IntN(3) {
	case 0:
		for range 1 + x.rnd.IntN(4) {
			x.poll(ctx)
		}
	case 1:
		x.events(ctx)
	case 2:
		x.socket(ctx)
	}
}

func (x *watcher) query() url.Values {
	q := url.Values{"format": {"json"}, "presence": topics}
	if x.id != "" {
		q.Set("client-id", x.id)
	}
	if after := x.after(); after != "" {
		q.Set("presence-after", after)
	}
	return q
}

// after is the position up to which the watcher knows all topics. A connection may have ended between the members of
// the first and those of the others; then it is "".
func (x *watcher) after() string {
	for _, topic := range topics {
		if x.members[topic] == nil {
			return ""
		}
	}
	return x.position
}

func (x *watcher) get(ctx context.Context, path string) *http.Response {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gpoll.test"+path+"?"+x.query().Encode(), nil)
	if err != nil {
		panic(err) // a constant
	}
	resp, err := x.w.client.Do(r)
	if err != nil {
		x.givenUp = true
		return nil
	}
	if resp.StatusCode == http.StatusOK {
		return resp
	}
	if resp.StatusCode == http.StatusNotFound {
		x.id = "" // it was put out, or was away for too long
	}
	_ = resp.Body.Close()
	return nil
}

func (x *watcher) poll(ctx context.Context) {
	resp := x.get(ctx, "/poll")
	if resp == nil {
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		x.givenUp = true
		return
	}
	var batch struct {
		ClientID string `json:"client-id"`
		Presence *told
	}
	if err := json.Unmarshal(text, &batch); err != nil {
		x.w.fault("watcher: %s: %v", text, err)
		return
	}
	registers := x.id == ""
	x.id = batch.ClientID
	switch {
	case batch.Presence != nil:
		x.take(batch.Presence)
	case !registers && !x.givenUp && !x.w.ends && !x.w.operated: // else the client or its attach may have ended just then
		x.w.fault("watcher: a poll without presence: %s", text)
	}
}

func (x *watcher) events(ctx context.Context) {
	resp := x.get(ctx, "/poll/events")
	if resp == nil {
		return
	}
	defer resp.Body.Close()
	for events := wire.NewEvents(resp.Body, 1<<20); ; {
		ev, err := events.Next()
		if err != nil {
			return
		}
		switch ev.Name {
		case "client-id":
			x.id, _ = wire.ParseRegistration([]byte(ev.Data))
		case "presence":
			x.read([]byte(ev.Data))
		}
		if x.rnd.IntN(4) == 0 {
			time.Sleep(moment(x.rnd))
		}
	}
}

func (x *watcher) socket(ctx context.Context) {
	dial, cancel := context.WithTimeout(context.Background(), longest)
	conn, _, err := websocket.Dial(dial, "http://gpoll.test/poll/ws",
		&websocket.DialOptions{HTTPClient: x.w.client, Subprotocols: []string{"gpoll.v1"}})
	cancel()
	if err != nil {
		x.givenUp = true
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(-1)
	hello := map[string]any{"client-id": "0"}
	late := x.position == "" && x.rnd.IntN(2) == 0 // the hello says nothing of presence
	if !late {
		hello["presence"], hello["presence-after"] = topics, x.after()
	}
	if x.id != "" {
		hello["client-id"] = x.id
	}
	say := func(frame map[string]any) {
		text, err := json.Marshal(frame)
		if err != nil {
			panic(err) // strings
		}
		_ = conn.Write(ctx, websocket.MessageText, text) // the read fails too
	}
	say(map[string]any{"hello": hello})
	if late {
		say(map[string]any{"presence": topics[:1]})
		say(map[string]any{"presence": topics})
	}
	for {
		_, text, err := conn.Read(ctx)
		if err != nil {
			if code := closeCode(err); code == "unknown-client" || code == "expired" || code == "removed" {
				x.id = ""
			}
			return
		}
		var f struct {
			Welcome  *wire.Welcome
			Presence json.RawMessage
			Error    json.RawMessage
		}
		switch err := json.Unmarshal(text, &f); {
		case err != nil || f.Error != nil:
			x.w.fault("watcher: frame %s: %v", text, err)
		case f.Welcome != nil:
			x.id = f.Welcome.ClientID
		case f.Presence != nil:
			x.read(f.Presence)
		}
	}
}

func (x *watcher) read(text []byte) {
	var p told
	if err := json.Unmarshal(text, &p); err != nil {
		x.w.fault("watcher: %s: %v", text, err)
		return
	}
	x.take(&p)
}

// take holds what the server tells against what the watcher knows.
func (x *watcher) take(p *told) {
	x.position = p.Position
	for _, t := range p.Topics {
		known := x.members[t.Topic]
		if t.Members != nil {
			known = map[string]bool{}
			for _, m := range *t.Members {
				known[m.ID] = true
			}
			x.members[t.Topic] = known
		}
		if known == nil {
			x.w.fault("watcher: changes of %s before its members", t.Topic)
			return
		}
		for _, m := range t.Join {
			if known[m.ID] {
				x.w.fault("watcher: %s joins %s again", m.ID, t.Topic)
			}
			known[m.ID] = true
		}
		for _, id := range t.Leave {
			if !known[id] {
				x.w.fault("watcher: %s leaves %s and is not there", id, t.Topic)
			}
			delete(known, id)
		}
		if len(known) != t.Count {
			x.w.fault("watcher: %d members of %s, and the count is %d", len(known), t.Topic, t.Count)
		}
	}
}

// drain watches until the watcher knows what Presence says.
func (x *watcher) drain(ctx context.Context) {
	for tries := 0; ctx.Err() == nil; tries++ {
		part, cancel := context.WithTimeout(ctx, 3*time.Second)
		x.watch(part)
		cancel()
		if x.agrees(x.w.b) {
			return
		}
		if tries > 100 {
			break
		}
		time.Sleep(time.Second)
	}
	for _, topic := range topics {
		x.w.fault("watcher: %s has %v in the end, and Presence %v", topic, x.members[topic], x.w.b.Presence(topic))
	}
}

func (x *watcher) agrees(b *gpoll.Broadcaster) bool {
	for _, topic := range topics {
		present := b.Presence(topic)
		known := x.members[topic]
		if known == nil || len(known) != len(present) {
			return false
		}
		for _, m := range present {
			if !known[m.ID] {
				return false
			}
		}
	}
	return true
}
