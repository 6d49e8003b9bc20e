//go:build unix

package strangers

import (
	"bufio"
	"encoding/base64"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// event is what EventSource would dispatch, or an id that moved without.
type event struct {
	name, data, id string
	dispatched     bool
	retry          string
}

// events parses an event stream by the WHATWG's rules (HTML, section 9.2.6) and returns when it ends.
func events(r io.Reader, yield func(event) bool) error {
	br := bufio.NewReaderSize(r, 4096)
	if b, err := br.Peek(3); err == nil && string(b) == "\ufeff" {
		br.Discard(3)
	}
	var (
		line        []byte
		data        strings.Builder
		name, id    string
		retry       string
		afterReturn bool
	)
	for {
		b, err := br.ReadByte()
		if err != nil {
			return err // an event that is not complete is discarded
		}
		if b == '\n' && afterReturn {
			afterReturn = false
			continue
		}
		afterReturn = b == '\r'
		if b != '\n' && b != '\r' {
			line = append(line, b)
			continue
		}
		if len(line) > 0 {
			if !utf8.Valid(line) {
				return &malformed{"an event stream that is not UTF-8"}
			}
			key, value, _ := strings.Cut(string(line), ":")
			value = strings.TrimPrefix(value, " ")
			line = line[:0]
			switch key {
			case "event":
				name = value
			case "data":
				data.WriteString(value)
				data.WriteByte('\n')
			case "id":
				if !strings.Contains(value, "\x00") {
					id = value
				}
			case "retry":
				if value != "" && strings.Trim(value, "0123456789") == "" {
					retry = value
				}
			}
			continue
		}
		ev := event{name: name, id: id, retry: retry, dispatched: data.Len() > 0}
		if ev.dispatched {
			ev.data = strings.TrimSuffix(data.String(), "\n")
		}
		name, retry = "", ""
		data.Reset()
		if !yield(ev) {
			return nil
		}
	}
}

// readSSE opens an event stream and hands its items to out until it ends. The last item is ended, left or wrong.
func readSSE(l *link, q *request, out chan<- item) {
	defer close(out)
	fields := append(q.fields(), field{"Accept", "text/event-stream"})
	target := "/poll/events"
	if q.n%2 == 0 {
		target = "/poll"
	}
	if err := l.send("GET", target+q.query(), q.host, fields, nil); err != nil {
		out <- cut(l, err)
		return
	}
	if q.half {
		l.halfClose()
	}
	h, err := l.head()
	if err != nil {
		out <- cut(l, err)
		return
	}
	r, _, err := l.body(h)
	if err != nil {
		out <- cut(l, err)
		return
	}
	if h.status != 200 {
		body, err := io.ReadAll(r)
		if err != nil {
			out <- cut(l, err)
			return
		}
		for _, it := range refusal(h, body) {
			out <- it
		}
		return
	}
	for _, it := range common(h, true) {
		out <- it
	}
	if ct := h.get("Content-Type"); ct != "text/event-stream" && ct != "text/event-stream; charset=utf-8" {
		out <- bad("an event stream with Content-Type %q", ct)
	}
	var (
		first = true
		end   *item
		seen  string
	)
	err = events(r, func(ev event) bool {
		if end != nil {
			out <- bad("an event %q after the end", ev.name)
			return true
		}
		it := sseItem(ev, first, seen, q.transport == "sse-json")
		if first && it.kind != started && it.kind != ended && it.kind != wrong && ev.dispatched {
			out <- bad("the first event is %q", ev.name)
		}
		if ev.dispatched {
			first = false
		}
		seen = ev.id
		if it.kind == ended {
			end = &it
			return true
		}
		if it.kind != left {
			out <- it
		}
		return true
	})
	if end != nil {
		out <- *end
		return
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	out <- cut(l, err)
}

// sseItem returns the item of an event; one of kind left says nothing.
func sseItem(ev event, first bool, seen string, asJSON bool) item {
	now := time.Now()
	if !ev.dispatched {
		if ev.id == seen {
			return item{kind: left}
		}
		pos, err := parsePosition(ev.id)
		if err != nil {
			return bad("id: %v", err)
		}
		return item{kind: scanned, at: now, pos: pos}
	}
	if ev.name == "end" {
		var e struct {
			Error   string `json:"error"`
			Message string `json:"message"`
			Retry   *int64 `json:"retry_ms"`
		}
		if err := decode([]byte(ev.data), &e); err != nil || e.Error == "" {
			return bad("end %q: %v", ev.data, err)
		}
		it := item{kind: ended, at: now, code: e.Error, detail: e.Message}
		if e.Retry != nil {
			it.hasRetry, it.retry = true, time.Duration(*e.Retry)*time.Millisecond
			if ev.retry != itoa(int(*e.Retry)) {
				return bad("retry_ms %d with retry %q", *e.Retry, ev.retry)
			}
		}
		return it
	}
	pos, err := parsePosition(ev.id)
	if err != nil {
		return bad("event %q: %v", ev.name, err)
	}
	switch ev.name {
	case "position":
		if ev.data != "" {
			return bad("a heartbeat with data %q", ev.data)
		}
		return item{kind: scanned, at: now, pos: pos}
	case "client-id":
		var reg struct {
			ID string `json:"client-id"`
		}
		if err := decode([]byte(ev.data), &reg); err != nil || !first {
			return bad("client-id %q, first %v: %v", ev.data, first, err)
		}
		return item{kind: started, at: now, pos: pos, id: reg.ID}
	case "gap":
		var g gapJSON
		if err := decode([]byte(ev.data), &g); err != nil {
			return bad("gap %q: %v", ev.data, err)
		}
		parsed, err := newGap(g.From, g.To, g.Reason)
		if err != nil {
			return bad("%v", err)
		}
		return item{kind: missing, at: now, pos: pos, gap: parsed}
	case "", "base64":
		if asJSON {
			var e element
			if err := decode([]byte(ev.data), &e); err != nil || ev.name != "" || e.Gap != nil {
				return bad("event %q %.60q: %v", ev.name, ev.data, err)
			}
			it := e.item()
			if it.kind == delivered && it.pos != pos {
				return bad("id %v of an event beside id %v of its message", pos, it.pos)
			}
			return it
		}
		data := []byte(ev.data)
		if ev.name == "base64" {
			if data, err = base64.StdEncoding.Strict().DecodeString(ev.data); err != nil {
				return bad("base64: %v", err)
			}
		}
		text := ev.name == ""
		return item{kind: delivered, at: now, pos: pos, sum: sum(data), size: len(data), text: text, lines: true}
	}
	return bad("an event %q", ev.name)
}
