package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/corvuscrypto/gpoll"
)

// A wish is what a request says of the client: who it is, where it stands and what it wants.
type wish struct {
	id       string // "0": register
	after    gpoll.Position
	topics   []string
	last     int
	asked    uint64  // the newest request of the server that the client has
	fallback string  // why no better transport is used, if the server has not been told
	change   *change // which topics has in it
	token    string
}

// wish returns what the next request says.
func (c *Client) wish(ctx context.Context) (wish, error) {
	token, err := c.bearer(ctx)
	if err != nil {
		return wish{}, err
	}
	w := wish{after: c.cursor.after(), token: token}
	if w.after.IsZero() {
		w.last = c.opts.Last
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w.id, w.topics, w.change = c.id, c.topics, c.change
	if w.id == "" {
		w.id = "0"
	}
	if w.change != nil {
		w.topics = w.change.topics
	}
	w.asked = c.requests.has(w.id)
	return w, nil
}

// bearer returns the token, which it gets from the application if there is none.
func (c *Client) bearer(ctx context.Context) (string, error) {
	if c.opts.Token == nil {
		return "", nil
	}
	select {
	case c.tokens <- struct{}{}:
		defer func() { <-c.tokens }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	c.mu.Lock()
	token := c.token
	c.mu.Unlock()
	if token != "" {
		return token, nil
	}
	token, err := c.opts.Token(ctx)
	if err != nil {
		return "", &tokenError{err}
	}
	c.mu.Lock()
	c.token = token
	c.mu.Unlock()
	return token, nil
}

// renew makes the client ask for another token than the one that the server has refused. It reports false if that one
// was such another one already, or if the application has no tokens.
func (c *Client) renew(refused string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.opts.Token == nil:
		return false
	case c.token != refused: // somebody has asked
		return true
	case c.renewed:
		return false
	}
	c.token, c.renewed = "", true
	return true
}

// A tokenError says that Options.Token failed.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return "client: Options.Token: " + e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

func (w *wish) position() string {
	if w.after.IsZero() {
		return ""
	}
	return w.after.String()
}

// maxQuery is the length from which on the topics go into the body of a POST: the server refuses 2,048 bytes.
const maxQuery = 1536

// request returns the request of a poll or of an event stream.
func (c *Client) request(ctx context.Context, path, accept string, w wish) (*http.Request, error) {
	q := url.Values{"format": {"json"}, "asked": {strconv.FormatUint(w.asked, 10)}}
	if !w.after.IsZero() {
		q.Set("after", w.position())
	}
	if len(w.topics) > 0 {
		q["topic"] = w.topics
	}
	if w.last > 0 {
		q.Set("last", fmt.Sprint(w.last))
	}
	u := *c.mount
	u.Path += path
	if u.RawQuery = strings.Trim(c.mount.RawQuery+"&"+q.Encode(), "&"); len(u.RawQuery) <= maxQuery {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err == nil {
			c.head(r, accept, w)
		}
		return r, err
	}
	u.RawQuery = c.mount.RawQuery
	body, err := json.Marshal(struct {
		After  string   `json:"after,omitempty"`
		Topics []string `json:"topics"`
		Last   int      `json:"last,omitempty"`
		Asked  uint64   `json:"asked"`
		Format string   `json:"format"`
	}{w.position(), w.topics, w.last, w.asked, "json"})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err == nil {
		c.head(r, accept, w)
		r.Header.Set("Content-Type", "application/json")
	}
	return r, err
}

// fetch makes a request, and reads the whole answer to what it asks for. One that is cut is none.
func (c *Client) fetch(r *http.Request, what string) (resp *http.Response, body []byte, err error) {
	if resp, err = c.http.Do(r); err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, refusalOf(resp)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, mostBytes+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("client: the answer to %s: %w", what, err)
	case len(body) > mostBytes:
		return nil, nil, fmt.Errorf("client: the answer to %s has more than %d bytes", what, mostBytes)
	}
	return resp, body, nil
}

// head sets the header. The id goes there, for queries are in access logs.
func (c *Client) head(r *http.Request, accept string, w wish) {
	r.Header = c.header(w)
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", "identity") // who compresses events keeps them back
	r.Header.Set("Gpoll-Client-Id", w.id)
	if w.fallback != "" {
		r.Header.Set("Gpoll-Fallback", w.fallback)
	}
}

func (c *Client) header(w wish) http.Header {
	h := c.opts.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if w.token != "" {
		h.Set("Authorization", "Bearer "+w.token)
	}
	return h
}

// A change is a Subscribe or an Unsubscribe on its way.
type change struct {
	topics []string // all that the client wants with it
	add    bool
	named  []string
	done   chan error
}

// apply returns the topics with the change in it.
func (ch *change) apply(topics []string) []string {
	rest := slices.DeleteFunc(slices.Clone(topics), func(t string) bool { return slices.Contains(ch.named, t) })
	if ch.add {
		rest = append(rest, ch.named...)
	}
	return rest
}
