// Package verbatim tells by their bytes alone whether an HTTP/1.1 request is one that came before, and whether an
// answer went out as it was meant. It parses neither: bytes that are the same mean the same.
//
// Nothing in it is safe for concurrent use, but for the methods of a Request.
package verbatim

import (
	"bytes"
	"net/http"
	"strings"
)

// MaxHead is how many bytes of a request, or of the head of an answer, are kept. net/http reads more at a time.
const MaxHead = 4000

const endOfHead = "\r\n\r\n"

// A Request is the bytes of a GET without a body, of which some digits may vary.
type Request struct {
	head, tail string // before and after the digits; where nothing varies tail is empty
}

// NewRequest returns the Request that r is, as it came: text, which it does not keep. varying is a parameter of the
// query, name and value, whose last digits bytes may vary; "" is none. ok is false if text is not r, all of it and
// nothing more, or if r says something of its connection or its body, so that the same bytes may mean something else
// another time.
func NewRequest(text []byte, r *http.Request, varying string, digits int) (q Request, ok bool) {
	q.head = string(text)
	line := r.Method + " " + r.RequestURI + " HTTP/1.1\r\n"
	if r.Method != http.MethodGet || !strings.HasPrefix(q.head, line) || !endsHead(text) || r.Close {
		return Request{}, false
	}
	for _, name := range [...]string{"Content-Length", "Transfer-Encoding", "Connection", "Expect", "Upgrade"} {
		values, there := r.Header[name]
		if there && !(name == "Connection" && strings.EqualFold(values[0], "keep-alive") && len(values) == 1) {
			return Request{}, false
		}
	}
	if varying == "" {
		return q, true
	}
	path, query, _ := strings.Cut(line, "?")
	at := strings.Index(query, varying)
	if at < 0 || at > 0 && query[at-1] != '&' {
		return Request{}, false // spelled otherwise, with escapes
	}
	end := len(path) + 1 + at + len(varying)
	return Request{q.head[:end-digits], q.head[end:]}, true
}

// Match reports whether p is the request again, and returns what p has in the place of the digits, which is memory of
// p and may be anything.
func (q *Request) Match(p []byte) (digits []byte, ok bool) {
	rest, ok := bytes.CutPrefix(p, []byte(q.head))
	if !ok || q.tail == "" {
		return nil, ok && len(rest) == 0
	}
	return bytes.CutSuffix(rest, []byte(q.tail))
}

// With returns the request with other digits; where nothing varies they are left out.
func (q *Request) With(digits []byte) []byte {
	text := []byte(q.head)
	if q.tail != "" {
		text = append(text, digits...)
	}
	return append(text, q.tail...)
}

// endsHead reports whether p ends where a request's head does, and no other does in it. To net/http a line ends with
// LF. An empty line that follows a head is the next request's.
func endsHead(p []byte) bool {
	p, ok := bytes.CutSuffix(p, []byte(endOfHead))
	return ok && len(p) > 0 && p[len(p)-1] != '\n' && !bytes.Contains(p, []byte("\n\n")) &&
		!bytes.Contains(p, []byte("\n\r\n"))
}
