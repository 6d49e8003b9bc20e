package gpolltest

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/corvuscrypto/gpoll"
)

// A History records the messages that were published and the messages that every client saw, for a [Checker] to judge.
// The applications at both ends are the witnesses. The zero History is empty and ready to use. All methods may be
// called concurrently.
//
// It keeps 80 bytes for each delivery and compares payloads by a 64-bit hash.
type History struct {
	clock atomic.Uint64 // orders the beginnings and ends of publishes, and what clients saw, in real time

	mu        sync.Mutex // guards the fields below
	published []publish
	byPayload map[uint64][]gpoll.Position // built by Position, from published[:indexed]
	indexed   int
	traces    []*Trace
}

// A publish is one message with what became of it.
type publish struct {
	pos        gpoll.Position // zero: ErrUnknown, or nobody said
	id         string         // publish id
	topic      string
	to         gpoll.Recipient
	except     []string
	size       int
	sum        uint64
	start, end uint64 // of the call, by History.clock
}

// A Publisher is what History.Publish publishes to: a *gpoll.Broadcaster, or a broker by PublishTo.
type Publisher interface {
	Publish(context.Context, gpoll.Message) (gpoll.Position, error)
}

// PublishTo returns a Publisher that gives messages to b as they are, past every Broadcaster.
func PublishTo(b gpoll.Broker) Publisher { return brokerPublisher{b} }

type brokerPublisher struct{ broker gpoll.Broker }

func (p brokerPublisher) Publish(ctx context.Context, m gpoll.Message) (gpoll.Position, error) {
	r, err := gpoll.NewMessageRecord(m)
	if err != nil {
		return gpoll.Position{}, err
	}
	return p.broker.Publish(ctx, r)
}

// Publish publishes m to b and records the outcome: accepted, possibly accepted when the error is gpoll.ErrUnknown,
// else not in the log. It returns what b returned.
func (h *History) Publish(ctx context.Context, b Publisher, m gpoll.Message) (gpoll.Position, error) {
	p := newPublish(m) // before the call: what b does to m.Data afterwards must not show in the record
	p.start = h.clock.Add(1)
	pos, err := b.Publish(ctx, m)
	p.end = h.clock.Add(1)
	switch {
	case err == nil:
		p.pos = pos
	case !errors.Is(err, gpoll.ErrUnknown):
		return pos, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published = append(h.published, p)
	return pos, err
}

// Sent records a message that may have been accepted once, at an unknown Position: what Broadcaster.Send was given.
// Call it before the message is sent.
func (h *History) Sent(m gpoll.Message) {
	p := newPublish(m)
	p.start = h.clock.Add(1)
	p.end = 1<<64 - 1
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published = append(h.published, p)
}

func newPublish(m gpoll.Message) publish {
	return publish{id: m.ID, topic: m.Topic, to: m.To, except: slices.Clone(m.Except), size: len(m.Data),
		sum: sumOf(m.Data)}
}

// Position returns where a message with that payload was accepted, if exactly one was. Clients whose transport
// shows no Positions, such as a plain WebSocket, learn theirs from it when every payload is different.
func (h *History) Position(data []byte) (gpoll.Position, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byPayload == nil {
		h.byPayload = map[uint64][]gpoll.Position{}
	}
	for _, p := range h.published[h.indexed:] {
		if !p.pos.IsZero() {
			h.byPayload[p.sum] = append(h.byPayload[p.sum], p.pos)
		}
	}
	h.indexed = len(h.published)
	if found := h.byPayload[sumOf(data)]; len(found) == 1 {
		return found[0], true
	}
	return gpoll.Position{}, false
}

// Trace returns a new record for one client. name appears in violations.
func (h *History) Trace(name string) *Trace {
	t := &Trace{h: h, name: name}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.traces = append(h.traces, t)
	return t
}

// Published returns how many messages were accepted, or may have been.
func (h *History) Published() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.published)
}

// A Trace is what one client's application saw, in its order. A [Session] writes its own; a test of another client
// writes it by hand. A nil *Trace records nothing. All methods may be called concurrently, but only a caller that
// waits for one before the next gives them an order.
type Trace struct {
	h    *History
	name string

	mu     sync.Mutex // guards events
	events []observation
}

// An observation is one thing that an application saw.
type observation struct {
	kind  kind
	known bool           // delivered: topic is what the transport showed; it shows none in plain form
	pos   gpoll.Position // gap: Epoch and From
	to    uint64         // gap
	topic string         // subscribed, unsubscribed, delivered; registered: the public id; gap: the reason
	user  string         // registered
	size  int
	sum   uint64
	tick  uint64
}

type kind uint8

const (
	registered kind = iota
	subscribed
	unsubscribed
	delivered
	repeated
	gap
	scanned
	drained
	ended
)

// Registered records that the server gave the client an id, and which user it is. What is addressed to the client
// under an earlier id is not owed any more.
func (t *Trace) Registered(clientID, user string) {
	t.add(observation{kind: registered, topic: publicID(clientID), user: user})
}

// Scanned records that the client adopted p: all that is owed up to p has been seen. The first Scanned or Subscribed
// of a Trace is where the client begins.
func (t *Trace) Scanned(p gpoll.Position) { t.add(observation{kind: scanned, pos: p}) }

// Subscribed records that messages to topic, which may be a pattern, are owed after p, and that the client stands at p.
// A zero p stands for where it stands, at the beginning for the place before the first message that it sees.
func (t *Trace) Subscribed(topic string, p gpoll.Position) {
	t.add(observation{kind: subscribed, topic: topic, pos: p})
}

// Unsubscribed records that messages to topic after p are not wanted, and that the client stands at p.
func (t *Trace) Unsubscribed(topic string, p gpoll.Position) {
	t.add(observation{kind: unsubscribed, topic: topic, pos: p})
}

// Delivered records a message that reached the application. m.Position is zero where the transport shows none: then the
// payload tells which message it was.
func (t *Trace) Delivered(m gpoll.Message) {
	t.add(observation{kind: delivered, known: true, pos: m.Position, topic: m.Topic, size: len(m.Data),
		sum: sumOf(m.Data)})
}

// DeliveredPlain is Delivered for a transport that shows no topics.
func (t *Trace) DeliveredPlain(m gpoll.Message) {
	t.add(observation{kind: delivered, pos: m.Position, size: len(m.Data), sum: sumOf(m.Data)})
}

// Repeated records a message or gap at or before the client's cursor, which the client dropped, although the attach had
// brought the cursor.
func (t *Trace) Repeated(p gpoll.Position) { t.add(observation{kind: repeated, pos: p}) }

// Gap records a gap notice.
func (t *Trace) Gap(g gpoll.Gap) {
	t.add(observation{kind: gap, pos: gpoll.Position{Epoch: g.Epoch, Seq: g.From}, to: g.To, topic: g.Reason})
}

// Drained records that nothing more is published and the client has had time to receive all.
func (t *Trace) Drained() { t.add(observation{kind: drained}) }

// Ended records that the client left or was removed, and owes nothing more to anybody.
func (t *Trace) Ended() { t.add(observation{kind: ended}) }

func (t *Trace) add(o observation) {
	if t == nil {
		return
	}
	o.tick = t.h.clock.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.events); o.kind == scanned && n > 1 && t.events[n-1].kind == scanned &&
		t.events[n-2].kind == scanned && t.events[n-1].pos.Epoch == o.pos.Epoch {
		t.events[n-1] = o // of a quiet client's many heartbeats the first and the last say all
		return
	}
	t.events = append(t.events, o)
}

// position is History.Position, for the client's own resume.
func (t *Trace) position(data []byte) (gpoll.Position, bool) {
	if t == nil {
		return gpoll.Position{}, false
	}
	return t.h.Position(data)
}

var seed = maphash.MakeSeed()

func sumOf(data []byte) uint64 { return maphash.Bytes(seed, data) }

func publicID(clientID string) string {
	if clientID == "" {
		return ""
	}
	return gpoll.PublicID(clientID)
}
