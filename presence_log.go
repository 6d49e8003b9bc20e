package gpoll

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// presenceBatch is how long changes gather before they are told. Whoever comes and goes within a batch is not told.
	presenceBatch = time.Second

	// The window of the changes: a watcher whose position is behind it gets the members instead.
	presenceCount = 50_000
	presenceBytes = 8 << 20
	presenceAge   = 2 * time.Minute

	// What a change in the window takes beside its JSON.
	presenceOverhead = 96

	// So many topics may stay in the book after their last watcher, for ClientTTL.
	presenceLinger = 10_000
)

// A presenceChange is what a batch has changed in one topic. Each has a position of its own.
type presenceChange struct {
	seq  uint64
	json []byte // the element of "topics"
}

// A presenceEntry is the place of a topic's change in the window.
type presenceEntry struct {
	topic *presenceTopic
	at    moment
	bytes int
}

// endBatch is called by a timer when a batch is over. It tells the watchers, and begins the next batch when they are
// told: whoever has many watchers has longer batches.
//
// A batch is also what a server would tell the others of a cluster.
func (p *presenceBook) endBatch() {
	if p.b.ctx.Err() == nil {
		p.b.spawn(p.tellBatch)
	}
}

// tellBatch ends when the watchers are told. It waits for none of them.
func (p *presenceBook) tellBatch() {
	defer p.nextBatch() // also after a panic
	for _, w := range p.takeBatch() {
		w.client.tellPresence()
	}
}

func (p *presenceBook) nextBatch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.batching = len(p.changed) > 0; p.batching {
		p.b.after(presenceBatch, p.endBatch)
	}
}

// takeBatch puts the batch into the log, and returns the watchers of what has changed. It holds mu for one topic at a
// time: each is whole at its position.
func (p *presenceBook) takeBatch() (woken []*watcher) {
	p.mu.Lock()
	changed, batch := p.changed, p.batch
	p.changed = nil
	p.batch++
	p.mu.Unlock()
	for _, t := range changed {
		woken = p.takeTopic(t, batch, woken)
	}
	return woken
}

func (p *presenceBook) takeTopic(t *presenceTopic, batch uint64, woken []*watcher) []*watcher {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.listed = false; len(t.moved) == 0 {
		return woken
	}
	json := p.applyLocked(t)
	p.seq++
	t.changes.push(presenceChange{p.seq, json})
	entry := presenceEntry{t, p.b.now(), presenceOverhead + len(json)}
	p.window.push(entry)
	p.bytes += entry.bytes
	p.trimLocked(entry.at)
	for w := range t.watchers {
		if w.woken != batch {
			w.woken = batch
			woken = append(woken, w)
		}
	}
	return woken
}

// applyLocked makes the members of t those of now, and returns the change as JSON.
func (p *presenceBook) applyLocked(t *presenceTopic) []byte {
	var came, went []*Client
	for c, here := range t.moved {
		if here {
			came = append(came, c)
			t.members[c] = struct{}{}
		} else {
			went = append(went, c)
			delete(t.members, c)
		}
	}
	if len(t.moved) > 64 {
		t.moved = nil // a burst does not keep its memory
	}
	clear(t.moved)
	t.snapshot = nil
	most := p.b.set.maxPresence
	wasLarge := t.large
	if t.large = len(t.members) > most; wasLarge && len(t.members) > most-most/10 {
		t.large = true // it does not change from one to the other all the time
	}
	if t.large || wasLarge { // and where it is large no more, those who know its number get the members
		return p.snapshotLocked(t)
	}
	slices.SortFunc(came, byPublicID)
	slices.SortFunc(went, byPublicID)
	return p.changeJSON(t, came, went)
}

func byPublicID(c, d *Client) int { return strings.Compare(c.public, d.public) }

// trimLocked lets what is too old or too much leave the window.
func (p *presenceBook) trimLocked(now moment) {
	for p.window.len > 0 {
		oldest := p.window.first()
		if p.window.len <= presenceCount && p.bytes <= presenceBytes && now-oldest.at <= moment(presenceAge) {
			return
		}
		t := oldest.topic
		p.bytes -= oldest.bytes
		t.floor = t.changes.pop().seq
		p.window.drop()
	}
}

// tendEvery is the time between two calls of tend.
func (p *presenceBook) tendEvery() time.Duration { return max(p.b.set.clientTTL/4, p.b.set.tick) }

// tend is called by a timer, as long as there is something in the book.
func (p *presenceBook) tend() {
	if p.b.ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.b.now()
	for _, t := range p.topics {
		t.snapshot = nil // it is made again when it is wanted
		if t.filled && len(t.watchers) == 0 && now-t.idle >= moment(p.b.set.clientTTL) {
			p.dropLocked(t)
		}
	}
	p.trimLocked(now)
	if p.tending = len(p.topics) > 0 || p.window.len > 0; p.tending {
		p.b.after(p.tendEvery(), p.tend)
	}
}

// changeJSON is the change of a topic: {"topic":"news","count":2,"join":[…],"leave":["…"]}.
func (p *presenceBook) changeJSON(t *presenceTopic, came, went []*Client) []byte {
	b := t.appendHead(make([]byte, 0, 64+len(t.name)+80*len(came)+35*len(went)))
	if len(came) > 0 {
		b = p.appendMembersLocked(append(b, `,"join":[`...), came)
	}
	if len(went) > 0 {
		b = append(b, `,"leave":[`...)
		for i, c := range went {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, '"')
			b = append(b, c.public...)
			b = append(b, '"')
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// snapshotLocked is a topic with its members, {"topic":"news","count":1,"members":[…]}, or without them if it is large.
func (p *presenceBook) snapshotLocked(t *presenceTopic) []byte {
	if t.snapshot != nil {
		return t.snapshot
	}
	if t.large {
		t.snapshot = t.countJSON()
		return t.snapshot
	}
	members := make([]*Client, 0, len(t.members))
	for c := range t.members {
		members = append(members, c)
	}
	slices.SortFunc(members, byPublicID)
	b := t.appendHead(make([]byte, 0, 64+len(t.name)+80*len(members)))
	b = p.appendMembersLocked(append(b, `,"members":[`...), members)
	t.snapshot = append(b, '}')
	return t.snapshot
}

// countJSON is a topic of which only the number of its members is told.
func (t *presenceTopic) countJSON() []byte { return append(t.appendHead(nil), '}') }

func (t *presenceTopic) appendHead(b []byte) []byte {
	b = append(b, `{"topic":"`...)
	b = append(b, t.name...) // nothing in it has to be escaped: see topicname.Valid
	b = append(b, `","count":`...)
	return strconv.AppendInt(b, int64(len(t.members)), 10)
}

// appendMembersLocked appends members and the bracket behind them.
func (p *presenceBook) appendMembersLocked(b []byte, members []*Client) []byte {
	for i, c := range members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":"`...)
		b = append(b, c.public...)
		b = append(b, '"')
		if c.user != "" {
			b = appendJSONString(append(b, `,"user":`...), c.user)
		}
		if info := p.infos[c].text; info != "" {
			b = appendJSONString(append(b, `,"info":`...), info)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}
