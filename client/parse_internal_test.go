package client

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/wire"
)

// bareClient returns a Client that is not attached, whose messages go nowhere.
func bareClient() *Client {
	c := &Client{inbox: newInbox(gpoll.Position{}), out: &outbox{woken: make(chan struct{}, 1)}, closing: true,
		log: slog.New(slog.DiscardHandler)}
	c.life, c.quit = context.WithCancelCause(context.Background())
	c.inbox.open = 1
	return c
}

// What a server may say in a frame does not hurt the client, and what it says of messages is in their order.
func FuzzFrame(f *testing.F) {
	for _, text := range transcripts(f, `< text (.*)`) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := bareClient()
		s := &socket{c: c, dog: newWatchdog(1<<40, func() {})}
		defer s.dog.stop()
		for line := range bytes.Lines(data) {
			frame := new(wire.Frame)
			if decode("a frame", line, frame) != nil || s.take(frame) != nil {
				return
			}
		}
		judge(t, c)
	})
}

// So it is with events.
func FuzzEventStream(f *testing.F) {
	f.Add([]byte("event: gap\nid: 9f86d081884c7d65-30\ndata: {\"from\":\"9f86d081884c7d65-7\"," +
		"\"to\":\"9f86d081884c7d65-30\",\"reason\":\"evicted\"}\n\n" +
		"data: {\"id\":\"9f86d081884c7d65-41\",\"data64\":\"/w==\"}\n\n"))
	f.Add([]byte("event: request\ndata: {\"id\":\"1\",\"data\":\"\"}\n\nevent: end\ndata: {\"error\":\"slow\"}\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := bareClient()
		s := &stream{c: c, a: &attach{c: c}}
		events := wire.NewEvents(bytes.NewReader(data), mostBytes)
		for {
			ev, err := events.Next()
			if err != nil || s.take(&ev) != nil {
				break
			}
		}
		judge(t, c)
	})
}

// So it is with the answers to polls, and to commands.
func FuzzAnswer(f *testing.F) {
	for _, text := range transcripts(f, `< ([[{].*)`) {
		f.Add(200, text)
		f.Add(503, text)
	}
	f.Fuzz(func(t *testing.T, status int, text string) {
		if status < 100 || status > 999 {
			return
		}
		c := bareClient()
		c.http = &http.Client{Transport: answering{status, text}}
		c.mount = mustParse("http://gpoll.test/poll")
		c.opts.Header = http.Header{}
		a := &attach{c: c, ctx: c.life}
		a.opened = a.opened.AddDate(1, 0, 0)
		_, err := c.pollOnce(c.life, a)
		courseOf(err)
		judge(t, c)
		cmd := &command{id: "1", frame: []byte(text), done: make(chan struct{})}
		c.out.add(cmd)
		c.out.through(nil, "0$1", true)
		batch, _, _ := c.out.next()
		c.post(batch)
		if len(c.out.queue) == 0 != (cmd.err != nil || cmd.answer != nil) || c.out.away != 0 || c.out.bytes != 0 {
			t.Fatalf("%v, %v: %+v", cmd.answer, cmd.err, c.out)
		}
	})
}

func mustParse(address string) *url.URL {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	return u
}

// judge checks that what came is in order.
func judge(t *testing.T, c *Client) {
	last := c.inbox.passed
	for i := range c.inbox.queue {
		a := &c.inbox.queue[i]
		switch {
		case a.Gap != nil:
			last = a.Position // the zero one after a new epoch
		case a.Position.Epoch == last.Epoch && (a.Position.Seq < last.Seq || a.Position == last && !a.scanned):
			t.Fatalf("%+v is behind %v", a, last)
		default:
			last = a.Position
		}
	}
}

type answering struct {
	status int
	text   string
}

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.text)
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// transcripts returns what of the lines of the golden transcripts pattern captures, with values in place of names.
func transcripts(t testing.TB, pattern string) (all []string) {
	files, err := filepath.Glob("../testdata/protocol/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	capture := regexp.MustCompile("(?m)^" + pattern + "$")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range capture.FindAllStringSubmatch(string(text), -1) {
			all = append(all, valued(m[1]))
		}
	}
	return all
}

var (
	position = regexp.MustCompile(`<pos2?(?:\+(\d+))?>`)
	number   = regexp.MustCompile(`<(?:ms|secs|retry)>`)
)

func valued(text string) string {
	text = position.ReplaceAllString(text, "9f86d081884c7d65-4$1")
	text = number.ReplaceAllString(text, "1500")
	text = strings.NewReplacer("<id>", "0$6ba7b811-9dad-41d1-80b4-00c04fd430c8", "<id2>",
		"0$6ba7b811-9dad-41d1-80b4-00c04fd430c9", "<text>", "a sentence", "<epoch>", "9f86d081884c7d65").Replace(text)
	return text
}

// The client understands every frame, event and answer of the golden transcripts that is for a client such as this.
func TestTranscripts(t *testing.T) {
	known := 0
	for _, text := range transcripts(t, `< text (\{.*\})`) {
		f := new(wire.Frame)
		if err := decode("a frame", []byte(text), f); err != nil {
			t.Error(err)
		}
		switch {
		case strings.HasPrefix(text, `{"client-id"`): // of the plain form
			continue
		case strings.HasPrefix(text, `{"presence"`), strings.HasPrefix(text, `{"watching"`): // it asks for none
			continue
		}
		if f.ID == "" && f.Gap == nil && f.Position == "" && f.Welcome == nil && f.Subscribed == nil &&
			f.Unsubscribed == nil && f.Request == nil && f.Error == nil && f.Answer() == nil {

			t.Errorf("%s says nothing to it", text)
		}
		c := bareClient()
		if err := (&socket{c: c}).take(f); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		known++
	}
	for _, text := range transcripts(t, `< (\[.*\])`) {
		n := strings.Count(text, "},{") + 1
		outcomes, err := outcomesOf(http.StatusOK, []byte(text), n)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		for i := range outcomes {
			if outcomes[i].Answer() == nil && outcomes[i].Error == nil && !outcomes[i].Left {
				t.Errorf("%s: nothing at %d", text, i)
			}
		}
		known++
	}
	for _, text := range transcripts(t, `< (\{"client-id".*"messages".*\})`) {
		c := bareClient()
		c.http = &http.Client{Transport: answering{200, text}}
		c.mount = mustParse("http://gpoll.test/poll")
		a := &attach{c: c, ctx: c.life}
		a.opened = a.opened.AddDate(1, 0, 0)
		if _, err := c.pollOnce(c.life, a); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		judge(t, c)
		known++
	}
	for _, text := range transcripts(t, `< (\{"error":"[a-z-]+".*\})`) {
		err := refusalOf(&http.Response{StatusCode: 503, Body: io.NopCloser(strings.NewReader(text))})
		if e, ok := err.(*EndError); !ok || e.Code == "" {
			t.Errorf("%s: %v", text, err)
		}
		known++
	}
	if known < 40 {
		t.Errorf("only %d lines were for it", known)
	}
}

// What quick reads is what the JSON package reads.
func FuzzQuick(f *testing.F) {
	for _, text := range transcripts(f, `< text (.*)`) {
		f.Add([]byte(text))
	}
	for _, text := range []string{`"}`, `a","data64":"/w=="}`, `a\"}`, "\\u00e9\xff\"}", `","data":"b"}`,
		`a","gap":{}}`, ``} {

		f.Add([]byte(`{"id":"9f86d081884c7d65-41","data":"` + text))
		f.Add([]byte(`{"id":"9f86d081884c7d65-41","topic":"a","data":"` + text))
	}
	f.Add([]byte(`{"id":"9f86d081884c7d65-41","topic":"a\n","data":"b"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := bareClient()
		m, ok := c.quick(text)
		if !ok {
			return
		}
		var e wire.Element
		if err := decode("a message", text, &e); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		p, err := gpoll.ParsePosition(e.ID)
		if err != nil || m.Position != p || m.Topic != e.Topic || !bytes.Equal(m.Data, e.Payload()) || e.Gap != nil {
			t.Fatalf("%q: %+v, %+v, %v", text, m, e, err)
		}
	})
}
