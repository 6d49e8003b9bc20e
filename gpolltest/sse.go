package gpolltest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/wire"
)

// events is one response of Server-Sent Events, read by the rules of the HTML standard, section 9.2.6.
type events struct {
	life
	plain bool
	body  io.ReadCloser
	r     *wire.Events
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
	e.r = wire.NewEvents(e.body, 8<<20)
	return e.next()
}

// next returns at the next event or the next blank line behind an id.
func (e *events) next() (answer, error) {
	for {
		ev, err := e.r.Next()
		switch {
		case err != nil:
			return answer{}, e.cause(err)
		case ev.HasData:
			return e.dispatch(&ev)
		case ev.HasID:
			pos, err := gpoll.ParsePosition(ev.ID)
			return answer{scanned: pos}, err
		}
	}
}

func (e *events) dispatch(ev *wire.Event) (got answer, err error) {
	name, data := ev.Name, ev.Data
	fail := func(err error) (answer, error) {
		return answer{}, fmt.Errorf("gpolltest: SSE event %q with id %q and data %.200q: %w", name, ev.ID, data, err)
	}
	if name == "end" {
		return answer{}, refusalOf(http.StatusOK, []byte(data))
	}
	pos, err := gpoll.ParsePosition(ev.ID)
	if err != nil {
		return fail(err)
	}
	switch name {
	case "position":
		got.scanned = pos
	case "client-id":
		got.clientID, err = wire.ParseRegistration([]byte(data))
		got.scanned = pos
	case "gap":
		var b wire.Gap
		if err = json.Unmarshal([]byte(data), &b); err != nil {
			return fail(err)
		}
		var g *gpoll.Gap
		g, err = gapOf(b)
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
		var el wire.Element
		if err = json.Unmarshal([]byte(data), &el); err != nil {
			return fail(err)
		}
		var it item
		it, err = itemOf(&el)
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
