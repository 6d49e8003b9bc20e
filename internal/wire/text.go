package wire

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// An Element is one message or one gap in JSON.
type Element struct {
	ID     string `json:"id"`
	Topic  string `json:"topic"`
	Data   string `json:"data"`
	Data64 []byte `json:"data64"`
	Gap    *Gap   `json:"gap"`
}

// Payload returns the bytes of a message.
func (e *Element) Payload() []byte { return payload(e.Data, e.Data64) }

func payload(text string, other []byte) []byte {
	if other != nil {
		return other
	}
	return []byte(text)
}

// A Batch is the JSON answer to a poll.
type Batch struct {
	ClientID string    `json:"client-id"`
	Position string    `json:"position"`
	Messages []Element `json:"messages"`
	More     bool      `json:"more"`
	Requests []Answer  `json:"requests"` // the server asks
}

// A Gap is Positions, both included, and why their messages are missing. A gap of the reason "future" has no Positions.
type Gap struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

// ParseGap reads `<from>..<to>;<reason>`, which stands in a Gpoll-Gap header and in the close frame of a plain
// WebSocket.
func ParseGap(s string) (Gap, error) {
	bounds, reason, ok := strings.Cut(s, ";")
	from, to, ok2 := strings.Cut(bounds, "..")
	if !ok || !ok2 {
		return Gap{}, fmt.Errorf("wire: %.80q is not <from>..<to>;<reason>", s)
	}
	return Gap{from, to, reason}, nil
}

// A Frame is a text frame of gpoll.v1 from the server. One of its fields is there.
type Frame struct {
	Element
	Position     string   `json:"position"`
	Welcome      *Welcome `json:"welcome"`
	Subscribed   *Topics  `json:"subscribed"`
	Unsubscribed *Topics  `json:"unsubscribed"`
	Request      *Answer  `json:"request"` // the server asks
	Outcome
}

// An Outcome is the answer to a command. At most one of its fields is there.
type Outcome struct {
	Sent      *Answer `json:"sent"`
	Published *Answer `json:"published"`
	Reply     *Answer `json:"reply"`   // to a request of the client
	Replied   *Answer `json:"replied"` // to an answer of the client
	Left      bool    `json:"left"`
	Error     *Error  `json:"error"`
}

// Answer returns what the server answered to a command that it did, or nil.
func (o *Outcome) Answer() *Answer {
	for _, a := range [...]*Answer{o.Sent, o.Published, o.Reply, o.Replied} {
		if a != nil {
			return a
		}
	}
	return nil
}

// An Answer says of which command it is, and what came of that; or it is a request of the server.
type Answer struct {
	ID       string `json:"id"`
	Position string `json:"position"`
	Data     string `json:"data"`
	Data64   []byte `json:"data64"`
}

// Payload returns the bytes of a reply or a request.
func (a *Answer) Payload() []byte { return payload(a.Data, a.Data64) }

// An Error is the refusal of a frame.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	ID      string `json:"id"` // "": the command had none
	RetryMS int64  `json:"retry_ms"`
}

// A Welcome is the answer to the hello.
type Welcome struct {
	ClientID    string `json:"client-id"`
	Position    string `json:"position"`
	HeartbeatMS int64  `json:"heartbeat_ms"`
	SpreadMS    int64  `json:"spread_ms"`
}

// Topics are what a client has subscribed to or unsubscribed from, and where in its stream.
type Topics struct {
	Topics   []string `json:"topics"`
	Position string   `json:"position"`
}

// ParseRegistration reads the id in {"client-id":"…"}.
func ParseRegistration(data []byte) (id string, err error) {
	var v struct {
		ClientID string `json:"client-id"`
	}
	if err := json.Unmarshal(data, &v); err != nil || v.ClientID == "" {
		return "", fmt.Errorf("wire: not a registration: %.200q", data)
	}
	return v.ClientID, nil
}

// A Refusal says why a request or a stream was refused or has ended.
type Refusal struct {
	Code    string
	Message string
	Retry   time.Duration // when to come back; 0: no hint
}

// ParseRefusal reads the body of an HTTP error, or the data of the event "end".
func ParseRefusal(data []byte) (Refusal, error) {
	var e struct {
		Error   string `json:"error"`
		Message string `json:"message"`
		Retry   int64  `json:"retry_ms"`
	}
	if err := json.Unmarshal(data, &e); err != nil || e.Error == "" {
		return Refusal{}, fmt.Errorf("wire: not a refusal of gpoll: %.200q", data)
	}
	return Refusal{e.Error, e.Message, time.Duration(e.Retry) * time.Millisecond}, nil
}

// ParseClose reads a close frame of the server. Its reason stays the Message.
func ParseClose(code int, reason string) Refusal {
	r := Refusal{Code: closeCodes[code], Message: reason}
	if _, err := ParseGap(reason); err == nil && code == CloseUnknown {
		r.Code = "gap"
	}
	if r.Code == "" {
		r.Code = "close-" + strconv.Itoa(code)
	}
	if _, ms, ok := strings.Cut(reason, "retry_ms="); ok {
		if n, err := strconv.ParseUint(ms, 10, 31); err == nil {
			r.Retry = time.Duration(n) * time.Millisecond
		}
	}
	return r
}

// CloseUnknown is the close code for a client id that is not known, and for a gap in the plain form.
const CloseUnknown = 4010

var closeCodes = map[int]string{
	1001: "shutdown", 1009: "too-large", 1011: "internal",
	4001: "unauthorized", 4004: "removed", 4008: "slow", 4009: "superseded", CloseUnknown: "unknown-client", 4029: "rate",
}
