package gpolltest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/wire"
)

// polls is a series of polls, one a call of next.
type polls struct {
	life
	session *Session
	plain   bool
}

func (s *Session) startPolls(ctx context.Context, plain bool) (attach, answer, error) {
	p := &polls{newLife(), s, plain}
	if s.id != "" {
		return p, answer{}, nil
	}
	stop := context.AfterFunc(ctx, p.cut)
	defer stop()
	got, err := p.next()
	if err != nil {
		p.cut()
	}
	return p, got, err
}

// next makes one poll. The Session's id, cursor and topics are the request, so that a poll whose answer is lost is made
// again as it was.
func (p *polls) next() (answer, error) {
	s := p.session
	s.nameTopics(false)
	format := "json"
	if p.plain {
		format = ""
	}
	r, err := s.request(p, "", format)
	if err != nil {
		return answer{}, err
	}
	resp, err := s.httpClient().Do(r)
	if err != nil {
		return answer{}, p.cause(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return answer{}, p.cause(refusal(resp))
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, p.cause(err)
	}
	if p.plain {
		return plainPoll(resp, body, s.id == "")
	}
	return jsonPoll(body)
}

func jsonPoll(body []byte) (answer, error) {
	var batch wire.Batch
	if err := json.Unmarshal(body, &batch); err != nil {
		return answer{}, fmt.Errorf("gpolltest: poll: %w: %.200q", err, body)
	}
	got := answer{clientID: batch.ClientID, items: make([]item, len(batch.Messages))}
	var err error
	for i := range batch.Messages {
		if got.items[i], err = itemOf(&batch.Messages[i]); err != nil {
			return answer{}, fmt.Errorf("gpolltest: poll: %w: %.200q", err, body)
		}
	}
	if got.scanned, err = gpoll.ParsePosition(batch.Position); err != nil {
		return answer{}, fmt.Errorf("gpolltest: poll: position %q: %w", batch.Position, err)
	}
	return got, nil
}

func plainPoll(resp *http.Response, body []byte, registers bool) (got answer, err error) {
	pos, err := gpoll.ParsePosition(resp.Header.Get("Gpoll-Position"))
	if err != nil {
		return got, fmt.Errorf("%w: Gpoll-Position %q, status %d", errNoPosition, resp.Header.Get("Gpoll-Position"),
			resp.StatusCode)
	}
	for _, g := range resp.Header.Values("Gpoll-Gap") { // two when an epoch's first messages are gone as well
		gap, err := parseGap(g)
		if err != nil {
			return got, fmt.Errorf("gpolltest: Gpoll-Gap: %w", err)
		}
		got.items = append(got.items, item{gap: gap})
	}
	switch {
	case registers:
		got.scanned = pos
		got.clientID, err = wire.ParseRegistration(body)
	case resp.StatusCode == http.StatusNoContent:
		got.scanned = pos
	default:
		got.items = append(got.items, item{message: gpoll.Message{Position: pos, Data: body}, plain: true})
	}
	return got, err
}
