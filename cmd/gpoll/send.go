package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// publisher is the part of a Broadcaster that a message passes through.
type publisher interface {
	Publish(ctx context.Context, m gpoll.Message) (gpoll.Position, error)
}

const (
	maxQuery    = 2 << 10          // bytes of a raw query, as on the mount
	bodyTimeout = 10 * time.Second // for the whole body of a POST
)

// sendHandler is POST /send: the body is the message and ?topic= its topic. The answer has the message's place in the
// log.
type sendHandler struct {
	publisher  publisher
	limit      int64 // of the body, in bytes
	authorized func(*http.Request) bool
}

// newSendHandler returns the handler behind the check of where a browser's request comes from: a form on another site
// must not publish. Origin is trusted where a proxy hides the name that browsers use; it may be "".
func newSendHandler(p publisher, limit int64, authorized func(*http.Request) bool,
	origin string) (http.Handler, error) {
	return protect(&sendHandler{p, limit, authorized}, origin)
}

// protect returns h behind the check of where a browser's request comes from. See newSendHandler.
func protect(h http.Handler, origin string) (http.Handler, error) {
	csrf := http.NewCrossOriginProtection()
	if origin != "" {
		if err := csrf.AddTrustedOrigin(origin); err != nil {
			return nil, err
		}
	}
	csrf.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusForbidden, "origin",
			"a page of another site may not publish here: send from the page of this server, or from a program")
	}))
	return csrf.Handler(h), nil
}

func (h *sendHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, "method", "use POST, with the message as the body")
		return
	}
	if !h.authorized(r) {
		refuseToken(w)
		return
	}
	topic, ok := topicOf(w, r)
	if !ok {
		return
	}
	body, ok := h.body(w, r)
	if !ok {
		return
	}
	pos, err := h.publisher.Publish(r.Context(), gpoll.Message{Topic: topic, Data: body})
	switch {
	case err == nil:
		answer(w, http.StatusOK, map[string]string{"position": pos.String()})
	case errors.Is(err, gpoll.ErrTooLarge):
		h.refuseSize(w)
	case errors.Is(err, gpoll.ErrBadMessage): // the body may be anything, so it is the topic
		refuse(w, http.StatusBadRequest, "bad-topic", "a topic is 1 to 255 letters, digits and characters of _.:/~@-")
	case errors.Is(err, gpoll.ErrClosed):
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable, "closed",
			"the server is shutting down and takes no more messages: send this one again later")
	case errors.Is(err, gpoll.ErrUnknown):
		refuse(w, http.StatusInternalServerError, "internal", "the message may have been accepted or not")
	default:
		refuse(w, http.StatusInternalServerError, "internal", "the message was not accepted: send it again")
	}
}

// topicOf reads the query. When it returns false it has answered.
func topicOf(w http.ResponseWriter, r *http.Request) (topic string, ok bool) {
	if len(r.URL.RawQuery) > maxQuery {
		refuse(w, http.StatusRequestURITooLong, "query-too-long", "the query may have 2 KiB")
		return "", false
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		refuse(w, http.StatusBadRequest, "bad-request",
			"the query cannot be read: escape what is not a letter or a digit, as in topic=a%2Fb")
		return "", false
	}
	if query["topics"] != nil { // to pass over it would make a broadcast of the message
		refuse(w, http.StatusBadRequest, "bad-request", "a message has one topic, the parameter topic, as in topic=news")
		return "", false
	}
	switch topics := query["topic"]; {
	case len(topics) == 0:
		return "", true
	case len(topics) > 1:
		refuse(w, http.StatusBadRequest, "bad-request", "a message has one topic: send it once for each")
	case topics[0] == "": // an empty variable in a script must not become a broadcast
		refuse(w, http.StatusBadRequest, "bad-topic", "the topic is empty: leave topic= out to reach everybody")
	default:
		return topics[0], true
	}
	return "", false
}

// body reads the message. When it returns false it has answered.
func (h *sendHandler) body(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		refuse(w, http.StatusUnsupportedMediaType, "unsupported-media-type",
			"send the message as it is, without Content-Encoding")
		return nil, false
	}
	if r.ContentLength > h.limit {
		h.refuseSize(w)
		return nil, false
	}
	// An error means that the connection has no deadlines; then the body has none either.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.limit))
	switch _, tooLarge := errors.AsType[*http.MaxBytesError](err); {
	case tooLarge:
		h.refuseSize(w)
	case err != nil:
		refuse(w, http.StatusBadRequest, "bad-request", "the body broke off, or took longer than 10 seconds: send it again")
	default:
		return body, true
	}
	return nil, false
}

func (h *sendHandler) refuseSize(w http.ResponseWriter) {
	refuse(w, http.StatusRequestEntityTooLarge, "too-large",
		fmt.Sprintf("a message may have %d bytes: send less, or start the server with a larger -max-message", h.limit))
}

// authorized reports whether r brings the publish token, or none is needed.
func (s *site) authorized(r *http.Request) bool {
	if s.token == "" {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	// Digests have one length, so that the comparison tells nothing about the token's.
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

func refuseToken(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="gpoll"`)
	refuse(w, http.StatusUnauthorized, "unauthorized", `send the server's publish token: "Authorization: Bearer <token>"`)
}

// refusal is the body of an error, in the shape that the mount uses.
type refusal struct {
	Error   string `json:"error"`
	Message string `json:"message"`
	RetryMS int    `json:"retry_ms,omitempty"`
}

// refuse answers with an error. The hint of a 503 is the Retry-After header that the caller has set, in seconds.
func refuse(w http.ResponseWriter, status int, code, message string) {
	seconds, _ := strconv.Atoi(w.Header().Get("Retry-After"))
	w.Header().Set("Gpoll-Error", code)
	answer(w, status, refusal{code, message, 1000 * seconds})
}

// answer writes v, a value that can be encoded, as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}
