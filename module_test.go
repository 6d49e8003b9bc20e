package gpoll_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/js"
)

// The mount serves the browser client: what is asked for each time, what is kept for ever, and the parts of both.
func TestClientModule(t *testing.T) {
	s := start(t, setup{})
	const again, forever = "no-cache", "public, max-age=31536000, immutable"
	for _, tt := range []struct {
		path, caching string
		text          []byte
	}{
		{"/poll/client.js", again, js.Core().Text},
		{"/poll/client.js?global", again, js.Global().Text},
		{"/poll/" + gpoll.ClientModule(), forever, js.Core().Text},
		{"/poll/client/" + js.Version() + "/upstream.js", forever, js.Part("upstream.js").Text},
		{"/poll/client/tabs.js", again, js.Part("tabs.js").Text},
		{"/poll/client/sealed.js", again, js.Part("sealed.js").Text},
		{"/poll/client/another/upstream.js", again, js.Part("upstream.js").Text},
	} {
		t.Run(tt.path, func(t *testing.T) {
			a := s.get(t, tt.path, "Accept-Encoding", "identity")
			if a.status != http.StatusOK || a.body != string(tt.text) {
				t.Fatalf("%d, %d bytes", a.status, len(a.body))
			}
			if got := a.header.Get("Content-Type"); got != "text/javascript; charset=utf-8" {
				t.Error(got)
			}
			if got := a.header.Get("Cache-Control"); got != tt.caching {
				t.Error(got)
			}
			if again := s.get(t, tt.path, "Accept-Encoding", "identity",
				"If-None-Match", a.header.Get("ETag")); again.status != http.StatusNotModified {
				t.Errorf("the same again: %d", again.status)
			}
			small := s.get(t, tt.path, "Accept-Encoding", "br;q=1.0, gzip;q=0.8")
			if small.header.Get("Content-Encoding") != "gzip" || small.header.Get("ETag") == a.header.Get("ETag") ||
				!strings.Contains(strings.Join(small.header["Vary"], ","), "Accept-Encoding") {
				t.Errorf("compressed: %v", small.header)
			}
			r, err := gzip.NewReader(strings.NewReader(small.body))
			if err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(r); err != nil || string(text) != string(tt.text) {
				t.Errorf("%d bytes, %v", len(text), err)
			}
			if never := s.get(t, tt.path, "Accept-Encoding", "gzip;q=0"); never.body != string(tt.text) {
				t.Errorf("without gzip: %v", never.header)
			}
		})
	}
	if a := s.get(t, "/poll/client/"+js.Version()+"/other.js"); a.status != 404 ||
		!strings.Contains(a.body, "not-found") || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("no such part: %d %v %s", a.status, a.header, a.body)
	}
	if a := s.post(t, "/poll/client.js", "0", "{}"); a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %s", a.status, a.body)
	}
}

// Every module that the core loads is one that the mount serves, and no module needs another one.
func TestClientModuleParts(t *testing.T) {
	s := start(t, setup{})
	imports := regexp.MustCompile(`import\("(.*?)"\)`)
	for _, core := range []string{"/poll/client.js", "/poll/client.js?global"} {
		found := imports.FindAllStringSubmatch(s.get(t, core).body, -1)
		if len(found) != len(js.Parts()) {
			t.Errorf("%s loads %v", core, found)
		}
		for _, part := range found {
			a := s.get(t, "/poll/"+strings.TrimPrefix(part[1], "./"))
			if a.status != http.StatusOK || !strings.Contains(a.header.Get("Cache-Control"), "immutable") ||
				strings.Contains(a.body, "import") {
				t.Errorf("%s: %d %v", part[1], a.status, a.header)
			}
		}
	}
	tabs := s.get(t, "/poll/client/tabs.js").body
	found := regexp.MustCompile(`import.*?"(.*?)"`).FindAllStringSubmatch(tabs, -1)
	if len(found) != 2 {
		t.Errorf("tabs.js loads %v", found)
	}
	for _, module := range found {
		if a := s.get(t, path.Join("/poll/client", module[1])); a.status != http.StatusOK {
			t.Errorf("tabs.js loads %s: %d %s", module[1], a.status, a.body)
		}
	}
}
