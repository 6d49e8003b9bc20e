package gpoll

import (
	"strings"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// Patterns are what a subscription may name in place of a topic. A dot cuts a topic into tokens. In a pattern a token *
// stands for any one token, and a token > at the end for one or more. They are NATS's wildcards, but for one thing: a
// topic may have empty tokens, and a wildcard matches them too.

const maxPatterns = 16 // of a client: a read looks for the topics of each

// patternsIn counts the patterns among topics and patterns.
func patternsIn(topics []string) (n int) {
	for _, topic := range topics {
		if topicname.IsPattern(topic) {
			n++
		}
	}
	return n
}

// A patternTree finds the patterns that match a topic, among any number of others. It is not safe for concurrent use.
type patternTree[T any] struct {
	root patternNode[T]
	len  int
}

// A patternNode is what follows some tokens of patterns.
type patternNode[T any] struct {
	next map[string]*patternNode[T] // by token
	star *patternNode[T]
	here *T // of the pattern that ends here; nil: there is none
	rest *T // of the pattern that ends with >
}

// put sets what belongs to a pattern; nil removes the pattern.
func (t *patternTree[T]) put(pattern string, v *T) { t.len += t.root.put(pattern, v) }

// match calls visit for each pattern that matches topic. The order is any.
func (t *patternTree[T]) match(topic string, visit func(*T)) { t.root.match(topic, visit) }

func (n *patternNode[T]) match(topic string, visit func(*T)) {
	if n.rest != nil {
		visit(n.rest)
	}
	token, rest, more := strings.Cut(topic, ".")
	if next := n.next[token]; next != nil {
		next.follow(rest, more, visit)
	}
	if n.star != nil {
		n.star.follow(rest, more, visit)
	}
}

func (n *patternNode[T]) follow(rest string, more bool, visit func(*T)) {
	switch {
	case more:
		n.match(rest, visit)
	case n.here != nil:
		visit(n.here)
	}
}

// put returns by how many patterns there are more.
func (n *patternNode[T]) put(pattern string, v *T) (added int) {
	token, rest, more := strings.Cut(pattern, ".")
	if token == ">" && !more {
		return replace(&n.rest, v)
	}
	next := n.star
	if token != "*" {
		next = n.next[token]
	}
	if next == nil {
		next = new(patternNode[T])
	}
	if more {
		added = next.put(rest, v)
	} else {
		added = replace(&next.here, v)
	}
	empty := len(next.next) == 0 && next.star == nil && next.here == nil && next.rest == nil
	switch {
	case empty && token == "*":
		n.star = nil
	case empty:
		delete(n.next, token)
	case token == "*":
		n.star = next
	case n.next == nil:
		n.next = map[string]*patternNode[T]{token: next}
	default:
		n.next[token] = next
	}
	return added
}

func replace[T any](at **T, v *T) (added int) {
	if *at != nil {
		added--
	}
	if *at = v; v != nil {
		added++
	}
	return added
}
