package gpoll

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Presence: who is subscribed to a topic. A client is present in its topics from its first attach or command, after
// OnConnect has accepted it, until it is removed. What it does in between, a poll that ends, a connection that breaks
// or another transport, changes nothing.
//
// The routines know who is there: see subscribers. The presenceBook below writes down who comes and goes, for the
// topics that somebody watches. It is a log of its own with positions of its own, so that it never pushes a message out
// of the window. presence_log.go makes its batches, and presence_watch.go tells them to the watchers.

// A Member is a client that is present in a topic.
type Member struct {
	ID   string // the client's public id
	User string // Grant.User, or ""
	Info string // Grant.Info of the client's newest request, or ""
}

// Presence returns the clients that are subscribed to topic, sorted by ID: those that have attached at least once and
// have not been removed since, by whatever transport. A client that is between two polls, or away for less than
// ClientTTL, is among them. A client counts once; a user with several clients has several Members.
//
// The cost is in proportion to the members. Presence looks at one routine after another, and holds the lock of each
// while it copies that routine's members: it shows no single moment of all of them. A topic that nobody asks about
// costs nothing. Presence knows the clients of this Broadcaster alone.
func (b *Broadcaster) Presence(topic string) []Member {
	if b.start() != nil {
		return nil
	}
	var members []Member
	for _, r := range b.topics.of(topic) {
		members = r.appendPresent(members, topic)
	}
	slices.SortFunc(members, func(m, n Member) int { return strings.Compare(m.ID, n.ID) })
	return members
}

func (r *routine) appendPresent(members []Member, topic string) []Member {
	p := &r.b.present
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.presentLocked(topic) {
		m := Member{ID: c.public, User: c.user}
		if c.informed {
			m.Info = p.infoOf(c)
		}
		members = append(members, m)
	}
	return members
}

// presentLocked yields the routine's clients that are present in topic.
func (r *routine) presentLocked(topic string) func(yield func(*Client) bool) {
	return func(yield func(*Client) bool) {
		s := r.topics[topic]
		if s == nil {
			return
		}
		for _, m := range s.members {
			if m.client.presentLocked() && !yield(m.client) {
				return
			}
		}
	}
}

// presentLocked reports whether c is present in its topics.
func (c *Client) presentLocked() bool { return c.attached || c.met.Load() }

// A presenceBook has the topics that somebody watches, and who watches them.
type presenceBook struct {
	b        *Broadcaster
	epoch    uint64       // of the positions
	recorded atomic.Int32 // how many topics are in the book; while there is none, clients come and go unseen

	// filling is held while the members of a topic that is new in the book are gathered. It is taken before routine.mu.
	filling sync.Mutex

	// mu guards what follows. It is taken after routine.mu, and nothing is taken after it.
	mu       sync.Mutex
	seq      uint64 // of the newest position
	topics   map[string]*presenceTopic
	watchers map[*Client]*watcher
	infos    map[*Client]presenceInfo // of the clients that are informed
	batch    uint64                   // number of the batch that is gathered
	changed  []*presenceTopic         // the topics that may have changes in it
	batching bool                     // somebody will end the batch
	tending  bool                     // a timer will call tend
	window   ring[presenceEntry]      // the changes in their order
	bytes    int                      // of window
}

// A presenceTopic is a topic that is in the book.
type presenceTopic struct {
	name     string
	filled   bool                 // members is whole
	ended    bool                 // the topic is not in the book any more
	listed   bool                 // it is in presenceBook.changed, or about to be taken from there
	members  map[*Client]struct{} // at the end of the last batch
	moved    map[*Client]bool     // whether a client has come, or is told anew, or has gone since then
	large    bool                 // there are too many members to name them
	changes  ring[presenceChange] // those in the window
	floor    uint64               // changes has all that came after this seq
	snapshot []byte               // of members; nil: not made
	watchers map[*watcher]struct{}
	idle     moment // since when it has no watcher
}

// A presenceInfo is a client's Grant.Info.
type presenceInfo struct {
	text  string
	batch uint64 // in which it came
}

// open makes the book ready.
func (p *presenceBook) open(b *Broadcaster) {
	p.b, p.epoch = b, randomEpoch()
	p.topics = map[string]*presenceTopic{}
	p.watchers = map[*Client]*watcher{}
	p.infos = map[*Client]presenceInfo{}
	p.batch = 2
}

// appearLocked is called when c is present from now on.
func (c *Client) appearLocked() { c.movedLocked(nil, c.topics) }

// disappearLocked is called when c is removed.
func (c *Client) disappearLocked() {
	if c.presentLocked() {
		c.movedLocked(c.topics, nil)
	}
	if c.informed || c.watches {
		c.routine.b.present.forget(c)
	}
}

// movedLocked is called when a client that is present has other topics than before. Both are sorted.
func (c *Client) movedLocked(before, now []string) {
	p := &c.routine.b.present
	if p.recorded.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(before) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(before) > 0 && before[0] < now[0]:
			p.moveLocked(before[0], c, false)
			before = before[1:]
		case len(before) == 0 || now[0] < before[0]:
			p.moveLocked(now[0], c, true)
			now = now[1:]
		default:
			before, now = before[1:], now[1:]
		}
	}
}

// moveLocked notes that c has come into a topic or has left it.
func (p *presenceBook) moveLocked(topic string, c *Client, here bool) {
	t := p.topics[topic]
	switch {
	case t == nil:
	case t.filled:
		if _, was := t.members[c]; was == here && !(here && p.infos[c].batch+1 >= p.batch) {
			delete(t.moved, c) // it has gone and come back, or the other way round
			return
		}
		p.noteLocked(t, c, here)
	case here:
		t.members[c] = struct{}{}
	default:
		delete(t.members, c)
	}
}

// noteLocked puts c into the present batch.
func (p *presenceBook) noteLocked(t *presenceTopic, c *Client, here bool) {
	if !t.listed {
		t.listed = true
		p.changed = append(p.changed, t)
	}
	if t.moved == nil {
		t.moved = map[*Client]bool{}
	}
	t.moved[c] = here
	if !p.batching {
		p.batching = true
		p.b.after(presenceBatch, p.endBatch)
	}
}

// informLocked takes the Info of c's newest Grant. c is told anew where it is present.
func (c *Client) informLocked(g *grantee) {
	info := ""
	if g != nil {
		info = g.grant.Info
	}
	if info == "" && !c.informed {
		return
	}
	p := &c.routine.b.present
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.infos[c].text == info {
		return
	}
	c.informed = true
	p.infos[c] = presenceInfo{info, p.batch}
	if !c.presentLocked() {
		return
	}
	for _, topic := range c.topics {
		if t := p.topics[topic]; t != nil && t.filled {
			p.noteLocked(t, c, true)
		}
	}
}

func (p *presenceBook) infoOf(c *Client) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.infos[c].text
}

// forget drops what the book has of a client that is removed.
func (p *presenceBook) forget(c *Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.infos, c)
	p.unwatchLocked(c)
}

// record puts a topic into the book, with the members that it has. When it returns the topic is there.
func (p *presenceBook) record(name string) {
	p.filling.Lock()
	defer p.filling.Unlock()
	t := p.add(name)
	if t == nil {
		return
	}
	// From here on each routine tells who comes and goes, so that a client is counted whether it comes before its routine
	// is looked at or after that.
	for _, r := range p.b.topics.of(name) {
		p.fill(t, r)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.filled, t.idle = true, p.b.now()
	t.large = len(t.members) > p.b.set.maxPresence
	p.seq++ // a position of before says nothing of this topic
	t.floor = p.seq
	if !p.tending {
		p.tending = true
		p.b.after(p.tendEvery(), p.tend)
	}
}

// add returns a topic to be filled; nil: the book has it.
func (p *presenceBook) add(name string) *presenceTopic {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.topics[name] != nil {
		return nil
	}
	t := &presenceTopic{name: name, members: map[*Client]struct{}{}, watchers: map[*watcher]struct{}{}}
	p.topics[name] = t
	p.recorded.Add(1)
	return t
}

func (p *presenceBook) fill(t *presenceTopic, r *routine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range r.presentLocked(t.name) {
		t.members[c] = struct{}{}
	}
}

// dropLocked takes a topic out of the book. Its changes leave the window as their time comes.
func (p *presenceBook) dropLocked(t *presenceTopic) {
	delete(p.topics, t.name)
	p.recorded.Add(-1)
	t.ended, t.members, t.moved, t.snapshot = true, nil, nil, nil
}
