//go:build unix

package strangers

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
	"unicode/utf8"
)

// A position is a Position of the document: section 1.
type position struct {
	epoch string
	seq   uint64
}

func (p position) String() string { return fmt.Sprintf("%s-%d", p.epoch, p.seq) }
func (p position) none() bool     { return p.epoch == "" }

func parsePosition(s string) (position, error) {
	epoch, digits, ok := strings.Cut(s, "-")
	if !ok || len(epoch) != 16 || strings.Trim(epoch, "0123456789abcdef") != "" {
		return position{}, fmt.Errorf("%q is no Position", s)
	}
	zero := len(digits) > 1 && digits[0] == '0'
	if digits == "" || len(digits) > 16 || zero || strings.Trim(digits, "0123456789") != "" {
		return position{}, fmt.Errorf("%q has no seq", s)
	}
	var seq uint64
	for _, d := range digits {
		seq = seq*10 + uint64(d-'0')
	}
	if seq > 1<<53-1 {
		return position{}, fmt.Errorf("the seq of %q is too high", s)
	}
	return position{epoch, seq}, nil
}

// A gap is section 10's. from and to are none in a gap of reason "future".
type gap struct {
	from, to position
	reason   string
}

func (g gap) String() string { return fmt.Sprintf("%v..%v;%s", g.from, g.to, g.reason) }

// newGap checks what the document says of every gap.
func newGap(from, to, reason string) (gap, error) {
	g := gap{reason: reason}
	switch reason {
	case "future":
		if from != "" || to != "" {
			return g, fmt.Errorf("a gap of reason future with a range %q..%q", from, to)
		}
		return g, nil
	case "evicted", "expired", "epoch", "broker":
	default:
		return g, fmt.Errorf("a gap of unknown reason %q", reason)
	}
	var err error
	if g.from, err = parsePosition(from); err != nil {
		return g, err
	}
	if g.to, err = parsePosition(to); err != nil {
		return g, err
	}
	if g.from.epoch != g.to.epoch {
		return g, fmt.Errorf("gap %v spans two epochs", g)
	}
	if g.to.seq == 0 != (reason == "epoch") || g.to.seq != 0 && g.to.seq < g.from.seq {
		return g, fmt.Errorf("gap %v has no such range", g)
	}
	return g, nil
}

// parseGap reads the spelling of the header and of the close reason.
func parseGap(s string) (gap, error) {
	span, reason, ok := strings.Cut(s, ";")
	from, to, ok2 := strings.Cut(span, "..")
	if !ok || !ok2 {
		return gap{}, fmt.Errorf("%q is no gap", s)
	}
	return newGap(from, to, reason)
}

type itemKind int

const (
	attached     itemKind = iota // a request begins
	started                      // the registration, the client-id event or the welcome
	delivered                    // a message
	missing                      // a gap
	scanned                      // a Position without a message
	subscribed                   // the answer to subscribe
	unsubscribed                 // the answer to unsubscribe
	refused                      // an {"error":…} frame
	answered                     // a poll has its whole answer
	ended                        // the server ended it, with a code; or "" when it does not say why
	left                         // the client ended it
	wrong                        // the bytes break the document
)

func (k itemKind) String() string {
	return [...]string{"attached", "started", "delivered", "missing", "scanned", "subscribed", "unsubscribed",
		"refused", "answered", "ended", "left", "wrong"}[k]
}

// An item is what a client sees.
type item struct {
	kind     itemKind
	at       time.Time
	pos      position // of a gap: the Position after it, where it is told
	topic    string
	hasForm  bool // the topic is told in this form
	sum      uint64
	size     int
	text     bool // it came as text
	lines    bool // it came in the plain form of SSE, whose text has no CR
	gap      gap
	topics   []string
	id       string
	code     string
	status   int
	retry    time.Duration
	hasRetry bool
	detail   string
	more     bool
	untold   bool // no byte of an answer was read
	reused   bool // the connection had answered before
	dialed   time.Time
}

func sum(data []byte) uint64 {
	h := fnv.New64a()
	h.Write(data)
	return h.Sum64()
}

func bad(format string, args ...any) item {
	return item{kind: wrong, at: time.Now(), detail: fmt.Sprintf(format, args...)}
}

// element is a message or a gap in the JSON form: section 4.
type element struct {
	ID     *string  `json:"id"`
	Topic  *string  `json:"topic"`
	Data   *string  `json:"data"`
	Data64 *string  `json:"data64"`
	Gap    *gapJSON `json:"gap"`
}

type gapJSON struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

func (e *element) item() item {
	now := time.Now()
	if e.Gap != nil {
		g, err := newGap(e.Gap.From, e.Gap.To, e.Gap.Reason)
		if err != nil {
			return bad("%v", err)
		}
		return item{kind: missing, at: now, gap: g}
	}
	if e.ID == nil || (e.Data == nil) == (e.Data64 == nil) {
		return bad("an element without id or with other than one of data and data64")
	}
	pos, err := parsePosition(*e.ID)
	if err != nil {
		return bad("%v", err)
	}
	it := item{kind: delivered, at: now, pos: pos, hasForm: true, text: e.Data != nil}
	if e.Topic != nil {
		it.topic = *e.Topic
	}
	var data []byte
	if e.Data != nil {
		data = []byte(*e.Data)
	} else if data, err = base64.StdEncoding.Strict().DecodeString(*e.Data64); err != nil {
		return bad("data64: %v", err)
	}
	it.sum, it.size = sum(data), len(data)
	return it
}

// decode reads exactly one JSON value that is UTF-8.
func decode(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("JSON that is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("something after the JSON value")
	}
	return nil
}
