package client

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/corvuscrypto/gpoll/internal/wire"
)

// The client hears in each conversation of testdata/protocol what testdata/heard.json says, as the browser client does.
func TestHeard(t *testing.T) {
	text, err := os.ReadFile("../testdata/heard.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string][]string
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../testdata/protocol/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	got := map[string][]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range hear(t, string(text)) {
			name = filepath.Base(file) + " " + name
			for i := range c.inbox.queue {
				switch a := &c.inbox.queue[i]; {
				case a.scanned:
				case a.Gap != nil:
					got[name] = append(got[name], "gap "+a.Gap.Reason)
				default:
					data := string(a.Data)
					if !utf8.Valid(a.Data) {
						data = "base64 " + base64.StdEncoding.EncodeToString(a.Data)
					}
					got[name] = append(got[name], a.Topic+": "+data)
				}
			}
		}
	}
	for name := range got {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s: it hears %q, and not %q", name, got[name], want[name])
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s: it hears nothing", name)
	}
}

// hear returns the clients of a transcript, one for each connection and transport of its JSON forms.
func hear(t *testing.T, transcript string) map[string]*Client {
	clients := map[string]*Client{}
	here, isJSON := "a", map[string]bool{}
	var event strings.Builder
	for line := range strings.Lines(transcript) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "@ "):
			here = line[2:]
		case strings.HasPrefix(line, "> GET "), strings.HasPrefix(line, "> POST "):
			isJSON[here] = strings.Contains(line, "format=json")
		case strings.HasPrefix(line, "> "):
			isJSON[here] = isJSON[here] || regexp.MustCompile(`"format":"json"|"hello":`).MatchString(line)
		}
		said, ok := strings.CutPrefix(line, "<")
		if !ok || !isJSON[here] {
			continue
		}
		said = numbered(strings.TrimPrefix(said, " "))
		client := func(transport string) *Client {
			name := here + " " + transport
			if clients[name] == nil {
				clients[name] = bareClient()
			}
			return clients[name]
		}
		var err error
		switch frame, isFrame := strings.CutPrefix(said, "text {"); {
		case isFrame:
			c, f := client("websocket"), new(wire.Frame)
			err = decode("a frame", []byte("{"+frame), f)
			if f.Welcome != nil {
				err = c.scan(f.Welcome.Position)
			} else if err == nil {
				err = (&socket{c: c}).take(f)
			}
		case strings.HasPrefix(said, `{"client-id"`) && strings.Contains(said, `"messages"`):
			c := client("long-poll")
			c.http = &http.Client{Transport: answering{200, said}}
			c.mount = mustParse("http://gpoll.test/poll")
			a := &attach{c: c, ctx: c.life}
			a.opened = a.opened.AddDate(1, 0, 0)
			_, err = c.pollOnce(c.life, a)
		case regexp.MustCompile(`^(event|id|data|retry):`).MatchString(said):
			event.WriteString(said + "\n")
		case said == "" && event.Len() > 0:
			events := wire.NewEvents(strings.NewReader(event.String()+"\n"), mostBytes)
			event.Reset()
			ev, _ := events.Next()
			if c := client("sse"); ev.Name == "client-id" {
				err = c.scan(ev.ID)
			} else if e := (&stream{c: c}).take(&ev); e != nil && ev.Name != "end" {
				err = e
			}
		}
		if err != nil {
			t.Errorf("%s: %v", said, err)
		}
	}
	return clients
}

// numbered puts Positions that are in order, and ids, in the place of their names.
func numbered(text string) string {
	named := regexp.MustCompile(`<(?:pos\d*(?:\+(\d+))?|id\d+)>`)
	return valued(named.ReplaceAllStringFunc(text, func(name string) string {
		if strings.HasPrefix(name, "<id") {
			return "<id>"
		}
		n, _ := strconv.Atoi(named.FindStringSubmatch(name)[1])
		return fmt.Sprintf("9f86d081884c7d65-%d", 40+n)
	}))
}
