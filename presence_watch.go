package gpoll

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"unicode/utf8"
)

// A watchRequest is the topics whose presence a request asks for.
type watchRequest struct {
	topics []string // a sorted set
	after  Position // up to which the client knows them; zero: it does not
}

// A watcher is a client that watches the presence of topics. It stays between two polls, so that their topics stay in
// the book.
type watcher struct {
	client  *Client
	attach  *attach // the last that has watched
	topics  []watchedTopic
	version uint64 // changes with topics, and when they are told
	woken   uint64 // the last batch that was told
}

type watchedTopic struct {
	name string
	in   *presenceTopic // nil: not in the book yet
	from uint64         // the client knows the topic up to this seq; 0: not at all
}

// News is what a watcher has to be told.
type presenceNews struct {
	json    []byte // {"position":"…","topics":[…]}
	any     bool   // there is something in it
	seq     uint64 // of the position
	version uint64 // of the watcher
}

// watchLocked is called when a has become c's attach. req is nil when it watches nothing.
func (c *Client) watchLocked(a *attach, req *watchRequest) {
	p := &c.routine.b.present
	p.mu.Lock()
	defer p.mu.Unlock()
	if req == nil {
		p.unwatchLocked(c)
		c.watches = false
		return
	}
	from := uint64(0)
	if req.after.Epoch == p.epoch && req.after.Seq <= p.seq {
		from = req.after.Seq
	}
	w := p.watcherLocked(c)
	w.attach = a
	p.setLocked(w, req.topics)
	for i := range w.topics {
		w.topics[i].from = from
	}
	a.watches, a.watchDue = true, true
}

// watcherLocked returns c's watcher, or a new one.
func (p *presenceBook) watcherLocked(c *Client) *watcher {
	w := p.watchers[c]
	if w == nil {
		w = &watcher{client: c}
		p.watchers[c] = w
		c.watches = true
	}
	return w
}

// rewatchLocked is called when a stream's client watches other topics. Those that it has watched go on.
func (c *Client) rewatchLocked(a *attach, topics []string) {
	p := &c.routine.b.present
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.watcherLocked(c)
	w.attach = a
	p.setLocked(w, topics)
	a.watches, a.watchDue = true, true
}

// setLocked gives w other topics.
func (p *presenceBook) setLocked(w *watcher, names []string) {
	w.version++
	if slices.EqualFunc(w.topics, names, func(t watchedTopic, name string) bool { return t.name == name }) {
		return
	}
	before := w.topics
	w.topics = make([]watchedTopic, len(names))
	for i, name := range names {
		w.topics[i].name = name
		if at, found := slices.BinarySearchFunc(before, name, compareWatched); found {
			w.topics[i] = before[at]
		}
	}
	for _, t := range before {
		if _, stays := slices.BinarySearch(names, t.name); !stays {
			p.leaveLocked(w, t.in)
		}
	}
}

func compareWatched(t watchedTopic, name string) int {
	switch {
	case t.name < name:
		return -1
	case t.name > name:
		return 1
	}
	return 0
}

// unwatchLocked ends c's watch.
func (p *presenceBook) unwatchLocked(c *Client) {
	w := p.watchers[c]
	if w == nil {
		return
	}
	for _, t := range w.topics {
		p.leaveLocked(w, t.in)
	}
	delete(p.watchers, c)
}

// leaveLocked lets w watch t no more. The topic stays in the book for a while: w may come back.
func (p *presenceBook) leaveLocked(w *watcher, t *presenceTopic) {
	if t == nil || t.ended {
		return
	}
	delete(t.watchers, w)
	if len(t.watchers) > 0 {
		return
	}
	if t.idle = p.b.now(); len(p.topics) > presenceLinger {
		p.dropLocked(t)
	}
}

// news returns what a's client is to be told. It puts the topics into the book that are not there yet. No lock is held.
func (p *presenceBook) news(a *attach) presenceNews {
	for {
		n, missing := p.look(a)
		if missing == "" {
			return n
		}
		p.record(missing)
	}
}

// A client gets at most about so much at once, and so many changes of a topic: else its members.
const (
	presenceMost    = 1 << 20
	presenceChanges = 32
)

// look is news for topics in the book. It names one that is missing there.
func (p *presenceBook) look(a *attach) (n presenceNews, missing string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.watchers[a.client]
	if w == nil || w.attach != a {
		return n, ""
	}
	n.seq, n.version = p.seq, w.version
	n.json = append(n.json, `{"position":"`...)
	n.json = Position{p.epoch, p.seq}.append(n.json)
	n.json = append(n.json, `","topics":[`...)
	for i := range w.topics {
		t := &w.topics[i]
		if t.in == nil || t.in.ended {
			in := p.topics[t.name]
			if in == nil || !in.filled {
				return n, t.name
			}
			t.in = in
			in.watchers[w] = struct{}{}
		}
		n.appendTopic(p, t)
	}
	n.json = append(n.json, "]}"...)
	return n, ""
}

// appendTopic appends what is new in a topic: its changes, or all of it.
func (n *presenceNews) appendTopic(p *presenceBook, w *watchedTopic) {
	t := w.in
	changes := &t.changes
	first := changes.len
	for first > 0 && changes.at(first-1).seq > w.from {
		first--
	}
	known := w.from >= t.floor
	if known && first == changes.len {
		return
	}
	if known && changes.len-first <= presenceChanges && len(n.json) <= presenceMost {
		for i := first; i < changes.len; i++ {
			n.append(changes.at(i).json)
		}
		return
	}
	whole := p.snapshotLocked(t)
	if len(n.json)+len(whole) > presenceMost && n.any {
		whole = t.countJSON()
	}
	n.append(whole)
}

func (n *presenceNews) append(element []byte) {
	if n.any {
		n.json = append(n.json, ',')
	}
	n.any = true
	n.json = append(n.json, element...)
}

// told notes that a's client is told n. It reports false when n is not what it has to be told any more.
func (p *presenceBook) told(a *attach, n *presenceNews) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.watchers[a.client]
	if w == nil || w.attach != a || w.version != n.version {
		return false
	}
	w.version++
	for i := range w.topics {
		w.topics[i].from = n.seq
	}
	return true
}

// hasNews is asked for a poll. Its answer tells the news, and the next poll what the client knows.
func (a *attach) hasNews() bool {
	a.watchSeen()
	return a.client.routine.b.present.news(a).any
}

// takeNews returns what the goroutine that serves the attach has to tell, as JSON; nil: nothing.
func (a *attach) takeNews() []byte {
	p := &a.client.routine.b.present
	a.watchSeen()
	for {
		switch n := p.news(a); {
		case !n.any:
			return nil
		case p.told(a, &n):
			return n.json
		}
	}
}

// watchSeen is called before a goroutine looks at what is new.
func (a *attach) watchSeen() {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	a.watchDue = false
}

// tellPresence tells c what is new where it watches: at once, or by the goroutine that serves its attach.
func (c *Client) tellPresence() {
	r := c.routine
	r.mu.Lock()
	a := c.attach
	watches := a != nil && a.watches
	r.mu.Unlock()
	if watches {
		a.tellPresence()
	}
}

func (a *attach) tellPresence() {
	if a.by.inform(a) {
		return
	}
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.client.attach == a {
		a.watchDue = true
		a.attendLocked()
	}
}

// mayWatch returns nil when the client may see who is present in all of these topics, otherwise the refusal. It calls
// the application.
func (g *grantee) mayWatch(b *Broadcaster, topics []string) *refusal {
	switch {
	case len(topics) == 0:
		return nil
	case g == nil || g.grant.Presence == nil:
		return refusePresence
	}
	return b.permits("Grant.Presence", g.grant.Presence, topics, refusePresence)
}

// mayDo is asked about an operation.
func (g *grantee) mayDo(b *Broadcaster, op *operation) *refusal {
	if op.did == watching {
		return g.mayWatch(b, op.topics)
	}
	return g.mayRead(b, op.topics)
}

// watchedLocked returns the topics that the attach watches.
func (a *attach) watchedLocked() (topics []string) {
	if !a.watches {
		return nil
	}
	p := &a.client.routine.b.present
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.watchers[a.client]; w != nil && w.attach == a {
		for _, t := range w.topics {
			topics = append(topics, t.name)
		}
	}
	return topics
}

// checkInfo reports whether Grant.Info may be told, and tells the operator if it may not.
func (b *Broadcaster) checkInfo(g *Grant) bool {
	if len(g.Info) <= longestInfo && utf8.ValidString(g.Info) {
		return true
	}
	b.tell(slog.LevelError, "gpoll: Authorize gave a bad Info", "info", clip(g.Info, 40), "rule", infoRule)
	return false
}

// longestInfo is the most bytes of a Grant.Info.
const longestInfo = 512

var (
	refusePresence = &refusal{status: http.StatusForbidden, code: "presence-forbidden",
		message: "the server's Grant.Presence does not let this user see who is present in one of these topics"}
	refusePlainPresence = refuseBad("presence-needs-json", "the presence of topics is told in the JSON form of long-poll "+
		"and SSE (format=json), and on a WebSocket with gpoll.v1, in its hello or by the frame presence")
	infoRule = fmt.Sprintf("Grant.Info is UTF-8 of at most %d bytes", longestInfo)
)

// presenceJSON is news as a frame of gpoll.v1 or a field of a batch.
func presenceJSON(news []byte) []byte {
	return append(append([]byte(`{"presence":`), news...), '}')
}

func appendPresenceEvent(b, news []byte) []byte { return appendEvent(b, "presence", Position{}, news) }
