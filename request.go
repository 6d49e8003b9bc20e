package gpoll

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A request is what a client asks for, from the query, the headers or the body of a POST.
type request struct {
	id        string // whole client id; "" registers
	after     Position
	topics    []string // sorted, without repetition
	hasTopics bool
	last      int
	json      bool
}

// body is the JSON of a POST, for requests whose query would be too long.
type body struct {
	After  string   `json:"after"`
	Topics []string `json:"topics"`
	Last   int      `json:"last"`
	Format string   `json:"format"`
}

// parseRequest reads a request of any transport. Lengths are checked before anything is parsed.
func (b *Broadcaster) parseRequest(w http.ResponseWriter, r *http.Request) (*request, *refusal) {
	if len(r.URL.RawQuery) > maxQuery {
		return nil, refuseQueryTooLong
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuseBad("bad-request", "the query is malformed; separate its parameters with & and escape them")
	}
	for _, name := range [...]string{"client-id", "after", "last", "format"} {
		if values := query[name]; len(values) > 1 {
			code := "bad-request"
			if name == "client-id" {
				code = "bad-client-id"
			}
			return nil, refuseBad(code, "the query has "+name+" more than once; send it once")
		}
	}
	for _, name := range [...]string{"Gpoll-Client-Id", "Last-Event-Id"} {
		if len(r.Header[name]) > 1 {
			return nil, refuseBad("bad-request", "the header "+name+" is there more than once; send it once")
		}
	}
	in := body{After: query.Get("after"), Topics: query["topic"], Format: query.Get("format")}
	req := &request{hasTopics: query.Has("topic")}
	if query.Has("last") {
		n, ok := parseDecimal(query.Get("last"))
		if !ok || n < 1 || n > replayCount {
			return nil, refuseLast
		}
		in.Last = int(n)
	}
	if r.Method == http.MethodPost {
		if query.Has("after") || query.Has("topic") || query.Has("last") || query.Has("format") {
			return nil, refuseBad("bad-request", "a POST carries after, topics, last and format in its body; leave them out of the query")
		}
		if refused := readBody(w, r, &in); refused != nil {
			return nil, refused
		}
		req.hasTopics = in.Topics != nil
		if in.Last < 0 || in.Last > replayCount {
			return nil, refuseLast
		}
	} else if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return nil, refuseBodyOnGet
	}

	var refused *refusal
	if req.id, refused = b.clientID(query, r.Header); refused != nil {
		return nil, refused
	}
	if id := r.Header.Get("Last-Event-Id"); id != "" {
		in.After = id // EventSource comes back to the same URL
	}
	if req.after, refused = parseCursor(in.After); refused != nil {
		return nil, refused
	}
	if req.topics, refused = b.checkTopics(in.Topics); refused != nil {
		return nil, refused
	}
	req.last = in.Last
	switch in.Format {
	case "plain":
	case "json":
		req.json = true
	case "":
		req.json = acceptsJSON(r.Header)
	default:
		return nil, refuseBad("bad-request", "format is plain or json")
	}
	return req, nil
}

var refuseLast = refuseBad("bad-request", fmt.Sprintf("last is a number from 1 to %d", replayCount))

// readBody reads the JSON of a POST, whole, before anything waits: while a body is unread net/http does not see the peer go
// (golang/go#23262).
func readBody(w http.ResponseWriter, r *http.Request, in *body) *refusal {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" || r.Header.Get("Gpoll-Client-Id") == "" {
		return refuseMediaType
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return refuseMediaType
	}
	// It may be refused by middleware that does not unwrap; then the server's own ReadTimeout holds.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return refuseBodyTooLarge
	}
	if err != nil {
		return refuseBad("bad-request", "the body ended early")
	}
	if err := decodeStrict(data, in); err != nil {
		return refuseBad("bad-request", `the body is not what a POST carries: {"after":"…","topics":["…"],"last":5,"format":"json"}`)
	}
	return nil
}

// decodeStrict decodes one JSON value with known fields only and nothing behind it.
func decodeStrict(data []byte, into any) error {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more than one value")
	}
	return nil
}

// clientID returns the id that a request brings, "" when it registers.
func (b *Broadcaster) clientID(query url.Values, h http.Header) (string, *refusal) {
	inQuery, inHeader := query.Get("client-id"), h.Get("Gpoll-Client-Id")
	if b.RefuseQueryID && inQuery != "" && inQuery != "0" {
		return "", refuseBad("bad-client-id", "this server takes a client id in the header Gpoll-Client-Id only, not in the query")
	}
	if inQuery != "" && inHeader != "" && inQuery != inHeader {
		return "", refuseBad("bad-client-id", "the query and the header Gpoll-Client-Id name two clients; send one id")
	}
	id := inQuery + inHeader
	if inQuery != "" && inHeader != "" {
		id = inQuery
	}
	if id == "0" {
		return "", nil
	}
	return id, nil
}

// parseCursor reads the position that a client brings; "" is none, the zero Position.
func parseCursor(s string) (Position, *refusal) {
	if s == "" {
		return Position{}, nil
	}
	p, err := ParsePosition(s)
	if err != nil || p.IsZero() { // which no log assigns
		return p, refuseBad("bad-position", "this is not a position; "+errPosition.Error())
	}
	return p, nil
}

// checkTopics returns the topics sorted and without repetition.
func (b *Broadcaster) checkTopics(topics []string) ([]string, *refusal) {
	if len(topics) > b.set.maxTopics {
		return nil, refuseBad("too-many-topics", fmt.Sprintf("%d topics; the limit (Broadcaster.MaxTopics) is %d", len(topics), b.set.maxTopics))
	}
	for _, topic := range topics {
		if !validTopic(topic) {
			return nil, refuseBad("bad-topic", topicRule+"; there are no wildcards")
		}
	}
	return sortedSet(topics), nil
}

// sortedSet returns a sorted copy of s without repetition; nil for none.
func sortedSet(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Clip(slices.Compact(s))
}

// acceptsJSON reports whether the Accept header names JSON.
func acceptsJSON(h http.Header) bool { return accepts(h, "application/json") }

func accepts(h http.Header, mediaType string) bool {
	for _, line := range h["Accept"] {
		for part := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(name), mediaType) {
				return true
			}
		}
	}
	return false
}
