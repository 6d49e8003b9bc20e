package gpoll

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/corvuscrypto/gpoll/internal/frame"
)

// A form is how a message stands on a wire. gpoll makes each when it is first asked for, and every client shares the
// bytes; formCache says for how long.
type form uint8

const (
	formElement   form = iota // the JSON element of a batch
	formFrame                 // plain WebSocket frame
	formJSONFrame             // WebSocket frame of gpoll.v1
	formEvent                 // SSE event, plain
	formJSONEvent             // SSE event with the JSON element
	formCount
)

// events reports whether f is a form of SSE. The others are of WebSocket or a batch.
func (f form) events() bool { return f == formEvent || f == formJSONEvent }

// in returns rec in a form. The caller does not change the bytes.
func (rec *record) in(f form) []byte {
	if made := rec.made(f); made != nil {
		return *made
	}
	var made []byte
	switch f {
	case formElement:
		made = rec.element()
	case formFrame:
		opcode := frame.Text
		if rec.binary {
			opcode = frame.Binary
		}
		made = frame.Append(nil, opcode, rec.data)
	case formJSONFrame:
		made = frame.Append(nil, frame.Text, rec.in(formElement))
	case formEvent:
		made = rec.event()
	case formJSONEvent:
		made = appendEvent(nil, "", rec.pos, rec.in(formElement))
	}
	return rec.keep(f, made)
}

// element returns {"id":…,"topic":…,"data":…}, with data64 for bytes that are not UTF-8.
func (rec *record) element() []byte {
	b := make([]byte, 0, 64+len(rec.to.name)+len(rec.data)+len(rec.data)/8)
	b = append(b, `{"id":"`...)
	b = rec.pos.append(b)
	if rec.to.kind == kindTopic {
		b = append(b, `","topic":"`...)
		b = append(b, rec.to.name...) // its alphabet needs no escape
	}
	b = append(b, `",`...)
	return append(appendData(b, rec.data, rec.binary), '}')
}

// appendData appends data as the field "data", or "data64" if it is not UTF-8.
func appendData[T string | []byte](b []byte, data T, binary bool) []byte {
	if binary {
		b = append(b, `"data64":"`...)
		b = base64.StdEncoding.AppendEncode(b, []byte(data))
		return append(b, '"')
	}
	return appendJSONString(append(b, `"data":`...), data)
}

// appendJSONString appends s, which is UTF-8, as a JSON string. Line ends are escaped, so that it is one line of an SSE
// event.
func appendJSONString[T string | []byte](b []byte, s T) []byte {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		c := s[i]
		plain = c >= 0x20 && c < 0x7f && c != '"' && c != '\\'
	}
	if plain {
		b = append(b, '"')
		b = append(b, s...)
		return append(b, '"')
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(string(s)); err != nil {
		panic(err) // a string
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

// gapElement returns {"gap":{…}}.
func gapElement(g *Gap) []byte {
	return append(append([]byte(`{"gap":`), gapJSON(g)...), '}')
}

func gapJSON(g *Gap) []byte {
	from, to := g.bounds()
	b, err := json.Marshal(struct {
		From   string `json:"from,omitempty"`
		To     string `json:"to,omitempty"`
		Reason string `json:"reason"`
	}{from, to, g.Reason})
	if err != nil {
		panic(err) // three strings
	}
	return b
}

// event returns the plain SSE event: a data line for each line. A payload that lines cannot carry goes in base64.
func (rec *record) event() []byte {
	if rec.binary || strings.ContainsRune(rec.data, '\r') {
		return appendEvent(nil, "base64", rec.pos, base64.StdEncoding.AppendEncode(nil, []byte(rec.data)))
	}
	b := appendEventID(make([]byte, 0, 64+len(rec.data)), rec.pos)
	for line := range strings.SplitSeq(rec.data, "\n") {
		b = append(b, "data: "...)
		b = append(b, line...)
		b = append(b, '\n')
	}
	return append(b, '\n')
}

// appendEvent appends an SSE event whose data is one line. An empty type means "message"; with a zero Position the
// event has no id.
func appendEvent(b []byte, typ string, pos Position, data []byte) []byte {
	if typ != "" {
		b = append(b, "event: "...)
		b = append(b, typ...)
		b = append(b, '\n')
	}
	if !pos.IsZero() {
		b = appendEventID(b, pos)
	}
	b = append(b, "data: "...)
	b = append(b, data...)
	return append(b, "\n\n"...)
}

func appendEventID(b []byte, pos Position) []byte {
	b = append(b, "id: "...)
	b = pos.append(b)
	return append(b, '\n')
}

// appendItem appends an item in a form of SSE or WebSocket. A gap has no plain WebSocket frame: the caller closes
// instead.
func appendItem(b []byte, it *item, f form) []byte {
	switch {
	case it.rec != nil:
		return append(b, it.rec.in(f)...)
	case f == formJSONFrame:
		return frame.Append(b, frame.Text, gapElement(it.gap))
	default:
		return appendEvent(b, "gap", it.pos, gapJSON(it.gap))
	}
}
