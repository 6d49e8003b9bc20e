//go:build explore && linux

package explore

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// A poller is a client of a proxy. Its Trace records its messages, as that of a gpolltest.Session does.
type poller struct {
	w      *world
	name   string
	user   string
	json   bool
	topics []string
	named  []string // topics that the Trace has as subscribed
	trace  *gpolltest.Trace

	id     string
	cursor gpoll.Position
	gap    gpoll.Gap // the last one
	sure   bool      // the server knows the topics, and has a cursor that is not ahead
	exact  bool      // the server's cursor is this one: the last answer was for a poll without
	doubt  time.Time // until then the server may still come to a request that was given up, with its topics and its cursor
}

// An ask is a request. What it brought decides what its answer may repeat.
type ask struct {
	of       *poller        // nil: it is no poll
	after    gpoll.Position // zero: none
	register bool
	exact    bool // the server's cursor was the client's
}

func (c *poller) publicID() string {
	if c.id == "" {
		return ""
	}
	return gpoll.PublicID(c.id)
}

func (c *poller) clientID() string { return c.id }

// toggle subscribes or unsubscribes, as of the next poll with a cursor.
func (c *poller) toggle(topic string) {
	if i := slices.Index(c.topics, topic); i >= 0 {
		c.topics = slices.Delete(c.topics, i, i+1)
	} else {
		c.topics = append(c.topics, topic)
	}
	c.sure = false
}

// nameTopics tells the Trace which topics are named as of the cursor.
func (c *poller) nameTopics() {
	for _, topic := range c.topics {
		if !slices.Contains(c.named, topic) {
			c.named = append(c.named, topic)
			c.trace.Subscribed(topic, c.cursor)
		}
	}
	c.named = slices.DeleteFunc(c.named, func(topic string) bool {
		gone := !slices.Contains(c.topics, topic)
		if gone {
			c.trace.Unsubscribed(topic, c.cursor)
		}
		return gone
	})
}

// get returns the bytes of a poll, or of a registration. Where there is no cursor the server's topics hold.
func (c *poller) get(a ask) string {
	query := []string{"client-id=" + c.askID(a)}
	if c.json {
		query = append(query, "format=json")
	}
	if !a.after.IsZero() {
		query = append(query, "after="+a.after.String())
	}
	if !a.after.IsZero() || a.register {
		for _, topic := range c.topics {
			query = append(query, "topic="+topic)
		}
	}
	return "GET /poll?" + strings.Join(query, "&") + " HTTP/1.1\r\nHost: x\r\n" + c.head() + "\r\n"
}

// post returns the same request as a POST.
func (c *poller) post(a ask) string {
	ask := map[string]any{}
	if c.json {
		ask["format"] = "json"
	}
	if !a.after.IsZero() {
		ask["after"] = a.after.String()
	}
	if !a.after.IsZero() || a.register {
		ask["topics"] = append([]string{}, c.topics...)
	}
	body, err := json.Marshal(ask)
	if err != nil {
		panic(err) // strings
	}
	return "POST /poll HTTP/1.1\r\nHost: x\r\n" + c.head() + "Gpoll-Client-Id: " + c.askID(a) + "\r\n" +
		fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func (c *poller) askID(a ask) string {
	if a.register {
		return "0"
	}
	return c.id
}

func (c *poller) head() string {
	if c.user == "" {
		return ""
	}
	return "User: " + c.user + "\r\n"
}

// take takes an answer in.
func (c *poller) take(a ask, resp *http.Response, body []byte) {
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		c.sure, c.exact = false, false
		err := refusal(resp.StatusCode, body)
		if e, ok := errors.AsType[*gpolltest.ServerError](err); ok && e.Code == "unknown-client" {
			c.id = ""
		}
		c.w.note(c.name, "poll", err)
		return
	}
	got, err := c.read(a, resp, body)
	if err != nil {
		c.w.fault("%s: %v: %v %.200q", c.name, err, resp.Header, body)
		return
	}
	if a.register && c.id != got.id {
		c.id = got.id
		c.trace.Registered(c.id, c.user)
	}
	for _, it := range got.items {
		c.w.count(it.gap)
		if it.gap != nil {
			c.takeGap(a, *it.gap)
		} else {
			c.takeMessage(a, it.message)
		}
	}
	c.adopt(got.at)
	if a.register {
		c.nameTopics()
	}
	c.sure, c.exact = true, a.after.IsZero() && c.cursor == got.at // else it was told again, and the server stands there
	if !a.after.IsZero() && !slices.Equal(c.topics, c.named) {
		c.sure = false
	}
}

func (c *poller) takeMessage(a ask, m gpoll.Message) {
	if passed(m.Position, c.cursor) {
		// It was on its way already when the poll was sent, or an answer without cursor was not known to have come.
		if passed(m.Position, a.after) || a.exact {
			c.trace.Repeated(m.Position)
		}
		return
	}
	if c.json {
		c.trace.Delivered(m)
	} else {
		c.trace.DeliveredPlain(m)
	}
	c.cursor = m.Position
}

func (c *poller) takeGap(a ask, g gpoll.Gap) {
	if g.Epoch == c.cursor.Epoch && g.From <= c.cursor.Seq { // it was told to an older cursor
		if g.To != 0 && g.To <= c.cursor.Seq {
			return
		}
		g.From = c.cursor.Seq + 1
	}
	if g == c.gap {
		return
	}
	c.gap = g
	c.trace.Gap(g)
	if g.To != 0 {
		c.cursor = gpoll.Position{Epoch: g.Epoch, Seq: g.To}
	}
}

// adopt moves the cursor to a scanned Position.
func (c *poller) adopt(p gpoll.Position) {
	if !passed(p, c.cursor) {
		c.cursor = p
		c.trace.Scanned(p)
	}
}

func passed(p, cursor gpoll.Position) bool { return p.Epoch == cursor.Epoch && p.Seq <= cursor.Seq }

// What an answer brings.
type brought struct {
	id    string
	items []broughtItem
	at    gpoll.Position
}

type broughtItem struct {
	message gpoll.Message
	gap     *gpoll.Gap
}

// read reads the answer to a poll or a registration.
func (c *poller) read(a ask, resp *http.Response, body []byte) (got brought, err error) {
	if c.json {
		return readBatch(body)
	}
	for _, text := range resp.Header.Values("Gpoll-Gap") {
		bounds, reason, _ := strings.Cut(text, ";")
		from, to, _ := strings.Cut(bounds, "..")
		g, err := readGap(from, to, reason)
		if err != nil {
			return got, err
		}
		got.items = append(got.items, broughtItem{gap: g})
	}
	if got.at, err = gpoll.ParsePosition(resp.Header.Get("Gpoll-Position")); err != nil {
		return got, err
	}
	switch {
	case a.register:
		var in struct {
			ID string `json:"client-id"`
		}
		err = json.Unmarshal(body, &in)
		got.id = in.ID
	case resp.StatusCode == http.StatusOK:
		got.items = append(got.items, broughtItem{message: gpoll.Message{Position: got.at, Data: body}})
	}
	return got, err
}

func readBatch(body []byte) (got brought, err error) {
	var in struct {
		ID       string `json:"client-id"`
		Position string `json:"position"`
		Messages []struct {
			ID    string `json:"id"`
			Topic string `json:"topic"`
			Data  string `json:"data"`
			Gap   *struct {
				From, To, Reason string
			} `json:"gap"`
		} `json:"messages"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return got, err
	}
	got.id = in.ID
	for _, e := range in.Messages {
		it := broughtItem{}
		if e.Gap != nil {
			it.gap, err = readGap(e.Gap.From, e.Gap.To, e.Gap.Reason)
		} else {
			it.message = gpoll.Message{Topic: e.Topic, Data: []byte(e.Data)}
			it.message.Position, err = gpoll.ParsePosition(e.ID)
		}
		if err != nil {
			return got, err
		}
		got.items = append(got.items, it)
	}
	got.at, err = gpoll.ParsePosition(in.Position)
	return got, err
}

func readGap(from, to, reason string) (*gpoll.Gap, error) {
	f, err := gpoll.ParsePosition(from)
	if err != nil {
		return nil, err
	}
	t, err := gpoll.ParsePosition(to)
	return &gpoll.Gap{Epoch: f.Epoch, From: f.Seq, To: t.Seq, Reason: reason}, err
}

func refusal(status int, body []byte) error {
	var in struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(body, &in); err != nil || in.Error == "" {
		return fmt.Errorf("status %d with a body that is not gpoll's: %.200q", status, body)
	}
	return &gpolltest.ServerError{Code: in.Error, Message: in.Message, Status: status}
}
