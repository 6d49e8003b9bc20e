package gpoll

import (
	"slices"
	"sync"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// subscribers are the clients of one topic, or of one pattern: the cost of a message is in proportion to their number.
type subscribers struct {
	topic   string
	members []member
}

// A member holds its index among its client's subscriptions, and a subscription its index among the members: removing
// either takes constant time.
type member struct {
	client *Client
	index  int32
}

type subscription struct {
	to    *subscribers
	index int32
}

// subscribeLocked enters c under all its topics. If it has older subscriptions, unsubscribe those afterwards: then the
// routine has the topics that stay at every moment, also for those who ask the topicIndex without the routine's lock.
func (r *routine) subscribeLocked(c *Client) {
	c.subs = make([]subscription, 0, len(c.topics))
	for _, topic := range c.topics {
		s := r.topics[topic]
		if s == nil {
			s = &subscribers{topic: topic}
			r.topics[topic] = s
			r.b.topics.add(topic, r)
			if topicname.IsPattern(topic) {
				r.patterns.put(topic, s)
			}
		}
		c.subs = append(c.subs, subscription{s, int32(len(s.members))})
		s.members = append(s.members, member{c, int32(len(c.subs) - 1)})
	}
}

// unsubscribeLocked ends subscriptions of a client.
func (r *routine) unsubscribeLocked(subs []subscription) {
	for _, sub := range subs {
		s := sub.to
		if last := s.members[len(s.members)-1]; int(sub.index) < len(s.members)-1 {
			s.members[sub.index] = last
			last.client.subs[last.index].index = sub.index
		}
		s.members[len(s.members)-1] = member{}
		s.members = s.members[:len(s.members)-1]
		if len(s.members) == 0 {
			delete(r.topics, s.topic)
			r.b.topics.remove(s.topic, r)
			if topicname.IsPattern(s.topic) {
				r.patterns.put(s.topic, nil)
			}
		}
	}
}

// addressMatching addresses a message of a topic to the clients that have a pattern which matches it, and have not got
// it by the topic or by another pattern.
func (r *routine) addressMatching(rec *record) {
	r.patterns.match(rec.to.name, func(s *subscribers) {
		for _, m := range s.members {
			if m.client.hot().round != r.round || r.due[m.client.end].rec != rec {
				r.addressUnless(m.client, rec)
			}
		}
	})
}

// A topicIndex knows which routines have subscribers of a topic, so that a message wakes no others.
type topicIndex struct {
	mu       sync.RWMutex
	by       map[string][]*routine
	patterns patternTree[[]*routine]
}

// add enters r under topic. r is there at most once: a routine adds a topic with its first subscriber.
func (x *topicIndex) add(topic string, r *routine) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.by == nil {
		x.by = map[string][]*routine{}
	}
	x.setLocked(topic, append(x.by[topic], r))
}

func (x *topicIndex) remove(topic string, r *routine) {
	x.mu.Lock()
	defer x.mu.Unlock()
	left := slices.DeleteFunc(x.by[topic], func(other *routine) bool { return other == r })
	if x.setLocked(topic, left); len(left) == 0 {
		delete(x.by, topic)
	}
}

// of returns the routines that have subscribers of topic.
func (x *topicIndex) of(topic string) []*routine {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Clone(x.by[topic])
}

func (x *topicIndex) setLocked(topic string, routines []*routine) {
	x.by[topic] = routines
	switch {
	case !topicname.IsPattern(topic):
	case len(routines) == 0:
		x.patterns.put(topic, nil)
	default:
		own := routines // so that other calls allocate nothing
		x.patterns.put(topic, &own)
	}
}

// notify wakes the routines that have subscribers of topic.
func (x *topicIndex) notify(topic string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range x.by[topic] {
		r.notify()
	}
	if x.patterns.len > 0 {
		x.patterns.match(topic, notifyAll)
	}
}

func notifyAll(routines *[]*routine) {
	for _, r := range *routines {
		r.notify()
	}
}

// notify wakes the routines that have a client to which a message goes. The others take the message with the next one
// for them, or when they are too far behind.
func (b *Broadcaster) notify(to address) {
	switch to.kind {
	case kindAll:
		b.clients.each((*routine).notify)
	case kindTopic:
		b.topics.notify(to.name)
	case kindClient:
		if key, ok := parseKey(to.name); ok {
			if c := b.clients.get(key); c != nil {
				c.routine.notify()
			}
		}
	case kindUser:
		for _, c := range b.clients.ofUser(to.name) {
			c.routine.notify()
		}
	}
}
