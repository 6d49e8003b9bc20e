package gpoll

import (
	"slices"
	"sync"
)

// A topicIndex knows which routines have subscribers of a topic, so that a message wakes no others.
type topicIndex struct {
	mu sync.RWMutex
	by map[string][]*routine
}

// add enters r for topic. It is there at most once: a routine adds a topic with its first subscriber.
func (x *topicIndex) add(topic string, r *routine) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.by == nil {
		x.by = map[string][]*routine{}
	}
	x.by[topic] = append(x.by[topic], r)
}

func (x *topicIndex) remove(topic string, r *routine) {
	x.mu.Lock()
	defer x.mu.Unlock()
	left := slices.DeleteFunc(x.by[topic], func(other *routine) bool { return other == r })
	if len(left) == 0 {
		delete(x.by, topic)
	} else {
		x.by[topic] = left
	}
}

// notify wakes the routines that have subscribers of topic.
func (x *topicIndex) notify(topic string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range x.by[topic] {
		r.notify()
	}
}

// notify wakes the routines that have somebody to whom a message goes. The others take it with the next that is for them, or when
// they are too far behind.
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
