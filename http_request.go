package gpoll

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// A request is what a client asks for, from the query, the headers or the body of a POST.
type request struct {
	id        string // whole client id; "" registers
	escaped   bool   // id has escapedDollar for its dollar
	anew      bool   // an id that is not known is replaced by a new one
	hasTopics bool
	json      bool
	after     Position
	topics    []string // sorted, without repetition
	last      int
	watch     *watchRequest // nil: no presence
	asked     uint64        // 1 + the number of the newest request of the server that the client has; 0: it does not say
	arrived   uint64        // of Broadcaster.arrivals
}

// body is the JSON of a POST, for requests whose query would be too long.
type body struct {
	After  string   `json:"after"`
	Topics []string `json:"topics"`
	Last   int      `json:"last"`
	Asked  *uint64  `json:"asked"`
	Format string   `json:"format"`

	Presence      []string `json:"presence"`
	PresenceAfter string   `json:"presence-after"`
}

// parseRequest reads a request of any transport into req. Lengths are checked before anything is parsed.
func (b *Broadcaster) parseRequest(w http.ResponseWriter, r *http.Request, req *request) *refusal {
	if len(r.URL.RawQuery) > maxQuery {
		return refuseQueryTooLong
	}
	q, ok := parseQuery(r.URL.RawQuery)
	if !ok {
		return refuseBad("bad-request", "the query is malformed; separate its parameters with & and escape them")
	}
	if name := q.repeated(); name != "" {
		code := "bad-request"
		if name == "client-id" {
			code = "bad-client-id"
		}
		return refuseBad(code, "the query has "+name+" more than once; send it once")
	}
	if q.plural { // to ignore it would leave the client without its topics
		return refuseBad("bad-request", "the query has topics; "+
			"name each topic by a parameter topic of its own, as in topic=a&topic=b")
	}
	for _, name := range [...]string{"Gpoll-Client-Id", "Last-Event-Id"} {
		if len(r.Header[name]) > 1 {
			return refuseBad("bad-request", "the header "+name+" is there more than once; send it once")
		}
	}
	in := body{After: q.after.value, Topics: q.topics, Format: q.format.value, Presence: q.presence,
		PresenceAfter: q.presenceAfter.value}
	*req = request{hasTopics: q.topics != nil, arrived: b.arrivals.Add(1)}
	if q.last.count > 0 {
		n, ok := parseDecimal(q.last.value)
		if !ok || n < 1 || n > replayCount {
			return refuseLast
		}
		in.Last = int(n)
	}
	if q.asked.count > 0 {
		n, ok := parseDecimal(q.asked.value)
		if !ok {
			return refuseBad("bad-request", "asked is the id of the newest request that came from the server, a number")
		}
		in.Asked = &n
	}
	var refused *refusal
	if r.Method == http.MethodPost {
		if q.after.count > 0 || q.topics != nil || q.last.count > 0 || q.asked.count > 0 || q.format.count > 0 ||
			q.presence != nil || q.presenceAfter.count > 0 {

			return refuseBad("bad-request", "a POST carries after, topics, last, asked, format and presence in its body; "+
				"leave them out of the query")
		}
		if in, refused = readBody(w, r); refused != nil {
			return refused
		}
		req.hasTopics = in.Topics != nil
		if in.Last < 0 || in.Last > replayCount {
			return refuseLast
		}
	} else if r.ContentLength > 0 || len(r.TransferEncoding) > 0 { // over HTTP/2 an unknown length often means no body
		return refuseBodyOnGet
	}

	header := first(r.Header, "Gpoll-Client-Id")
	if header != "" && q.escaped { // the header may have the same id
		q.id.value, q.escaped = strings.Replace(q.id.value, escapedDollar, "$", 1), false
	}
	if req.id, refused = b.clientID(q.id.value, header); refused != nil {
		return refused
	}
	req.escaped = q.escaped
	if id := cmp.Or(first(r.Header, "Last-Event-Id"), q.lastEventID.value); id != "" {
		in.After = id // EventSource comes back to the same URL
	}
	if req.after, refused = parseCursor(in.After); refused != nil {
		return refused
	}
	if req.topics, refused = b.checkTopics(in.Topics); refused != nil {
		return refused
	}
	req.last = in.Last
	req.asked = readAsked(in.Asked)
	switch in.Format {
	case "plain":
	case "json":
		req.json = true
	case "":
		req.json = acceptsJSON(r.Header)
	default:
		return refuseBad("bad-request", "format is plain or json")
	}
	if in.Presence != nil || in.PresenceAfter != "" {
		req.watch, refused = b.readWatch(in.Presence, in.PresenceAfter)
		if refused == nil && !req.json {
			refused = refusePlainPresence
		}
	}
	return refused
}

// A query is the parameters of a URL that mean something here.
type query struct {
	id, after, last, asked, format parameter
	lastEventID                    parameter // from event-source-polyfill, beside the first request's parameters
	topics, presence               []string  // nil: none
	presenceAfter                  parameter
	plural                         bool // there is a parameter "topics"
	escaped                        bool // id has escapedDollar for its dollar
}

// A parameter is the first value of its name, and how often the name is there.
type parameter struct {
	value string
	count int
}

func (p *parameter) add(value string) {
	if p.count++; p.count == 1 {
		p.value = value
	}
}

// parseQuery accepts what url.ParseQuery accepts, but makes no map: it runs for every poll.
func parseQuery(raw string) (q query, ok bool) {
	if strings.Contains(raw, ";") {
		return q, false
	}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := unescape(name)
		if err != nil {
			return q, false
		}
		if name == "client-id" && q.id.count == 0 && oneEscape(value) {
			q.id.add(value)
			q.escaped = true
			continue
		}
		value, err = unescape(value)
		if err != nil {
			return q, false
		}
		switch name {
		case "client-id":
			q.id.add(value)
		case "after":
			q.after.add(value)
		case "last":
			q.last.add(value)
		case "asked":
			q.asked.add(value)
		case "format":
			q.format.add(value)
		case "topic":
			q.topics = append(q.topics, value)
		case "lastEventId":
			q.lastEventID.add(value)
		case "presence":
			q.presence = append(q.presence, value)
		case "presence-after":
			q.presenceAfter.add(value)
		case "topics":
			q.plural = true
		}
	}
	return q, true
}

// escapedDollar stands in most polls for the dollar of the client id.
const escapedDollar = "%24"

// oneEscape reports whether the one escape in s is escapedDollar. Such an id stays as it is and takes no memory of its
// own.
func oneEscape(s string) bool {
	at := strings.IndexByte(s, '%')
	return at >= 0 && strings.HasPrefix(s[at:], escapedDollar) && strings.IndexByte(s[at+1:], '%') < 0 &&
		strings.IndexByte(s, '+') < 0
}

// unescape is url.QueryUnescape with a fast path: that looks at every byte twice.
func unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, nil
	}
	return url.QueryUnescape(s)
}

// repeated names a parameter that the query has more than once and may have once only; "": there is none.
func (q *query) repeated() string {
	switch {
	case q.id.count > 1:
		return "client-id"
	case q.after.count > 1:
		return "after"
	case q.last.count > 1:
		return "last"
	case q.asked.count > 1:
		return "asked"
	case q.format.count > 1:
		return "format"
	case q.lastEventID.count > 1:
		return "lastEventId"
	case q.presenceAfter.count > 1:
		return "presence-after"
	}
	return ""
}

var refuseLast = refuseBad("bad-request", fmt.Sprintf("last is a number from 1 to %d", replayCount))

// readBody reads the JSON of a POST that is a poll or begins a stream.
func readBody(w http.ResponseWriter, r *http.Request) (in body, refused *refusal) {
	data, refused := readJSON(w, r, maxBody)
	if refused != nil {
		return in, refused
	}
	if err := decodeStrict(data, &in); err != nil {
		return in, refuseBad("bad-request",
			`the body is not what a POST carries: {"after":"…","topics":["…"],"last":5,"format":"json",`+
				`"presence":["…"],"presence-after":"…"}`)
	}
	return in, nil
}

// readJSON reads the body of a POST, of at most that many bytes, whole, before anything waits: while a body is unread
// net/http does not see that the peer has gone (golang/go#23262). No form of another site's page can send the headers
// that it asks for.
func readJSON(w http.ResponseWriter, r *http.Request, most int64) (data []byte, refused *refusal) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" || r.Header.Get("Gpoll-Client-Id") == "" {
		return nil, refuseMediaType
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, refuseMediaType
	}
	// Behind middleware without Unwrap this fails; then the server's own ReadTimeout holds.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second))
	data, err = io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, refuseLargeBody(most)
	}
	if err != nil {
		return nil, refuseBad("bad-request", "the body ended early")
	}
	return data, nil
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

// clientID returns the id that a request brings in its query and in its header, "" when it registers.
func (b *Broadcaster) clientID(inQuery, inHeader string) (string, *refusal) {
	if b.RefuseQueryID && inQuery != "" && inQuery != "0" {
		return "", refuseBad("bad-client-id",
			"this server takes a client id in the header Gpoll-Client-Id only, not in the query")
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

// parseCursor reads the position that a client brings; for "" it returns the zero Position.
func parseCursor(s string) (Position, *refusal) {
	if s == "" {
		return Position{}, nil
	}
	p, err := ParsePosition(s)
	if err != nil || p.IsZero() { // no log assigns the zero Position
		return p, refuseBad("bad-position", "this is not a position; "+errPosition.Error())
	}
	return p, nil
}

// readAsked returns what request.asked is for a number; nil: there is none.
func readAsked(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return min(*n, math.MaxInt64) + 1
}

// readWatch reads what a request says of presence.
func (b *Broadcaster) readWatch(named []string, after string) (*watchRequest, *refusal) {
	if named == nil {
		if after != "" {
			return nil, refuseBad("bad-request", "presence-after is the position of the topics in presence; name them")
		}
		return nil, nil
	}
	w := new(watchRequest)
	var no *refusal
	if w.topics, no = b.checkTopics(named); no != nil {
		return nil, no
	}
	w.after, no = parseCursor(after)
	return w, no
}

// checkTopics returns the topics sorted and without repetition.
func (b *Broadcaster) checkTopics(topics []string) ([]string, *refusal) {
	if len(topics) > b.set.maxTopics {
		return nil, refuseBad("too-many-topics",
			fmt.Sprintf("%d topics; the limit (Broadcaster.MaxTopics) is %d", len(topics), b.set.maxTopics))
	}
	for _, topic := range topics {
		switch {
		case topicname.Valid(topic):
		case !b.Wildcards:
			return nil, refuseBad("bad-topic", topicname.Rule+"; there are no wildcards")
		case !topicname.ValidPattern(topic):
			return nil, refuseBad("bad-topic", topicname.Rule+"; "+topicname.PatternRule)
		}
	}
	topics = sortedSet(topics)
	return topics, refuseManyPatterns(topics)
}

// first is h.Get for a name in its canonical form: Get would check every byte of it.
func first(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
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

// hasToken reports whether a comma-separated header names token, in whatever case.
func hasToken(h http.Header, name, token string) bool {
	for element := range elements(h[name]) {
		if strings.EqualFold(element, token) {
			return true
		}
	}
	return false
}

// elements are those of a comma-separated header (RFC 9110, section 5.6.1), over all its lines.
func elements(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for part := range strings.SplitSeq(line, ",") {
				if !yield(strings.TrimSpace(part)) {
					return
				}
			}
		}
	}
}
