//go:build unix

package strangers

import (
	"sort"
	"time"
)

// kept is one window of an epoch: its messages in order, and for each the earliest begin of it and those after it.
type kept struct {
	messages []*message
	earliest []time.Time
}

func newKept(messages []*message) *kept {
	k := &kept{messages, make([]time.Time, len(messages))}
	for i := len(messages) - 1; i >= 0; i-- {
		k.earliest[i] = messages[i].began
		if i+1 < len(messages) && k.earliest[i+1].Before(k.earliest[i]) {
			k.earliest[i] = k.earliest[i+1]
		}
	}
	return k
}

// behind returns how many messages of the window may have come after that seq until t, at most.
func (k *kept) behind(seq uint64, t time.Time) int {
	first := sort.Search(len(k.messages), func(i int) bool { return k.messages[i].pos.seq > seq })
	end := sort.Search(len(k.messages), func(i int) bool { return k.earliest[i].After(t) })
	return max(0, end-first)
}

type epochLog struct {
	name    string
	n       int
	known   []*message // by seq
	windows map[string]*kept
	all     *kept
	opened  time.Time // at the latest
	first   uint64
}

// in returns the known messages with after < seq < before.
func (e *epochLog) in(after, before uint64) []*message {
	i := sort.Search(len(e.known), func(i int) bool { return e.known[i].pos.seq > after })
	k := sort.Search(len(e.known), func(i int) bool { return e.known[i].pos.seq >= before })
	if i >= k {
		return nil
	}
	return e.known[i:k]
}

// farthest is the highest seq that e can have given out.
func (j *judge) farthest(e *epochLog) uint64 {
	return e.known[len(e.known)-1].pos.seq + uint64(len(j.unknown))
}

func (e *epochLog) at(seq uint64) *message {
	if ms := e.in(seq-1, seq+1); len(ms) == 1 {
		return ms[0]
	}
	return nil
}

func windowOf(topic string) string {
	if topic == ageTopic || ownWindow(topic) > 0 {
		return topic
	}
	return ""
}

// retained says that the server cannot have given m up before t.
func (e *epochLog) retained(m *message, t time.Time) bool {
	name, limit := windowOf(m.topic), window
	if n := ownWindow(m.topic); n > 0 {
		limit = n
	}
	if name == ageTopic && t.Sub(m.began) >= windowAge {
		return false
	}
	return e.windows[name].behind(m.pos.seq, t) < limit
}
