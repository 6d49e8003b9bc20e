package gpoll_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/corvuscrypto/gpoll"
)

// What proxies do to requests (docs/proxies.md).

// ask sends a request as these bytes on a connection of its own.
func (s *server) ask(t *testing.T, request string) answer {
	t.Helper()
	conn := s.raw(t)
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// message returns the sentence of an error answer.
func (a answer) message(t *testing.T) string {
	var e struct{ Message string }
	if err := json.Unmarshal([]byte(errorOf(a.body)), &e); err != nil {
		t.Errorf("%s: %v", a.body, err)
	}
	return e.Message
}

// A browser's WebSocket whose Upgrade a proxy has dropped hears of that before it hears of the Host, which the same
// proxy has changed. It is so on the address that all transports share.
func TestMissingUpgradeIsSaidFirst(t *testing.T) {
	var log lockedBuffer
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.Logger = slog.New(slog.NewTextHandler(&log, nil)) }})
	const key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	const page = "Origin: https://app.example\r\n"
	for _, c := range []struct {
		name, proto, header string
		shared              bool // so it is at /poll too
		says, silent        string
	}{
		{"nginx without a word", "1.0", page + key + "Connection: close\r\n", true, "HTTP/1.0", "HTTP/2"},
		{"nginx with HTTP/1.1", "1.1", page + key + "Connection: close\r\n", true,
			"without the headers Upgrade and Connection", "HTTP/1.0"},
		{"Connection alone", "1.1", page + key + "Connection: Upgrade\r\n", true,
			"without the header Upgrade:", "HTTP/1.0"},
		{"Upgrade alone", "1.1", page + key + "Upgrade: websocket\r\nConnection: keep-alive\r\n", true,
			"without the header Connection:", "HTTP/1.0"},
		{"another Upgrade", "1.1", page + key + "Upgrade: h2c\r\nConnection: Upgrade\r\n", true,
			"without the header Upgrade:", "HTTP/1.0"},
		{"all of it by HTTP/1.0", "1.0", page + key + "Upgrade: websocket\r\nConnection: Upgrade\r\n", true,
			"HTTP/1.0", "HTTP/2"},
		{"no handshake", "1.1", page, false, "this address speaks WebSocket", "proxy"},
		{"no handshake from another site", "1.1", "Sec-Fetch-Site: cross-site\r\n", false,
			"this address speaks WebSocket", "proxy"},
	} {
		for _, path := range []string{"/poll/ws", "/poll/ws?topics=a", "/poll"} {
			if path == "/poll" && !c.shared {
				continue
			}
			t.Run(c.name+" "+path, func(t *testing.T) {
				a := s.ask(t, fmt.Sprintf("GET %s HTTP/%s\r\nHost: 127.0.0.1:8080\r\n%s\r\n", path, c.proto, c.header))
				if a.status != http.StatusUpgradeRequired || a.code(t) != "not-websocket" ||
					a.header.Get("Upgrade") != "websocket" {
					t.Fatalf("%d %v %s", a.status, a.header, a.body)
				}
				checkAlways(t, a)
				if said := a.message(t); !strings.Contains(said, c.says) || strings.Contains(said, c.silent) {
					t.Errorf("%q; want %q in it and not %q", said, c.says, c.silent)
				}
				if a.header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("a page of another origin may read it: %v", a.header)
				}
			})
		}
	}
	if said := log.String(); !strings.Contains(said, "code=not-websocket") || !strings.Contains(said, "HTTP/1.0") {
		t.Errorf("the log does not say so:\n%s", said)
	}
	if n := s.Stats().Clients; n != 0 {
		t.Errorf("%d clients were registered", n)
	}
	// Otherwise nothing is as it was before: a whole handshake of another origin is refused for its origin.
	a := s.ask(t, "GET /poll/ws HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"+page+key+
		"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	if a.status != http.StatusForbidden || a.code(t) != "origin" {
		t.Errorf("a whole handshake: %d %s", a.status, a.body)
	}
}

// With TrustForwarded, and never without, the last proxy's word says where browsers find this server.
func TestTrustForwarded(t *testing.T) {
	const page = "https://app.example:8443"
	for _, c := range []struct {
		name           string
		origin         string
		header         []string // beside Host: inner:8080
		trusted, plain bool     // whether the page may read with the setting and without it
	}{
		{"nothing", page, nil, false, false},
		{"nothing, Host as it came", "http://inner:8080", nil, true, true},
		{"X-Forwarded-Host", page, []string{"X-Forwarded-Host", "app.example:8443"}, true, false},
		{"X-Forwarded-Host in upper case", page, []string{"X-Forwarded-Host", "APP.example:8443"}, true, false},
		{"X-Forwarded-Host counts in place of Host", "http://inner:8080",
			[]string{"X-Forwarded-Host", "app.example:8443"}, false, true},
		{"X-Forwarded-Host without the port", page, []string{"X-Forwarded-Host", "app.example"}, false, false},
		{"the scheme's own port", "https://app.example", []string{"X-Forwarded-Host", "app.example:443"}, true, false},
		{"the other scheme's port", "https://app.example", []string{"X-Forwarded-Host", "app.example:80"}, false, false},
		{"either scheme", "http://app.example:8443", []string{"X-Forwarded-Host", "app.example:8443"}, true, false},
		{"an IPv6 address", "https://[2001:db8::1]:8443",
			[]string{"X-Forwarded-Host", "[2001:db8::1]:8443", "X-Forwarded-Proto", "https"}, true, false},
		{"the right scheme", page, []string{"X-Forwarded-Host", "app.example:8443", "X-Forwarded-Proto", "https"},
			true, false},
		{"the wrong scheme", "http://app.example:8443",
			[]string{"X-Forwarded-Host", "app.example:8443", "X-Forwarded-Proto", "https"}, false, false},
		{"the other wrong scheme", page, []string{"X-Forwarded-Host", "app.example:8443", "X-Forwarded-Proto", "http"},
			false, false},
		{"wss, as Traefik says", page, []string{"X-Forwarded-Host", "app.example:8443", "X-Forwarded-Proto", "wss"},
			true, false},
		{"ws is not https", page, []string{"X-Forwarded-Host", "app.example:8443", "X-Forwarded-Proto", "ws"},
			false, false},
		{"no scheme of the web", page, []string{"X-Forwarded-Host", "app.example:8443", "X-Forwarded-Proto", "ftp"},
			false, false},
		{"the scheme alone", "https://inner:8080", []string{"X-Forwarded-Proto", "https"}, true, true},
		{"the scheme alone, another one", "http://inner:8080", []string{"X-Forwarded-Proto", "https"}, false, true},
		{"the client forges the first", page, []string{"X-Forwarded-Host", "app.example:8443, shop.example"}, false, false},
		{"the last counts", page, []string{"X-Forwarded-Host", "shop.example, app.example:8443"}, true, false},
		{"the last line counts", page,
			[]string{"X-Forwarded-Host", "shop.example", "X-Forwarded-Host", "app.example:8443"}, true, false},
		{"an empty end is none", page, []string{"X-Forwarded-Host", "app.example:8443, ,", "X-Forwarded-Host", ""},
			true, false},
		{"an empty header is none", "http://inner:8080", []string{"X-Forwarded-Host", "", "Forwarded", ""}, true, true},

		{"Forwarded", page, []string{"Forwarded", `for=192.0.2.60;proto=https;host="app.example:8443";by=203.0.113.43`},
			true, false},
		{"Forwarded without quotes", page, []string{"Forwarded", `Proto=HTTPS; Host=app.example:8443`}, true, false},
		{"Forwarded with a quoted pair", page, []string{"Forwarded", `host="app\.example\:8443"`}, true, false},
		{"Forwarded: the scheme", "http://app.example:8443", []string{"Forwarded", `host="app.example:8443";proto=https`},
			false, false},
		{"Forwarded: the last", page, []string{"Forwarded", `host=shop.example, host="app.example:8443";proto=https`},
			true, false},
		{"Forwarded: the first is forged", page, []string{"Forwarded", `host="app.example:8443", host=shop.example`},
			false, false},
		{"Forwarded: the last has no host", page, []string{"Forwarded", `host="app.example:8443", for=192.0.2.60`},
			false, false},
		{"Forwarded: a comma in quotes", page, []string{"Forwarded", `host=shop.example;for="_a, host=b";proto=https`},
			false, false},
		{"Forwarded: the last line", page,
			[]string{"Forwarded", `host=shop.example`, "Forwarded", `host="app.example:8443"`},
			true, false},
		{"Forwarded: twice in one element", page,
			[]string{"Forwarded", `host="app.example:8443";host="app.example:8443"`}, false, false},
		{"Forwarded: open quotes before the last", page, []string{"Forwarded", `for="_x, host="app.example:8443"`},
			false, false},
		{"Forwarded: no pair", page, []string{"Forwarded", `app.example:8443`}, false, false},
		{"Forwarded is broken, Host is right", "http://inner:8080", []string{"Forwarded", `for="`}, false, true},

		{"both say the same", page, []string{"Forwarded", `host="app.example:8443";proto=https`,
			"X-Forwarded-Host", "app.example:8443", "X-Forwarded-Proto", "https"}, true, false},
		{"they contradict each other", page, []string{"Forwarded", `host=shop.example`,
			"X-Forwarded-Host", "app.example:8443"}, false, false},
		{"they contradict each other, the other way", page, []string{"Forwarded", `host="app.example:8443"`,
			"X-Forwarded-Host", "shop.example"}, false, false},
		{"they contradict each other on the scheme", page, []string{"Forwarded", `host="app.example:8443";proto=http`,
			"X-Forwarded-Proto", "https"}, false, false},
		{"each says one thing", page, []string{"Forwarded", `proto=https`, "X-Forwarded-Host", "app.example:8443"},
			true, false},

		{"what is no host", "https://evil.example", []string{"X-Forwarded-Host", "evil.example/x"}, false, false},
		{"null", "null", []string{"X-Forwarded-Host", "null"}, false, false},
		{"an address in the user's place", "https://app.example@evil.example",
			[]string{"X-Forwarded-Host", "app.example@evil.example"}, false, false},
	} {
		for trust, allowed := range map[bool]bool{true: c.trusted, false: c.plain} {
			t.Run(fmt.Sprintf("%s, trusted %v", c.name, trust), func(t *testing.T) {
				s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.TrustForwarded = trust }})
				header := append([]string{"Host", "inner:8080", "Origin", c.origin}, c.header...)
				a := s.get(t, "/poll", header...)
				if (a.status == http.StatusOK) != allowed || !allowed && a.code(t) != "origin" {
					t.Errorf("poll: %d %s, allowed should be %v", a.status, a.body, allowed)
				}
				if a.header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("the page is one of another server: %v", a.header)
				}
				ws, a, err := s.trySocket(t, "/poll/ws", "", header...)
				if (err == nil) != allowed || !allowed && a.status != http.StatusForbidden {
					t.Errorf("WebSocket: %d %v, allowed should be %v", a.status, err, allowed)
				}
				if ws != nil {
					ws.CloseNow()
				}
				if allowed {
					s.events(t, "/poll/events", header...).close()
				} else if a := s.get(t, "/poll/events", header...); a.status != http.StatusForbidden {
					t.Errorf("SSE: %d %s", a.status, a.body)
				}
			})
		}
	}
}

// Over TLS the word of a proxy says which scheme browsers use, and PublicOrigin leaves no room for it.
func TestTrustForwardedBesideOtherSettings(t *testing.T) {
	s := start(t, setup{tls: true, broadcaster: func(b *gpoll.Broadcaster) { b.TrustForwarded = true }})
	for proto, status := range map[string]int{"": 403, "http": 200, "https": 403} {
		header := []string{"X-Forwarded-Host", "app.example", "Origin", "http://app.example"}
		if proto != "" {
			header = append(header, "X-Forwarded-Proto", proto)
		}
		if a := s.get(t, "/poll", header...); a.status != status {
			t.Errorf("over TLS, X-Forwarded-Proto %q: %d %s", proto, a.status, a.body)
		}
	}
	s = start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.TrustForwarded, b.PublicOrigin = true, "https://public.example"
		b.AllowedOrigins = []string{"https://partner.test"}
	}})
	for origin, status := range map[string]int{
		"https://public.example": 200, "https://partner.test": 200, "https://app.example": 403,
	} {
		if a := s.get(t, "/poll", "X-Forwarded-Host", "app.example", "Origin", origin); a.status != status {
			t.Errorf("with PublicOrigin, Origin %s: %d %s", origin, a.status, a.body)
		}
	}
}

// "Why do I get 403": the answer and the log say which header is not what, and what to do.
func TestOriginRefusalSaysWhy(t *testing.T) {
	trust := func(b *gpoll.Broadcaster) { b.TrustForwarded = true }
	for _, c := range []struct {
		name   string
		set    func(*gpoll.Broadcaster)
		tls    bool
		header []string
		says   []string
	}{
		{name: "nginx drops the port", header: []string{"Host", "app.example", "Origin", "http://app.example:8000"},
			says: []string{"Origin http://app.example:8000 is not Host app.example:", "with its port", "AllowedOrigins",
				"PublicOrigin", "TrustForwarded"}},
		{name: "nginx puts its upstream", header: []string{"Host", "127.0.0.1:8080", "Origin", "https://app.example"},
			says: []string{"Origin https://app.example is not Host 127.0.0.1:8080:"}},
		{name: "PublicOrigin", set: func(b *gpoll.Broadcaster) { b.PublicOrigin = "https://public.example" },
			header: []string{"Origin", "https://app.example"},
			says:   []string{"Origin https://app.example is not this server's PublicOrigin https://public.example;"}},
		{name: "X-Forwarded-Host", set: trust,
			header: []string{"Origin", "https://a.example", "X-Forwarded-Host", "B.example"},
			says:   []string{"Origin https://a.example is not X-Forwarded-Host b.example:", "with its port"}},
		{name: "Forwarded", set: trust, header: []string{"Origin", "https://a.example", "Forwarded", "host=b.example"},
			says: []string{"Origin https://a.example is not Forwarded b.example:"}},
		{name: "neither of them came", set: trust, header: []string{"Origin", "https://a.example", "Host", "b.example"},
			says: []string{"Origin https://a.example is not Host b.example:", "as X-Forwarded-Host or in Forwarded"}},
		{name: "the scheme", set: trust,
			header: []string{"Origin", "http://a.example", "X-Forwarded-Host", "a.example", "X-Forwarded-Proto", "https"},
			says:   []string{"Origin http://a.example has another scheme than X-Forwarded-Proto says"}},
		{name: "the scheme in Forwarded", set: trust,
			header: []string{"Origin", "http://a.example", "Forwarded", "host=a.example;proto=https"},
			says:   []string{"Origin http://a.example has another scheme than Forwarded says"}},
		{name: "TLS", tls: true, header: []string{"Origin", "http://a.example", "Host", "a.example"},
			says: []string{"Origin http://a.example is http, and this connection has TLS"}},
		{name: "they contradict each other", set: trust,
			header: []string{"Origin", "http://a.example", "X-Forwarded-Host", "a.example", "Forwarded", "host=b.example"},
			says:   []string{"Forwarded says host=b.example and X-Forwarded-Host says a.example", "remove the one"}},
		{name: "an odd scheme", set: trust, header: []string{"Origin", "http://a.example", "X-Forwarded-Proto", "gopher"},
			says: []string{"X-Forwarded-Proto says gopher", "http or https"}},
		{name: "a broken one", set: trust, header: []string{"Origin", "http://a.example", "Forwarded", `host="`},
			says: []string{"RFC 7239"}},
		{name: "no Origin", header: []string{"Sec-Fetch-Site", "cross-site"},
			says: []string{"no Origin", "Sec-Fetch-Site is cross-site", "AllowedOrigins"}},
		{name: "two", header: []string{"Origin", "http://a.example", "Origin", "http://b.example"},
			says: []string{"Origin is there more than once"}},
		{name: "null", header: []string{"Origin", "null", "Host", "a.example"},
			says: []string{"Origin null is not Host a.example"}},
		{name: "a long one", header: []string{"Origin", "http://" + strings.Repeat("a", 5000)},
			says: []string{"aaa… is not Host"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log lockedBuffer
			s := start(t, setup{tls: c.tls, broadcaster: func(b *gpoll.Broadcaster) {
				b.Logger = slog.New(slog.NewTextHandler(&log, nil))
				if c.set != nil {
					c.set(b)
				}
			}})
			for _, by := range gets {
				if c.tls && strings.HasPrefix(by.name, "websocket") {
					continue // over HTTP/2 there is none
				}
				a := s.get(t, by.path, append(c.header, by.header...)...)
				if a.status != http.StatusForbidden || a.code(t) != "origin" {
					t.Fatalf("%s: %d %s", by.name, a.status, a.body)
				}
				said := a.message(t)
				for _, want := range c.says {
					if !strings.Contains(said, want) {
						t.Errorf("%s: %q is not in %q", by.name, want, said)
					}
				}
				if !strings.Contains(log.String(), said) {
					t.Errorf("%s: the log does not say so:\n%s", by.name, log.String())
				}
				if len(said) > 700 {
					t.Errorf("%s: %d bytes", by.name, len(said))
				}
			}
		})
	}
}
