package js_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/js"
)

// browserFile is the document whose code and numbers these tests check.
const browserFile = "../docs/browser.md"

// Every piece of code of the document does in Node what the document says, in a page that is made for it:
// testdata/document.mjs.
func TestDocument(t *testing.T) {
	project := install(t)
	modules := installed(t)
	for _, name := range []string{"happy-dom", "react", "react-dom", "vue"} {
		if err := os.Symlink(modules+"/"+name, project+"/node_modules/"+name); err != nil {
			t.Fatal(err)
		}
	}
	document, err := os.ReadFile(browserFile)
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, "testdata/document.mjs", project+"/document.mjs")
	write(t, project+"/client.js", string(js.Global().Text))
	var names []string
	pieces := regexp.MustCompile("(?ms)^```js\n// ([a-z]+\\.js)\n(.*?)^```$")
	for _, m := range pieces.FindAllStringSubmatch(string(document), -1) {
		write(t, project+"/"+m[1], m[2])
		names = append(names, m[1])
	}
	pages := regexp.MustCompile("(?ms)^```html\n(.*?)^```$")
	for i, m := range pages.FindAllStringSubmatch(string(document), -1) {
		script := regexp.MustCompile(`(?s)<script( type="module")?>(.*?)</script>`).FindStringSubmatch(m[1])
		if script == nil {
			t.Fatalf("a page without a script: %s", m[1])
		}
		name := fmt.Sprintf("page%d.js", i+1)
		write(t, project+"/"+name, strings.ReplaceAll(script[2], `"/poll/client.js"`, `"gpoll"`))
		names = append(names, name)
	}
	if n := strings.Count(string(document), "\n```") / 2; len(names) != n {
		t.Fatalf("%d pieces of code, and %d of them have a name: %v", n, len(names), names)
	}
	for _, name := range names {
		if name == "feed.js" {
			continue // the others import it
		}
		t.Run(name, func(t *testing.T) {
			url := documentServer(t)
			text, err := os.ReadFile(project + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			write(t, project+"/"+name, strings.ReplaceAll(string(text), "http://127.0.0.1:8080/poll", url))
			if got := run(t, project, "node", "--no-warnings", "document.mjs", name, url); got != "as it says\n" {
				t.Errorf("it prints %q", got)
			}
		})
	}
}

// documentServer lets everybody do everything. Its application says how many listen to a topic, asks and removes those
// who want it, and knows the token that came last.
func documentServer(t *testing.T) string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	var token atomic.Value
	token.Store("")
	b := gpoll.NewBroadcaster()
	b.UpstreamRate, b.UpstreamBurst = 1000, 1000
	b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
		if given := r.Header.Get("Authorization"); given != "" {
			token.Store(given)
		}
		everything := func(string) bool { return true }
		return gpoll.Grant{Publish: everything, Presence: everything}, nil
	}
	var asking sync.WaitGroup
	b.OnMessage = func(c *gpoll.Client, m gpoll.Message) {
		switch text := string(m.Data); {
		case text == "remove me":
			asking.Go(func() { c.Close("as you like") })
		case text == "ask me":
			asking.Go(func() { // ends with the reply
				reply, err := c.Request(ctx, []byte("what you ask"))
				if err != nil {
					t.Error(err)
				}
				_, _ = b.Publish(ctx, gpoll.Message{Topic: "answers", Data: reply})
			})
		}
	}
	b.OnRequest = func(_ *gpoll.Client, m gpoll.Message) ([]byte, error) {
		switch verb, topic, _ := strings.Cut(string(m.Data), " "); verb {
		case "count":
			return []byte(strconv.Itoa(len(b.Presence(topic)))), nil
		case "token":
			return []byte(token.Load().(string)), nil
		}
		return append([]byte("re: "), m.Data...), nil
	}
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "t1") })
	states := 0
	mux.HandleFunc("/state", func(w http.ResponseWriter, r *http.Request) {
		position := "0123456789abcdef-41" // of a server that has gone: a gap follows
		if states++; states > 1 {
			p, err := b.Publish(r.Context(), gpoll.Message{Topic: "unheard"})
			if err != nil {
				t.Error(err)
			}
			position = p.String()
		}
		fmt.Fprintf(w, `{"state":["state %d"],"position":%q}`, states, position)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		asking.Wait()
		_ = b.Shutdown(ctx)
		server.Close()
	})
	return server.URL + "/poll"
}

// The sizes that the document says are those of the files, within a tenth or 100 bytes.
func TestDocumentSizes(t *testing.T) {
	document, err := os.ReadFile(browserFile)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]int{}
	rows := regexp.MustCompile("(?m)^\\| `([a-z]+\\.js)` \\| ([0-9,]+) \\|")
	for _, m := range rows.FindAllStringSubmatch(string(document), -1) {
		said[m[1]], _ = strconv.Atoi(strings.ReplaceAll(m[2], ",", ""))
	}
	files := map[string]*js.File{"client.js": js.Core()}
	for _, name := range append(js.Parts(), js.Modules()...) {
		files[name] = js.Part(name)
	}
	for name, file := range files {
		n := len(file.Gzip)
		if d := said[name] - n; d > max(n/10, 100) || -d > max(n/10, 100) {
			t.Errorf("%s has %d bytes, and the document says %d", name, n, said[name])
		}
	}
	if len(said) != len(files) {
		t.Errorf("the document has the sizes of %v", said)
	}
}

// The tables of the document have every option, member, event and reason of the types, and nothing else.
func TestDocumentTables(t *testing.T) {
	document, err := os.ReadFile(browserFile)
	if err != nil {
		t.Fatal(err)
	}
	types, err := os.ReadFile("gpoll.d.ts")
	if err != nil {
		t.Fatal(err)
	}
	between := func(text, from, to string) string {
		_, text, ok := strings.Cut(text, from)
		text, _, found := strings.Cut(text, to)
		if !ok || !found {
			t.Fatalf("nothing between %q and %q", from, to)
		}
		return text
	}
	names := func(pattern, text string) map[string]bool {
		all := map[string]bool{}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			all[m[1]] = true
		}
		return all
	}
	cells := func(section string) string { // the first cells of its table
		text := between(string(document)+"\n## ", "\n## "+section+"\n", "\n## ")
		return strings.Join(regexp.MustCompile(`(?m)^\| [^|]*\|`).FindAllString(text, -1), "\n")
	}
	class := between(string(types), "export class GpollSource", "\n}\n")
	members := names(`(?m)^  (?:readonly )?([a-z]\w+)\??[:(]`, class)
	for _, inherited := range []string{"addEventListener", "removeEventListener", "constructor", "onmessage", "ongap",
		"onopen", "onerror", "onstatus"} {

		delete(members, inherited)
	}
	for section, want := range map[string]map[string]bool{
		"Options":    names(`(?m)^  (\w+)\?:`, between(string(types), "export interface Options {", "\n}\n")),
		"Members":    members,
		"Events":     names(`(?m)^  (\w+):`, between(string(types), "export interface EventMap {", "\n}\n")),
		"Transports": names(`"(\w+)"`, between(string(types), "export type Reason =", ";")),
	} {
		pattern := "`(\\w+)(?:\\([a-z, ]*\\))?`"
		if got := names(pattern, cells(section)); fmt.Sprint(got) != fmt.Sprint(want) || len(want) < 5 {
			t.Errorf("%s: the document has %v, and the types %v", section, got, want)
		}
	}
}
