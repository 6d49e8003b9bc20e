package gpoll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// The errors that callers branch on, with errors.Is.
var (
	// ErrClosed is returned after Shutdown.
	ErrClosed = errors.New("gpoll: the broadcaster is shut down")

	// ErrTooLarge is returned for a message beyond Broadcaster.MaxMessage. It was not published.
	ErrTooLarge = errors.New("gpoll: message too large")

	// ErrBadMessage is returned for a message that cannot be addressed. It was not published.
	ErrBadMessage = errors.New("gpoll: bad message")

	// ErrUnknown is wrapped by a broker's error when the message may have been accepted, once.
	ErrUnknown = errors.New("gpoll: the broker's answer is unknown; the message may have been accepted")

	// ErrUnavailable is wrapped by a broker's error when the broker cannot be reached. The message was not accepted.
	ErrUnavailable = errors.New("gpoll: the broker cannot be reached; the message was not accepted")

	// ErrConflict is wrapped by a broker's error when a RecordEpoch does not follow the newest record. It was not
	// accepted.
	ErrConflict = errors.New("gpoll: the record does not follow the newest one")

	// ErrForbidden is wrapped by an error of Authorize for a user who is known but has no access: the client gets 403
	// "forbidden", and stops. An error that wraps neither ErrForbidden nor ErrTryLater is 401 "unauthorized": sign in
	// again.
	ErrForbidden = errors.New("gpoll: forbidden")

	// ErrTryLater is wrapped by an error of Authorize when it cannot decide at the moment: the client gets 503
	// "unavailable", and comes back. A net.Error and context.DeadlineExceeded mean the same.
	ErrTryLater = errors.New("gpoll: try again later")

	// ErrUnknownClient is returned for a client id that was never given out, has expired or was removed.
	ErrUnknownClient = errors.New("gpoll: unknown client")
)

// A refusal is an answer that a client can act on: a status, a stable code and a sentence that says what to do.
type refusal struct {
	status  int
	code    string
	message string
	retry   time.Duration // 0: no hint
	allow   string        // Allow header of a 405
	upgrade bool          // the headers of a 426 that say what to upgrade to
	closes  bool          // the connection cannot be used again
	cause   error         // for the operator; nil: the message says it all
}

// Error makes a refusal an error inside the package.
func (e *refusal) Error() string { return e.code + ": " + e.message }

// body is the JSON object that carries e on every transport.
func (e *refusal) body() []byte {
	body, err := json.Marshal(struct {
		Error   string `json:"error"`
		Message string `json:"message"`
		Retry   int64  `json:"retry_ms,omitempty"`
	}{e.code, e.message, e.retry.Milliseconds()})
	if err != nil {
		panic(err) // three plain fields
	}
	return body
}

// passes reports whether the same request may succeed later.
func (e *refusal) passes() bool {
	switch e.status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusInternalServerError:
		return true
	}
	return false
}

// Refusals without variable parts. The answer to an unknown client id never says whether the id was well formed,
// whether it existed or why it is gone.
var (
	refuseUnknownClient = &refusal{status: http.StatusNotFound, code: "unknown-client",
		message: "this client id is not known here; register anew with client-id=0 and bring your last position as after"}
	refuseQueryTooLong = &refusal{status: http.StatusRequestURITooLong, code: "query-too-long",
		message: "the query is longer than 2048 bytes; send the topics in the JSON body of a POST"}
	refuseBodyOnGet = &refusal{status: http.StatusBadRequest, code: "body-on-get", closes: true,
		message: "a GET carries no body; use POST with Content-Type: application/json"}
	refuseMethod = &refusal{status: http.StatusMethodNotAllowed, code: "method", allow: "GET, POST, OPTIONS",
		message: "use GET, or POST with a JSON body"}
	refuseNotPost = &refusal{status: http.StatusMethodNotAllowed, code: "method", allow: "POST, OPTIONS",
		message: "commands come by POST, as JSON"}
	refuseUnauthorized = &refusal{status: http.StatusUnauthorized, code: "unauthorized",
		message: "the server's Authorize refused this request; sign in and try again"}
	refuseForbidden = &refusal{status: http.StatusForbidden, code: "forbidden",
		message: "the server's Authorize does not let this user in"}
	refuseMediaType = &refusal{status: http.StatusUnsupportedMediaType, code: "unsupported-media-type",
		message: "a POST needs Content-Type: application/json, no Content-Encoding, " +
			"and the header Gpoll-Client-Id (0 to register)"}
	refuseNoStream = &refusal{status: http.StatusNotImplemented, code: "no-stream",
		message: "this server cannot send a stream of events here; use long-poll or a WebSocket"}
	refuseInternal = &refusal{status: http.StatusInternalServerError, code: "internal",
		message: "the server failed; try again"}
	refuseSuperseded = &refusal{status: http.StatusConflict, code: "superseded",
		message: "a newer request with this client id took over; stop this one"}
)

func refuseBad(code, message string) *refusal {
	return &refusal{status: http.StatusBadRequest, code: code, message: message}
}

func refuseLargeBody(most int64) *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, code: "too-large", closes: true,
		message: fmt.Sprintf("the body is longer than %d bytes", most)}
}

func refuseTooManyTopics(most int) *refusal {
	return refuseBad("too-many-topics", fmt.Sprintf("that would be more than %d topics (Broadcaster.MaxTopics)", most))
}

// refuseManyPatterns returns nil unless a client's topics have too many patterns among them.
func refuseManyPatterns(topics []string) *refusal {
	if n := patternsIn(topics); n > maxPatterns {
		return refuseBad("too-many-topics", fmt.Sprintf("%d patterns; the limit is %d", n, maxPatterns))
	}
	return nil
}

func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
