package stacks

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/js"
)

// Behind each router the browser client has its modules, and says something to the application.
func TestRoutersServeTheBrowserClient(t *testing.T) {
	for _, router := range routers {
		t.Run(router.name, func(t *testing.T) {
			heard := make(chan string, 1)
			b := gpoll.NewBroadcaster()
			b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) { heard <- string(m.Data) }
			srv := httptest.NewServer(router.mount(b))
			defer srv.Close()
			defer b.Shutdown(t.Context())
			ask := func(method, path, body string, header ...string) string {
				t.Helper()
				r, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				for i := 0; i < len(header); i += 2 {
					r.Header.Set(header[i], header[i+1])
				}
				if body == "" {
					r.Body = http.NoBody
				}
				res, err := srv.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				text, err := io.ReadAll(res.Body)
				if err != nil || res.StatusCode != http.StatusOK {
					t.Fatalf("%s %s: %d %s %v", method, path, res.StatusCode, text, err)
				}
				return string(text)
			}
			for path, module := range map[string]*js.File{
				"/poll/client.js": js.Core(), "/poll/client/tabs.js": js.Part("tabs.js"),
				"/poll/client/" + js.Version() + "/upstream.js": js.Part("upstream.js"),
			} {
				if got := ask("GET", path, ""); got != string(module.Text) {
					t.Errorf("%s has %d bytes, and not %d", path, len(got), len(module.Text))
				}
			}
			var registered struct {
				ID string `json:"client-id"`
			}
			answer := ask("GET", "/poll?client-id=0&format=json", "")
			if err := json.Unmarshal([]byte(answer), &registered); err != nil {
				t.Fatal(err, answer)
			}
			ask("POST", "/poll/commands", `{"send":{"data":"hi"}}`, "Content-Type", "application/json",
				"Gpoll-Client-Id", registered.ID)
			if got := <-heard; got != "hi" {
				t.Errorf("the application hears %q", got)
			}
		})
	}
}
