//go:build unix

package strangers

import (
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// A request says what an attach asks for.
type request struct {
	transport string // "plain", "json", "post", "sse", "sse-json", "ws", "v1"
	id        string // "" registers
	idInQuery bool
	after     position // none: the server's cursor
	lastEvent bool     // the cursor goes in Last-Event-ID
	topics    []string
	last      int
	user      string
	byCookie  bool
	half      bool // closes its sending side after the request
	again     bool // the poll before was answered on the same connection
	pieces    bool // WebSocket: sends its messages in fragments
	host      string

	opened time.Time
	n      int // counts the attaches of a life
}

func (q *request) poll() bool {
	return q.transport == "plain" || q.transport == "json" || q.transport == "post"
}

// credentials are who the client is.
func (q *request) credentials() []field {
	switch {
	case q.user == "":
		return nil
	case q.byCookie:
		return []field{{"Cookie", "user=" + q.user}, {"Origin", "http://" + q.host}}
	}
	return []field{{"Authorization", "Bearer " + q.user}}
}

// query is the parameters in the query, without the client id if the header has it.
func (q *request) query() string {
	var parts []string
	if q.idInQuery {
		id := q.id
		if id == "" {
			id = "0"
		}
		parts = append(parts, "client-id="+strings.ReplaceAll(id, "$", "%24"))
	}
	if !q.after.none() && !q.lastEvent {
		parts = append(parts, "after="+q.after.String())
	}
	for _, t := range q.topics {
		parts = append(parts, "topic="+t)
	}
	if q.last > 0 {
		parts = append(parts, "last="+itoa(q.last))
	}
	if q.transport == "json" || q.transport == "sse-json" {
		parts = append(parts, "format=json")
	}
	if len(parts) == 0 {
		return ""
	}
	return "?" + strings.Join(parts, "&")
}

func (q *request) fields() []field {
	fields := q.credentials()
	if !q.idInQuery && q.id != "" || q.transport == "post" {
		id := q.id
		if id == "" {
			id = "0"
		}
		fields = append(fields, field{"Gpoll-Client-Id", id})
	}
	if q.lastEvent && !q.after.none() {
		fields = append(fields, field{"Last-Event-ID", q.after.String()})
	}
	return fields
}

// sendPoll writes a poll.
func sendPoll(l *link, q *request) error {
	if q.transport != "post" {
		return l.send("GET", "/poll"+q.query(), q.host, q.fields(), nil)
	}
	body := map[string]any{"format": "json"}
	if !q.after.none() {
		body["after"] = q.after.String()
	}
	if len(q.topics) > 0 {
		body["topics"] = q.topics
	}
	if q.last > 0 {
		body["last"] = q.last
	}
	return l.send("POST", "/poll", q.host, append(q.fields(), field{"Content-Type", "application/json"}), encode(body))
}

// readPoll reads the answer. keep says that the connection is good for another request.
func readPoll(l *link, q *request) (items []item, keep bool) {
	h, err := l.head()
	if err != nil {
		return []item{cut(l, err)}, false
	}
	r, keep, err := l.body(h)
	if err != nil {
		return []item{cut(l, err)}, false
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return []item{cut(l, err)}, false
	}
	if h.status != 200 && h.status != 204 {
		return refusal(h, body), keep
	}
	items = common(h, false)
	if q.transport == "plain" {
		items = append(items, plainAnswer(h, q, body)...)
	} else {
		items = append(items, batch(h, body)...)
	}
	return append(items, item{kind: answered, at: time.Now(), status: h.status}), keep
}

func plainAnswer(h *head, q *request, body []byte) []item {
	now := time.Now()
	pos, err := parsePosition(h.get("Gpoll-Position"))
	if err != nil {
		return []item{bad("status %d, Gpoll-Position: %v", h.status, err)}
	}
	var items []item
	for _, s := range h.fields["Gpoll-Gap"] {
		g, err := parseGap(s)
		if err != nil {
			return []item{bad("Gpoll-Gap: %v", err)}
		}
		items = append(items, item{kind: missing, at: now, gap: g})
	}
	if q.id == "" {
		var reg struct {
			ID string `json:"client-id"`
		}
		if err := decode(body, &reg); err != nil || h.status != 200 || h.get("Content-Type") != "application/json" {
			return append(items, bad("registration answered %d %.60q: %v", h.status, body, err))
		}
		return append(items, item{kind: started, at: now, pos: pos, id: reg.ID})
	}
	if h.status == 204 {
		return append(items, item{kind: scanned, at: now, pos: pos})
	}
	it := item{kind: delivered, at: now, pos: pos, sum: sum(body), size: len(body)}
	switch h.get("Content-Type") {
	case "text/plain; charset=utf-8":
		it.text = true
		if !utf8.Valid(body) {
			items = append(items, bad("text that is not UTF-8"))
		}
	case "application/octet-stream":
	default:
		items = append(items, bad("a message with Content-Type %q", h.get("Content-Type")))
	}
	return append(items, it)
}

func batch(h *head, body []byte) []item {
	now := time.Now()
	var b struct {
		ID       string    `json:"client-id"`
		Position string    `json:"position"`
		Messages []element `json:"messages"`
		More     *bool     `json:"more"`
	}
	if err := decode(body, &b); err != nil || h.status != 200 || h.get("Content-Type") != "application/json" {
		return []item{bad("status %d, batch %.60q: %v", h.status, body, err)}
	}
	pos, err := parsePosition(b.Position)
	if err != nil {
		return []item{bad("batch: %v", err)}
	}
	if b.More == nil || b.Messages == nil || len(b.Messages) > 500 {
		return []item{bad("batch without more or messages, or with %d messages", len(b.Messages))}
	}
	if s := h.get("Gpoll-Position"); s != "" && s != b.Position {
		return []item{bad("Gpoll-Position %s beside position %s", s, b.Position)}
	}
	items := []item{{kind: started, at: now, id: b.ID}}
	for i := range b.Messages {
		items = append(items, b.Messages[i].item())
	}
	return append(items, item{kind: scanned, at: now, pos: pos, more: *b.More})
}
