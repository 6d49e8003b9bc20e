package gpoll

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"
)

// An answer is the response to a poll before it is written. It goes through a ResponseWriter, or gpoll itself writes it
// to a connection of Broadcaster.Listener.
type answer struct {
	status int
	fields []field // Content-Length is added
	body   string
	lines  string // those as they stand in a head; "": not made
	length string // Content-Length; "": not made
}

// A field is a line of a response's head. The name is in its canonical form.
type field struct{ name, value string }

// answer is the answer in the plain form that carries rec alone. All polls share it.
func (rec *record) answer() answer {
	if set := rec.forms.Load(); set != nil {
		if made := set.plain.Load(); made != nil {
			return *made
		}
	}
	a := makePlain([]item{{rec: rec, pos: rec.pos}}, rec.pos)
	a.lines, a.length = string(a.appendLines(nil)), strconv.Itoa(len(a.body))
	rec.keepPlain(&a)
	return a
}

// size is how much memory the kept answer to a plain poll takes beside the message.
func (a *answer) size() int {
	const position = 48
	return int(unsafe.Sizeof(*a)) + cap(a.fields)*int(unsafe.Sizeof(field{})) + len(a.lines) + len(a.length) + position
}

// plainAnswer carries the last of items, a message, and the gaps before it. Without a message it is a 204, and scanned
// is its Position.
func plainAnswer(items []item, scanned Position) answer {
	if len(items) == 1 && items[0].rec != nil {
		return items[0].rec.answer()
	}
	return makePlain(items, scanned)
}

func makePlain(items []item, scanned Position) answer {
	a := answer{status: http.StatusNoContent, fields: make([]field, 0, 2)}
	for i, it := range items {
		if it.gap != nil {
			a.fields = append(a.fields, field{"Gpoll-Gap", it.gap.String()})
			continue
		}
		if i < len(items)-1 {
			impossible("a plain answer does not end with its message") // the client would miss the rest
		}
		a.status, a.body, scanned = http.StatusOK, it.rec.data, it.pos
		contentType := "text/plain; charset=utf-8"
		if it.rec.binary {
			contentType = "application/octet-stream"
		}
		a.fields = append(a.fields, field{"Content-Type", contentType})
		break
	}
	a.fields = append(a.fields, field{"Gpoll-Position", scanned.String()})
	return a
}

// impossible is called where an assumption of the code does not hold. The tests make it panic.
var impossible = func(what string) { _ = what }

// batchAnswer is the JSON form. asks is what the server asks, as elements of JSON. presence is JSON; nil: the poll
// watches nothing.
func batchAnswer(id string, items []item, scanned Position, more bool, asks, presence []byte) answer {
	size := 128 + len(asks) + len(presence)
	for i := range items {
		if items[i].rec != nil {
			size += len(items[i].rec.in(formElement)) + 1
		} else {
			size += 160
		}
	}
	body := make([]byte, 0, size)
	body = append(body, `{"client-id":"`...)
	body = append(body, id...)
	body = append(body, `","position":"`...)
	body = scanned.append(body)
	body = append(body, `","messages":[`...)
	for i := range items {
		if i > 0 {
			body = append(body, ',')
		}
		if rec := items[i].rec; rec != nil {
			body = append(body, rec.in(formElement)...)
		} else {
			body = append(body, gapElement(items[i].gap)...)
		}
	}
	if len(asks) > 0 {
		body = append(body, `],"requests":[`...)
		body = append(body, asks...)
	}
	body = append(body, `],"more":`...)
	body = strconv.AppendBool(body, more)
	if presence != nil {
		body = append(body, `,"presence":`...)
		body = append(body, presence...)
	}
	body = append(body, '}')
	return jsonAnswer(body, scanned)
}

// jsonAnswer carries a JSON value. The caller no longer changes body.
func jsonAnswer(body []byte, at Position) answer {
	return answer{
		status: http.StatusOK,
		fields: []field{{"Content-Type", "application/json"}, {"Gpoll-Position", at.String()}},
		body:   unsafe.String(unsafe.SliceData(body), len(body)),
	}
}

// A calendar spells the Date header, once in a second.
type calendar struct{ made atomic.Pointer[date] }

// A date is one second in the spelling of the Date header.
type date struct {
	second int64
	value  string
	line   []byte
}

// today is the date of an answer at this second.
func (c *calendar) today() *date {
	now := time.Now()
	if d := c.made.Load(); d != nil && d.second == now.Unix() {
		return d
	}
	value := now.UTC().Format(http.TimeFormat)
	d := &date{now.Unix(), value, []byte("Date: " + value + "\r\n")}
	c.made.Store(d)
	return d
}

// append appends a as net/http would write it. fixed are the lines that every answer to this poll has, and date is the
// Date line.
func (a *answer) append(b []byte, fixed string, date []byte) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(a.status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(a.status)...)
	b = append(b, "\r\n"...)
	b = append(b, fixed...)
	if a.lines != "" {
		b = append(b, a.lines...)
	} else {
		b = a.appendLines(b)
	}
	b = append(b, date...)
	b = append(b, "\r\n"...)
	return append(b, a.body...)
}

func (a *answer) appendLines(b []byte) []byte {
	for _, f := range a.fields {
		b = append(b, f.name...)
		b = append(b, ": "...)
		b = append(b, f.value...)
		b = append(b, "\r\n"...)
	}
	if a.status != http.StatusNoContent {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(a.body)), 10)
		b = append(b, "\r\n"...)
	}
	return b
}

// answer is e as an answer to a request.
func (e *refusal) answer() answer {
	a := answer{status: e.status, fields: []field{{"Content-Type", "application/json"}, {"Gpoll-Error", e.code}},
		body: string(e.body())}
	add := func(name, value string) { a.fields = append(a.fields, field{name, value}) }
	if e.retry > 0 {
		add("Retry-After", strconv.FormatInt(int64((e.retry+time.Second-1)/time.Second), 10))
	}
	if e.allow != "" {
		add("Allow", e.allow)
	}
	if e.upgrade {
		add("Upgrade", "websocket")
		add("Connection", "Upgrade")
		add("Sec-Websocket-Version", webSocketVersion) // RFC 6455, section 4.4
	}
	if e.closes {
		add("Connection", "close")
	}
	return a
}

// webSocketVersion is that of RFC 6455.
const webSocketVersion = "13"
