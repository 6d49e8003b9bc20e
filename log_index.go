package gpoll

import (
	"cmp"
	"slices"
	"strings"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// The index of the lanes finds the topics of a pattern. It is there from the beginning with Wildcards, and otherwise
// from the first read with a pattern on, which a Grant may have given.
//
// The children of a node stand in the order in which something came to them last. So a read visits the branches that
// have had a message after its cursor, and no others: each lane that it finds has a message for it, or has lost one.

// A laneNode is some tokens of topics. Behind topicname.MaxTokens-1 of them the rest of a topic is one token: no
// pattern looks further.
type laneNode struct {
	token         string
	parent        *laneNode            // nil: the root
	lane          *lane                // of the topic that ends here; nil: none
	newest        uint64               // the highest seq that came to a topic here or below
	first, last   *laneNode            // the children, by newest: the highest first
	before, after *laneNode            // siblings
	count         int                  // children
	children      map[string]*laneNode // from fewChildren on
}

// Most nodes have few children, for which a map would take the most memory.
const fewChildren = 8

// indexTopics makes the index.
func (l *messageLog) indexTopics() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.indexLocked()
}

// indexLocked returns the index of the lanes, and makes it if there is none.
func (l *messageLog) indexLocked() *laneNode {
	if l.index != nil {
		return l.index
	}
	l.index = new(laneNode)
	var topics []*lane
	for to, s := range l.lanes {
		if to.kind == kindTopic {
			topics = append(topics, s)
		}
	}
	slices.SortFunc(topics, func(a, b *lane) int { return cmp.Compare(a.newest(), b.newest()) })
	for _, s := range topics {
		s.node = l.index.enter(s)
		s.node.rise(s.newest())
	}
	return l.index
}

// newest returns the seq of the newest message that the lane had, or one before its first.
func (s *lane) newest() uint64 {
	if s.recs.len > 0 {
		return s.recs.at(s.recs.len - 1).pos.Seq
	}
	return s.evicted
}

// matchingLocked returns the lanes of the topics that match a pattern of want and to which something came after cursor,
// each once. The result is memory of the log, valid until the next call.
func (l *messageLog) matchingLocked(want []string, cursor uint64) []*lane {
	found := l.matching[:0]
	l.searches++
	add := func(s *lane) {
		if s.found != l.searches && s.newest() > cursor { // else it was something below s
			s.found = l.searches
			found = append(found, s)
		}
	}
	for _, topic := range want {
		if topicname.IsPattern(topic) {
			l.indexLocked().match(topic, 1, cursor, add)
		}
	}
	l.matching = found[:0]
	return found
}

// enter adds a lane that is not there yet, behind all others.
func (n *laneNode) enter(s *lane) *laneNode {
	rest := s.to.name
	for depth, more := 1, true; more; depth++ {
		token := rest
		if more = false; depth < topicname.MaxTokens {
			token, rest, more = strings.Cut(rest, ".")
		}
		child := n.child(token)
		if child == nil {
			child = &laneNode{token: token, parent: n, before: n.last}
			n.add(child)
		}
		n = child
	}
	n.lane = s
	return n
}

// child returns the child of that token, or nil.
func (n *laneNode) child(token string) *laneNode {
	if n.children != nil {
		return n.children[token]
	}
	for child := n.first; child != nil; child = child.after {
		if child.token == token {
			return child
		}
	}
	return nil
}

// add adds a child that knows its place.
func (n *laneNode) add(child *laneNode) {
	n.link(child)
	n.count++
	switch {
	case n.children != nil:
		n.children[child.token] = child
	case n.count >= fewChildren:
		n.children = make(map[string]*laneNode, n.count)
		for child := n.first; child != nil; child = child.after {
			n.children[child.token] = child
		}
	}
}

// remove takes a child away.
func (n *laneNode) remove(child *laneNode) {
	n.unlink(child)
	n.count--
	delete(n.children, child.token)
}

// link has a child's neighbours point at it.
func (n *laneNode) link(child *laneNode) {
	if child.before == nil {
		n.first = child
	} else {
		child.before.after = child
	}
	if child.after == nil {
		n.last = child
	} else {
		child.after.before = child
	}
}

// unlink takes a child out of the order.
func (n *laneNode) unlink(child *laneNode) {
	if child.before == nil {
		n.first = child.after
	} else {
		child.before.after = child.after
	}
	if child.after == nil {
		n.last = child.before
	} else {
		child.after.before = child.before
	}
	child.before, child.after = nil, nil
}

// rise notes that a message with the highest seq so far came to n.
func (n *laneNode) rise(seq uint64) {
	for ; n.parent != nil; n = n.parent {
		n.newest = seq
		if p := n.parent; p.first != n {
			p.unlink(n)
			n.after = p.first
			p.link(n)
		}
	}
	n.newest = seq
}

// leave removes n's lane, which is forgotten.
func (n *laneNode) leave() {
	for n.lane = nil; n.parent != nil && n.lane == nil && n.first == nil; n = n.parent {
		n.parent.remove(n)
	}
}

// match calls visit for the lanes below n that match pattern, of which depth-1 tokens led to n, and that had something
// after cursor.
func (n *laneNode) match(pattern string, depth int, cursor uint64, visit func(*lane)) {
	token, rest, more := strings.Cut(pattern, ".")
	switch token {
	case ">":
		n.each(cursor, visit)
	case "*":
		for child := n.first; child != nil && child.newest > cursor; child = child.after {
			if depth < topicname.MaxTokens || !strings.Contains(child.token, ".") {
				child.follow(rest, more, depth, cursor, visit)
			}
		}
	default:
		if child := n.child(token); child != nil && child.newest > cursor {
			child.follow(rest, more, depth, cursor, visit)
		}
	}
}

func (n *laneNode) follow(rest string, more bool, depth int, cursor uint64, visit func(*lane)) {
	switch {
	case more:
		n.match(rest, depth+1, cursor, visit)
	case n.lane != nil:
		visit(n.lane)
	}
}

// each calls visit for all lanes below n that had something after cursor.
func (n *laneNode) each(cursor uint64, visit func(*lane)) {
	for child := n.first; child != nil && child.newest > cursor; child = child.after {
		if child.lane != nil {
			visit(child.lane)
		}
		child.each(cursor, visit)
	}
}
