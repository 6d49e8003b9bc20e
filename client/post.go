package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/corvuscrypto/gpoll/internal/wire"
)

// A request with commands may go without an answer for commandWait, and for twice as long after each that did: the
// application may be busy with it. When it comes again, the server gives the answer of the first time.
const (
	commandWait     = 10 * time.Second
	mostCommandWait = 2 * time.Minute
)

// pump sends what waits in the outbox, in a goroutine of its own, if there is not one already.
func (c *Client) pump() {
	if c.out.start() {
		c.spawn(c.sendAll) // or the Client ends, and its commands with it
	}
}

// sendAll ends when nothing is to be sent at the moment, or with the Client.
func (c *Client) sendAll() {
	for c.life.Err() == nil {
		batch, by, wait := c.out.next()
		switch {
		case wait > 0:
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-c.out.woken:
			case <-c.life.Done():
			}
			timer.Stop()
		case len(batch) == 0:
			return
		case by != nil:
			_ = by.send(batch[0].frame) // the reader sees a broken connection
		default:
			c.post(batch)
		}
	}
}

// door tells the outbox how the client is attached.
func (c *Client) door() {
	c.mu.Lock()
	s, _ := c.by.(*socket)
	open := c.by != nil && c.id != ""
	c.out.through(s, c.id, open)
	c.mu.Unlock()
	if open {
		c.pump()
	}
}

// post brings a batch by a request, and takes the answers in.
func (c *Client) post(batch []*command) {
	o := c.out
	ctx, end := context.WithCancelCause(c.life)
	defer end(nil)
	o.mu.Lock()
	wait := max(o.patient, commandWait)
	o.posting = end
	if o.socket != nil && len(batch[0].frame) <= frameBytes {
		end(errClimb) // since next
	}
	o.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, wait, &silentError{"commands had no answer", wait})
	defer cancel()
	w := wish{id: batch[0].as}
	outcomes, err := c.postOnce(ctx, &w, batch)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	for i := range outcomes {
		o.answered(batch[i].id, &outcomes[i], len(batch))
	}
	final, pause := false, time.Duration(0)
	if err != nil && err != errClimb {
		final, pause = c.refusedPost(err, &w)
		c.log.Debug("gpoll client: commands are refused, or come again", "err", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.posting = nil
	o.againLocked(postDoor)
	if err == nil {
		o.patient = 0
		return
	}
	if _, silent := errors.AsType[*silentError](err); silent {
		o.patient = min(2*wait, mostCommandWait)
	}
	switch {
	case err == errClimb:
	case !final:
		o.laterLocked(pause)
	case len(batch) > 1:
		o.alone = true
	case !batch[0].withdrawn:
		batch[0].err = err
		o.doneLocked(batch[0])
	}
}

// refusedPost reports whether err is a no for good, and else how long to wait.
func (c *Client) refusedPost(err error, w *wish) (final bool, wait time.Duration) {
	wait = hint(err)
	if e, ok := errors.AsType[*EndError](err); ok {
		switch {
		case e.Code == "unknown-client" && c.ID() != w.id:
			return false, time.Nanosecond // the session has registered meanwhile
		case e.Code == "unauthorized":
			return !c.renew(w.token), time.Nanosecond
		}
		return !passes(e.Code) && e.Code != "internal" && e.status != http.StatusTooManyRequests, wait
	}
	if e, ok := errors.AsType[*strangerError](err); ok {
		if e.status == http.StatusUnauthorized {
			return !c.renew(w.token), time.Nanosecond
		}
		return e.status >= 300 && e.refuses(), wait
	}
	return false, wait
}

// postOnce makes the request, and reads the answers.
func (c *Client) postOnce(ctx context.Context, w *wish, batch []*command) ([]wire.Outcome, error) {
	var err error
	if w.token, err = c.bearer(ctx); err != nil {
		return nil, err
	}
	body := []byte{'['}
	for i, cmd := range batch {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, cmd.frame...)
	}
	body = append(body, ']')
	u := *c.mount
	u.Path += "/commands"
	u.RawQuery = ""
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	c.head(r, "application/json", *w)
	r.Header.Set("Content-Type", "application/json")
	resp, answer, err := c.fetch(r, "commands")
	if err != nil {
		return nil, err
	}
	return outcomesOf(resp.StatusCode, answer, len(batch))
}

// outcomesOf reads the answer to n commands.
func outcomesOf(status int, body []byte, n int) ([]wire.Outcome, error) {
	var outcomes []wire.Outcome
	if json.Unmarshal(body, &outcomes) != nil || len(outcomes) != n {
		return nil, &strangerError{status: status, what: fmt.Sprintf("%.60q", body)}
	}
	return outcomes, nil
}
