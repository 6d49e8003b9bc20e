// Package topicname says what a topic and a pattern of topics may be called.
package topicname

import "strings"

const (
	Max       = 255 // bytes of a topic or a pattern
	MaxTokens = 16  // of a pattern
	maxStars  = 4   // in a pattern: a topic so has few ways through a tree of patterns, whatever patterns there are
)

// Rule says for an error what Valid wants.
const Rule = "a topic is 1 to 255 bytes of A-Z a-z 0-9 _ . : / ~ @ -"

// PatternRule says for an error what ValidPattern wants.
const PatternRule = "a pattern is a topic in which tokens between dots are * (any one token, 4 times at most) or, " +
	"at the end, > (one or more tokens), with 16 tokens at most"

// Valid reports whether s follows Rule. Nothing is normalised: two spellings are two topics.
func Valid(s string) bool {
	if s == "" || len(s) > Max {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("_.:/~@-", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// IsPattern reports whether s, a topic or a pattern, is a pattern.
func IsPattern(s string) bool { return strings.IndexByte(s, '*') >= 0 || strings.HasSuffix(s, ">") }

// ValidPattern reports whether s follows PatternRule.
func ValidPattern(s string) bool {
	if len(s) > Max {
		return false
	}
	wild := false
	for tokens, stars, more := 1, 0, true; more; tokens++ {
		var token string
		token, s, more = strings.Cut(s, ".")
		switch {
		case token == "*":
			stars++
			wild = true
		case token == ">" && !more:
			wild = true
		case token != "" && !Valid(token):
			return false
		}
		if tokens > MaxTokens || stars > maxStars {
			return false
		}
	}
	return wild
}
