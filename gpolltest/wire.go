package gpolltest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/wire"
)

func itemOf(e *wire.Element) (item, error) {
	if e.Gap != nil {
		g, err := gapOf(*e.Gap)
		return item{gap: g}, err
	}
	pos, err := gpoll.ParsePosition(e.ID)
	return item{message: gpoll.Message{Position: pos, Topic: e.Topic, Data: e.Payload()}}, err
}

func gapOf(w wire.Gap) (*gpoll.Gap, error) {
	if w.Reason == "future" && w.From == "" && w.To == "" {
		return &gpoll.Gap{Reason: w.Reason}, nil
	}
	from, err := gpoll.ParsePosition(w.From)
	if err != nil {
		return nil, fmt.Errorf("gap from %q: %w", w.From, err)
	}
	to, err := gpoll.ParsePosition(w.To)
	if err != nil {
		return nil, fmt.Errorf("gap to %q: %w", w.To, err)
	}
	if from.Epoch != to.Epoch {
		return nil, fmt.Errorf("a gap from %v to %v, of another epoch", from, to)
	}
	return &gpoll.Gap{Epoch: from.Epoch, From: from.Seq, To: to.Seq, Reason: w.Reason}, nil
}

// parseGap reads `<from>..<to>;<reason>`.
func parseGap(s string) (*gpoll.Gap, error) {
	g, err := wire.ParseGap(s)
	if err != nil {
		return nil, err
	}
	return gapOf(g)
}

// maxQuery is the length at which a request goes by POST: the server refuses queries of more than 2 KiB.
const maxQuery = 1500

// request asks for path below the mount, with the id, cursor and topics of the Session. The format "" is that of the
// transport.
func (s *Session) request(ctx context.Context, path, format string) (*http.Request, error) {
	var q strings.Builder
	id := s.id
	if id == "" {
		id = "0"
	}
	q.WriteString("client-id=")
	q.WriteString(url.QueryEscape(id))
	if format != "" {
		q.WriteString("&format=" + format)
	}
	if !s.cursor.IsZero() {
		q.WriteString("&after=" + s.cursor.String())
	}
	for _, topic := range s.wanted {
		q.WriteString("&topic=" + url.QueryEscape(topic))
	}
	method, target, body := http.MethodGet, s.URL+path+"?"+q.String(), io.Reader(nil)
	if q.Len() > maxQuery && path != "/ws" {
		ask := struct {
			After  string   `json:"after,omitempty"`
			Topics []string `json:"topics"`
			Format string   `json:"format,omitempty"`
		}{Topics: s.wanted, Format: format}
		if !s.cursor.IsZero() {
			ask.After = s.cursor.String()
		}
		b, err := json.Marshal(ask)
		if err != nil {
			return nil, err
		}
		method, target, body = http.MethodPost, s.URL+path, strings.NewReader(string(b))
	}
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	maps.Copy(r.Header, s.Header)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Gpoll-Client-Id", id)
	}
	return r, nil
}

// refusal reads the answer to a request that was not granted.
func refusal(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	return refusalOf(resp.StatusCode, body)
}

func refusalOf(status int, body []byte) error {
	r, err := wire.ParseRefusal(body)
	if err != nil {
		return fmt.Errorf("gpolltest: status %d: %w", status, err)
	}
	return &ServerError{Code: r.Code, Message: r.Message, Status: status, Retry: r.Retry}
}

// A life is the context of an attach: it ends with ErrCut when the attach is cut.
type life struct {
	context.Context
	end context.CancelCauseFunc
}

func newLife() life {
	ctx, end := context.WithCancelCause(context.Background())
	return life{ctx, end}
}

func (l life) cut() { l.end(ErrCut) }

// cause replaces the error of a broken connection by its cause, if the test broke the connection.
func (l life) cause(err error) error {
	if err != nil && l.Err() != nil {
		return context.Cause(l.Context)
	}
	return err
}

// optionalPosition reads a Position that may be missing.
func optionalPosition(s string) (gpoll.Position, error) {
	if s == "" {
		return gpoll.Position{}, nil
	}
	return gpoll.ParsePosition(s)
}

var errNoPosition = errors.New("gpolltest: an answer without Position")
