package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/corvuscrypto/gpoll"
)

// newTestSite returns the site of a command line, as if it listened on 127.0.0.1:8080.
func newTestSite(t *testing.T, args ...string) *site {
	t.Helper()
	set, err := parseSettings(args, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	b := set.broadcaster(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { b.Shutdown(t.Context()) })
	s, err := newSite(set, b, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends a request to the site; header is a list of names and values.
func ask(s *site, method, target, body string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "http://127.0.0.1:8080"+target, strings.NewReader(body))
	for pair := range slices.Chunk(header, 2) {
		if r.Header.Set(pair[0], pair[1]); pair[0] == "Host" {
			r.Host = pair[1]
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

// wantRefusal fails the test unless res is the error, in the shape of the mount's errors.
func wantRefusal(t *testing.T, res *http.Response, status int, code string) {
	t.Helper()
	body, _ := io.ReadAll(res.Body)
	var got refusal
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil || res.StatusCode != status || got.Error != code ||
		res.Header.Get("Gpoll-Error") != code || got.Message == "" {
		t.Errorf("got %s %s, want %d and %s with a sentence", res.Status, body, status, code)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store",
		"X-Content-Type-Options": "nosniff"} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func wantSent(t *testing.T, res *http.Response) {
	t.Helper()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), `{"position":"`) {
		t.Errorf("got %s %s, want the position", res.Status, body)
	}
}

func TestSendRefusals(t *testing.T) {
	s := newTestSite(t, "-max-message", "8")
	for _, c := range []struct {
		name, method, target, body string
		header                     []string
		status                     int
		code                       string
	}{
		{"GET", "GET", "/send", "", nil, 405, "method"},
		{"PUT", "PUT", "/send", "x", nil, 405, "method"},
		{"preflight", "OPTIONS", "/send", "", nil, 403, "origin"},
		{"too large", "POST", "/send", "123456789", nil, 413, "too-large"},
		{"too large, told late", "POST", "/send", "123456789", []string{"Transfer-Encoding", "chunked"}, 413, "too-large"},
		{"topics", "POST", "/send?topics=a", "x", nil, 400, "bad-request"},
		{"bad topic", "POST", "/send?topic=a*b", "x", nil, 400, "bad-topic"},
		{"control character", "POST", "/send?topic=a%00", "x", nil, 400, "bad-topic"},
		{"empty topic", "POST", "/send?topic=", "x", nil, 400, "bad-topic"},
		{"long topic", "POST", "/send?topic=" + strings.Repeat("a", 256), "x", nil, 400, "bad-topic"},
		{"two topics", "POST", "/send?topic=a&topic=b", "x", nil, 400, "bad-request"},
		{"bad query", "POST", "/send?topic=%zz", "x", nil, 400, "bad-request"},
		{"semicolons", "POST", "/send?topic=a;b", "x", nil, 400, "bad-request"},
		{"long query", "POST", "/send?x=" + strings.Repeat("a", maxQuery), "x", nil, 414, "query-too-long"},
		{"compressed", "POST", "/send", "x", []string{"Content-Encoding", "gzip"}, 415, "unsupported-media-type"},
		{"from another site", "POST", "/send", "x", []string{"Sec-Fetch-Site", "cross-site"}, 403, "origin"},
		{"from a sister site", "POST", "/send", "x", []string{"Sec-Fetch-Site", "same-site"}, 403, "origin"},
		{"from another origin, old browser", "POST", "/send", "x", []string{"Origin", "http://evil.example"}, 403, "origin"},
		{"from another port", "POST", "/send", "x", []string{"Origin", "http://127.0.0.1:9090"}, 403, "origin"},
		{"no origin at all", "POST", "/send", "x", []string{"Origin", "null"}, 403, "origin"},
		{"rebound name", "POST", "/send", "x", []string{"Host", "evil.example:8080"}, 403, "host"},
		{"rebound name that says same origin", "POST", "/send", "x",
			[]string{"Host", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"}, 403, "host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "preflight" {
				c.header = []string{"Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site",
					"Access-Control-Request-Method", "POST"}
			}
			res := ask(s, c.method, c.target, c.body, c.header...)
			if c.name == "preflight" { // either refusal will do, as long as it allows nothing
				c.status, c.code = res.StatusCode, res.Header.Get("Gpoll-Error")
			}
			wantRefusal(t, res, c.status, c.code)
			if allow := res.Header.Get("Allow"); c.status == 405 && allow != "POST" {
				t.Errorf("Allow is %q", allow)
			}
			if res.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("another origin is allowed")
			}
		})
	}
	var f figures
	if err := json.NewDecoder(ask(s, "GET", "/stats", "").Body).Decode(&f); err != nil || f.Published != 0 {
		t.Errorf("a refused request has published: %+v, error %v", f, err)
	}
}

// After the drain has begun a message is refused with a hint, and not taken and forgotten.
func TestSendDuringShutdown(t *testing.T) {
	h, err := newSendHandler(&closing{0}, 8, func(*http.Request) bool { return true }, "")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/send", strings.NewReader("x")))
	res := w.Result()
	wantRefusal(t, res, http.StatusServiceUnavailable, "closed")
	if res.Header.Get("Retry-After") != "5" || !strings.Contains(w.Body.String(), `"retry_ms":5000`) {
		t.Errorf("no hint: %v %s", res.Header, w.Body)
	}
}

func TestSendAccepts(t *testing.T) {
	s := newTestSite(t, "-max-message", "8")
	for name, header := range map[string][]string{
		"curl":                {"Content-Type", "application/x-www-form-urlencoded"},
		"the page":            {"Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:8080"},
		"an old browser":      {"Origin", "http://127.0.0.1:8080"},
		"localhost":           {"Host", "localhost:8080"},
		"LOCALHOST":           {"Host", "LOCALHOST"},
		"another address":     {"Host", "192.0.2.7:8080"},
		"IPv6":                {"Host", "[::1]:8080"},
		"IPv6 without a port": {"Host", "[::1]"},
		"identity":            {"Content-Encoding", "identity"},
	} {
		t.Run(name, func(t *testing.T) { wantSent(t, ask(s, "POST", "/send?topic=a/b&unknown=1", "12345678", header...)) })
	}
}

func TestPublishToken(t *testing.T) {
	s := newTestSite(t, "-publish-token", "s3cret")
	for _, c := range []struct {
		header []string
		ok     bool
	}{
		{nil, false},
		{[]string{"Authorization", "Bearer s3cret"}, true},
		{[]string{"Authorization", "bearer s3cret"}, true},
		{[]string{"Authorization", "Bearer s3cre"}, false},
		{[]string{"Authorization", "Bearer s3crett"}, false},
		{[]string{"Authorization", "Bearer "}, false},
		{[]string{"Authorization", "s3cret"}, false},
		{[]string{"Authorization", "Basic s3cret"}, false},
	} {
		t.Run(strings.Join(c.header, " "), func(t *testing.T) {
			send, stats := ask(s, "POST", "/send", "x", c.header...), ask(s, "GET", "/stats", "", c.header...)
			if c.ok {
				wantSent(t, send)
				if stats.StatusCode != http.StatusOK {
					t.Errorf("/stats: %s", stats.Status)
				}
				return
			}
			wantRefusal(t, send, http.StatusUnauthorized, "unauthorized")
			wantRefusal(t, stats, http.StatusUnauthorized, "unauthorized")
			if !strings.HasPrefix(send.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Error("the answer does not say how to authenticate")
			}
		})
	}
	wantRefusal(t, ask(s, "POST", "/send", "x", "Authorization", "Bearer s3cret", "Sec-Fetch-Site", "cross-site"),
		http.StatusForbidden, "origin")
}

// The log begins anew only for those who may publish, and what comes then is of another epoch.
func TestRestart(t *testing.T) {
	s := newTestSite(t, "-publish-token", "s3cret")
	auth := []string{"Authorization", "Bearer s3cret"}
	epoch := func() string {
		var f figures
		if err := json.NewDecoder(ask(s, "GET", "/stats", "", auth...).Body).Decode(&f); err != nil {
			t.Fatal(err)
		}
		return f.Epoch
	}
	wantSent(t, ask(s, "POST", "/send", "old", auth...))
	old := epoch()
	wantRefusal(t, ask(s, "POST", "/restart", ""), http.StatusUnauthorized, "unauthorized")
	wantRefusal(t, ask(s, "GET", "/restart", "", auth...), http.StatusMethodNotAllowed, "method")
	wantRefusal(t, ask(s, "POST", "/restart", "", append(auth, "Sec-Fetch-Site", "cross-site")...), http.StatusForbidden,
		"origin")
	if got := epoch(); got != old {
		t.Errorf("a refused request has begun epoch %s after %s", got, old)
	}
	wantSent(t, ask(s, "POST", "/restart", "", auth...))
	if got := epoch(); got == old {
		t.Errorf("the epoch is still %s", got)
	}
	res := ask(s, "POST", "/send", "new", auth...)
	body, _ := io.ReadAll(res.Body)
	if want := `{"position":"` + epoch(); !strings.HasPrefix(string(body), want) {
		t.Errorf("%s, want %s", body, want)
	}
}

// The token is taken from the environment where the flag is not given.
func TestTokenVariable(t *testing.T) {
	set, err := parseSettings(nil, func(name string) string { return map[string]string{tokenVariable: "t0ken"}[name] })
	if err != nil || set.publishToken != "t0ken" {
		t.Errorf("token %q, error %v", set.publishToken, err)
	}
}

// A name that is not the server's gets nothing, on any path: reading would be possible for a rebound page too.
func TestHosts(t *testing.T) {
	s := newTestSite(t, "-allow-host", "Live.Example.org", "-public-origin", "https://public.example.org",
		"-publish-token", "x")
	for _, path := range []string{"/", "/page/page.js", "/poll", "/poll/events", "/poll/ws", "/stats", "/send",
		"/restart", "/nothing"} {
		for _, host := range []string{"evil.example", "evil.example:8080", "localhost.evil.example",
			"127.0.0.1.evil.example", "", "live.example.org.", "[evil", "localhost:80:80"} {
			t.Run(path+" "+host, func(t *testing.T) {
				wantRefusal(t, ask(s, "GET", path, "", "Host", host), http.StatusForbidden, "host")
			})
		}
	}
	for _, host := range []string{"live.example.org", "LIVE.example.org:443", "public.example.org", "127.0.0.1",
		"localhost"} {
		if res := ask(s, "GET", "/", "", "Host", host); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", host, res.Status)
		}
	}
}

// Behind a proxy that changes Host, the page's own origin may publish.
func TestPublicOrigin(t *testing.T) {
	s := newTestSite(t, "-public-origin", "https://live.example.org", "-publish-token", "x")
	wantSent(t, ask(s, "POST", "/send", "x", "Authorization", "Bearer x", "Origin", "https://live.example.org"))
	wantRefusal(t, ask(s, "POST", "/send", "x", "Authorization", "Bearer x", "Origin", "https://other.example.org"),
		http.StatusForbidden, "origin")
}

func TestPageIsServedStrictly(t *testing.T) {
	s := newTestSite(t, "-path", "/live/feed", "-max-message", "1000")
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/page/page.js": "text/javascript; charset=utf-8",
		"/page/live.js":  "text/javascript; charset=utf-8",
		"/page/page.css": "text/css; charset=utf-8", "/page/icon.svg": "image/svg+xml",
		"/page/uplot/uPlot.iife.min.js": "text/javascript; charset=utf-8",
		"/page/uplot/uPlot.min.css":     "text/css; charset=utf-8",
		"/page/uplot/LICENSE":           "text/plain; charset=utf-8",
	} {
		t.Run(path, func(t *testing.T) {
			res := ask(s, "GET", path, "")
			if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != kind {
				t.Errorf("%s, %s", res.Status, res.Header.Get("Content-Type"))
			}
			policy := res.Header.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'",
				"base-uri 'none'", "require-trusted-types-for 'script'"} {
				if !strings.Contains(policy, want) {
					t.Errorf("the policy lacks %s: %s", want, policy)
				}
			}
			if strings.Contains(policy, "unsafe") {
				t.Errorf("the policy is weak: %s", policy)
			}
			again := ask(s, "GET", path, "", "If-None-Match", res.Header.Get("ETag"))
			if again.StatusCode != http.StatusNotModified {
				t.Errorf("a second request: %s", again.Status)
			}
			wantRefusal(t, ask(s, "POST", path, ""), http.StatusMethodNotAllowed, "method")
		})
	}
	body, _ := io.ReadAll(ask(s, "GET", "/", "").Body)
	for _, want := range []string{`data-mount="./live/feed"`, `data-send="./send"`, `data-stats="./stats"`,
		`data-restart="./restart"`, `data-max-message="1000"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	for _, never := range []string{"<script>", "style=", "onclick", "http:", "https:", `id="token"`} {
		if strings.Contains(string(body), never) {
			t.Errorf("the page contains %s", never)
		}
	}
	body, _ = io.ReadAll(ask(newTestSite(t, "-publish-token", "x"), "GET", "/", "").Body)
	if !strings.Contains(string(body), `id="token"`) {
		t.Error("with a token the page lacks its field")
	}
	wantRefusal(t, ask(s, "GET", "/page/", ""), http.StatusNotFound, "not-found")
	wantRefusal(t, ask(s, "GET", "/page/index.html", ""), http.StatusNotFound, "not-found")
}

func TestBaseURL(t *testing.T) {
	for asked, want := range map[string]string{
		"127.0.0.1:0": "http://127.0.0.1:8080", "localhost:8080": "http://localhost:8080", ":8080": "http://127.0.0.1:8080",
		"0.0.0.0:8080": "http://127.0.0.1:8080", "[::]:8080": "http://127.0.0.1:8080",
		"[::1]:8080": "http://[::1]:8080", "192.0.2.7:8080": "http://192.0.2.7:8080",
	} {
		if got := baseURL(asked, &net.TCPAddr{Port: 8080}, nil); got != want {
			t.Errorf("%s: %s, want %s", asked, got, want)
		}
	}
}

// A server that other machines can reach must have a token.
func TestOpenToOthers(t *testing.T) {
	for _, c := range []struct {
		ip   string
		args []string
		open bool
	}{
		{"127.0.0.1", nil, false}, {"127.9.9.9", nil, false}, {"::1", nil, false},
		{"0.0.0.0", nil, true}, {"::", nil, true}, {"192.0.2.7", nil, true},
		{"127.0.0.1", []string{"-allow-host", "app.localhost"}, false},
		{"127.0.0.1", []string{"-allow-host", "example.org"}, true},
		{"127.0.0.1", []string{"-public-origin", "http://localhost:3000"}, false},
		{"127.0.0.1", []string{"-public-origin", "https://example.org"}, true},
	} {
		t.Run(fmt.Sprint(c.ip, c.args), func(t *testing.T) {
			set, err := parseSettings(c.args, func(string) string { return "" })
			if err != nil {
				t.Fatal(err)
			}
			if reason := openToOthers(set, &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 80}); (reason != "") != c.open {
				t.Errorf("the reason is %q, want open %v", reason, c.open)
			}
		})
	}
}

func TestRecentPosition(t *testing.T) {
	for _, c := range []struct {
		low, high uint64
		want      string
	}{{1, 0, ""}, {1, 1, "e-0"}, {1, 50, "e-0"}, {1, 51, "e-1"}, {991, 1000, "e-990"}, {1, 1000, "e-950"}} {
		s := gpoll.Stats{Epoch: "e", WindowLow: c.low, WindowHigh: c.high, WindowMessages: int(c.high - c.low + 1)}
		if got := recentPosition(s); got != c.want {
			t.Errorf("window %d to %d: %q, want %q", c.low, c.high, got, c.want)
		}
	}
}
