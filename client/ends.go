package client

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll/internal/wire"
)

// ErrClosed is what Messages and Subscribe return after Close.
var ErrClosed = errors.New("client: closed")

// An EndError is gpoll's word that it refuses a request, or that a Client may not go on. docs/protocol.md lists the
// codes.
type EndError struct {
	Code    string // "superseded", "unauthorized", …
	Message string // a sentence for a person

	status int           // of HTTP, or of the WebSocket's close frame; 0: of neither
	retry  time.Duration // when to come back; 0: not said
}

// Error returns the code and the sentence.
func (e *EndError) Error() string {
	if e.Message == "" || e.Message == e.Code {
		return "client: the server says " + e.Code
	}
	return "client: the server says " + e.Code + ": " + e.Message
}

// A strangerError is an answer of HTTP that is not gpoll's: something on the way, or another server, has given it.
type strangerError struct {
	status int
	what   string
	retry  time.Duration
}

func (e *strangerError) Error() string {
	return fmt.Sprintf("client: %s, which is no answer of gpoll: status %d", e.what, e.status)
}

// refuses reports whether the answer says no, rather than not now.
func (e *strangerError) refuses() bool {
	return e.status < 500 && e.status != http.StatusRequestTimeout && e.status != http.StatusTooManyRequests
}

// A silentError says that something had no answer in time.
type silentError struct {
	what string
	wait time.Duration
}

func (e *silentError) Error() string {
	return fmt.Sprintf("client: %s within %v", e.what, e.wait)
}

// What interrupts an attach from the client's own side.
var (
	errAltered = errors.New("client: the topics have changed")
	errClimb   = errors.New("client: a better transport is to be tried")
)

// A course is what a client does after an end.
type course int

const (
	comeBack course = iota // by the same transport
	register               // with the cursor
	askToken               // and come back, or stop
	goDown                 // the transport does not work here
	loseLife               // the transport may not work here
	stop
)

// courseOf reads docs/protocol.md, section 11.
func courseOf(err error) course {
	if e, ok := errors.AsType[*EndError](err); ok {
		return e.course()
	}
	if e, ok := errors.AsType[*strangerError](err); ok {
		switch {
		case e.status == http.StatusUnauthorized:
			return askToken
		case e.refuses():
			return goDown
		}
		return loseLife
	}
	if _, ok := errors.AsType[*silentError](err); ok {
		return goDown
	}
	if unreachable(err) {
		return comeBack
	}
	return loseLife
}

func (e *EndError) course() course {
	switch e.Code {
	case "unknown-client", "expired", "buffer-full":
		return register
	case "unauthorized":
		return askToken
	case "not-websocket", "no-stream":
		return goDown
	case "slow", "timeout", "message-timeout", "unavailable", "shutdown", "closed", "rate", "too-many-clients", "internal":
		return comeBack
	case "forbidden", "topic-forbidden", "origin", "superseded", "removed", "refused", "too-large",
		"left":
		return stop
	case "bad-request":
		if e.status == 1008 {
			return loseLife // the hello was too long on its way
		}
	}
	switch s := e.status; {
	case s == http.StatusNotFound, s == http.StatusRequestTimeout, s == http.StatusTooManyRequests:
		return comeBack
	case s >= 400 && s < 500, s == 1002, s == 1003, s >= 1007 && s <= 1009:
		return stop
	}
	return comeBack
}

// aboutTopics reports whether the server refuses a topic, and not the client.
func aboutTopics(err error) bool {
	e, ok := errors.AsType[*EndError](err)
	return ok && (e.Code == "topic-forbidden" || e.Code == "bad-topic" || e.Code == "too-many-topics")
}

// hint returns when the server, or something in front of it, wants the client to come back; 0: it does not say.
func hint(err error) time.Duration {
	if e, ok := errors.AsType[*EndError](err); ok {
		return e.retry
	}
	if e, ok := errors.AsType[*strangerError](err); ok {
		return e.retry
	}
	return 0
}

// unreachable reports whether there was no connection: no transport is to blame for that.
func unreachable(err error) bool {
	if e, ok := errors.AsType[*net.OpError](err); ok && (e.Op == "dial" || e.Op == "proxyconnect") {
		return true
	}
	_, ok := errors.AsType[*net.DNSError](err)
	return ok
}

// mostRetryAfter bounds what a stranger's Retry-After can ask for.
const mostRetryAfter = 10 * time.Minute

// refusalOf reads an answer that does not grant the request.
func refusalOf(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if r, perr := wire.ParseRefusal(body); perr == nil {
		return &EndError{Code: r.Code, Message: r.Message, status: resp.StatusCode, retry: r.Retry}
	}
	if code := resp.Header.Get("Gpoll-Error"); code != "" { // the body is cut
		return &EndError{Code: code, status: resp.StatusCode, retry: retryAfter(resp.Header)}
	}
	if err != nil && resp.StatusCode < 400 {
		return err
	}
	return &strangerError{resp.StatusCode, fmt.Sprintf("%.60q", body), retryAfter(resp.Header)}
}

func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	seconds, err := strconv.ParseUint(text, 10, 31)
	wait := time.Duration(seconds) * time.Second
	if err != nil {
		at, err := http.ParseTime(text)
		if err != nil {
			return 0
		}
		wait = time.Until(at)
	}
	return min(max(wait, 0), mostRetryAfter)
}

// closeError reads a close frame. Its reason begins with the code of the end.
func closeError(status int, reason string) error {
	r := wire.ParseClose(status, reason)
	code := reason[:strings.IndexAny(reason+";", ";:")]
	if code != "" && strings.Trim(code, "abcdefghijklmnopqrstuvwxyz-") == "" {
		r.Code = code
	}
	return &EndError{Code: r.Code, Message: r.Message, status: status, retry: r.Retry}
}
