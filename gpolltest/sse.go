package gpolltest

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/corvuscrypto/gpoll"
)

// events is one response of Server-Sent Events, read by the rules of the HTML standard, section 9.2.6.
type events struct {
	life
	plain  bool
	body   io.ReadCloser
	r      *bufio.Reader
	lastID string
}

func (s *Session) openEvents(ctx context.Context, plain bool) (attach, answer, error) {
	e := &events{life: newLife(), plain: plain}
	stop := context.AfterFunc(ctx, e.cut)
	defer stop()
	first, err := e.open(s)
	if err != nil {
		err = e.cause(err)
		e.cut()
		return nil, answer{}, err
	}
	return e, first, nil
}

func (e *events) open(s *Session) (answer, error) {
	format := "json"
	if e.plain {
		format = ""
	}
	r, err := s.request(e, "/events", format)
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Accept", "text/event-stream")
	if s.sse && !s.cursor.IsZero() {
		r.Header.Set("Last-Event-ID", s.cursor.String())
	}
	resp, err := s.httpClient().Do(r)
	if err != nil {
		return answer{}, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return answer{}, refusal(resp)
	}
	e.body = resp.Body
	context.AfterFunc(e, func() { e.body.Close() })
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return answer{}, fmt.Errorf("gpolltest: SSE with Content-Type %q", resp.Header.Get("Content-Type"))
	}
	e.r = bufio.NewReaderSize(e.body, 2048)
	return e.next()
}

// next returns at the next event or the next blank line behind an id.
func (e *events) next() (answer, error) {
	var name string
	var data []byte
	hasData, hasID := false, false
	for {
		line, err := e.line()
		if err != nil {
			return answer{}, e.cause(err) // a partial event is dropped
		}
		if len(line) == 0 {
			switch {
			case hasData:
				return e.dispatch(name, strings.TrimSuffix(string(data), "\n"))
			case hasID:
				pos, err := gpoll.ParsePosition(e.lastID)
				return answer{scanned: pos}, err
			}
			name = ""
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "data":
			hasData = true
			data = append(append(data, value...), '\n')
		case "id":
			hasID = true
			e.lastID = value
		}
	}
}

// line reads up to CR, LF or CRLF.
func (e *events) line() (string, error) {
	var line []byte
	for {
		c, err := e.r.ReadByte()
		if err != nil {
			return "", err
		}
		switch c {
		case '\r':
			// The LF of a CRLF is there already: the server writes whole events.
			if e.r.Buffered() > 0 {
				if next, _ := e.r.Peek(1); next[0] == '\n' {
					e.r.Discard(1)
				}
			}
			return string(line), nil
		case '\n':
			return string(line), nil
		}
		line = append(line, c)
	}
}

func (e *events) dispatch(name, data string) (got answer, err error) {
	fail := func(err error) (answer, error) {
		return answer{}, fmt.Errorf("gpolltest: SSE event %q with id %q and data %.200q: %w", name, e.lastID, data, err)
	}
	if name == "end" {
		return answer{}, refusalOf(http.StatusOK, []byte(data))
	}
	pos, err := gpoll.ParsePosition(e.lastID)
	if err != nil {
		return fail(err)
	}
	switch name {
	case "position":
		got.scanned = pos
	case "client-id":
		got.clientID, err = registration([]byte(data))
		got.scanned = pos
	case "gap":
		var b bound
		if err = json.Unmarshal([]byte(data), &b); err != nil {
			return fail(err)
		}
		var g *gpoll.Gap
		g, err = b.gap()
		got.items, got.scanned = []item{{gap: g}}, pos
	case "base64":
		var raw []byte
		raw, err = base64.StdEncoding.DecodeString(data)
		got.items = []item{{message: gpoll.Message{Position: pos, Data: raw}, plain: true}}
	case "":
		if e.plain {
			got.items = []item{{message: gpoll.Message{Position: pos, Data: []byte(data)}, plain: true}}
			break
		}
		var el element
		if err = json.Unmarshal([]byte(data), &el); err != nil {
			return fail(err)
		}
		var it item
		it, err = el.item()
		got.items = []item{it}
		if err == nil && it.gap == nil && it.message.Position != pos {
			err = fmt.Errorf("its id and the message's differ")
		}
	default:
		return answer{}, nil // an event of a later version
	}
	if err != nil {
		return fail(err)
	}
	return got, nil
}
