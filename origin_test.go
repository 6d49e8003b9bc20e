package gpoll_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// Which pages may read from another origin, and which headers of CORS they get (docs/protocol.md, section 13).

const tricked = "app.example:8443" // the Host of every request below

// refusedOrigins are not the origin of http(s)://app.example:8443 nor in AllowedOrigins, whatever they look like.
var refusedOrigins = []string{
	"null", "NULL", "Null", "*", "-", "undefined", "about:blank", "file://", "file:///", "data:",
	"blob:https://app.example:8443",
	"http://", "https://", "https:///", "https://:8443", "://app.example:8443", "//app.example:8443",
	"app.example:8443", "app.example",
	"https://app.example", "http://app.example", "https://app.example:443", "http://app.example:80",
	"https://app.example:8444", "https://app.example:844", "https://app.example:84430",
	"https://app.example:08443", "https://app.example:8443:8443", "https://app.example:", "https://app.example:x",
	"https://evil.example", "https://evil.example:8443", "http://evil.example:8443",
	"https://evilapp.example:8443", "https://evil.app.example:8443", "https://www.app.example:8443",
	"https://pp.example:8443", "https://example:8443",
	"https://app.example.evil.example:8443", "https://app.example:8443.evil.example",
	"https://app.example:8443.evil.example:8443", "https://app.examplex:8443", "https://app.exampl:8443",
	"https://app.example.:8443", "https://.app.example:8443", "https://app..example:8443",
	"https://app.example%2e:8443", "https://app%2eexample:8443",
	"https://app.example:8443@evil.example", "https://user@app.example:8443", "https://user:pw@app.example:8443",
	"https://@app.example:8443", "https://evil.example@app.example:8443",
	"https://app.example:8443/", "https://app.example:8443/x", "https://app.example:8443?",
	"https://app.example:8443?x", "https://app.example:8443#", "https://app.example:8443#x", "https://app.example:8443\\",
	"ws://app.example:8443", "wss://app.example:8443", "ftp://app.example:8443", "chrome-extension://app.example:8443",
	"httpss://app.example:8443", "xhttps://app.example:8443", "http:app.example:8443", "https:/app.example:8443",
	"https://app_example:8443", "https://аpp.example:8443", "https://xn--pp-6kc.example:8443",
	"https://app.example\u200b:8443",
	"https://app.example:8443 https://evil.example", "https://evil.example https://app.example:8443",
	"https://app.example:8443, https://evil.example", "https://app.example:8443,https://app.example:8443",
	"https://127.0.0.1:8443", "https://localhost:8443", "https://[::1]:8443", "https://app.example:8443:443",
	"https://partner.example", "http://partner.test", "https://partner.test:8443", "https://partner.test.",
	"https://sub.partner.test", "https://partner.test/", "https://xpartner.test", "https://partner.tes",
	"https://partner.test:443x",
}

func TestForeignOrigin(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.AllowedOrigins = []string{"https://partner.test"} }})
	id, _ := s.register(t)
	s.Send("secret")
	if len(refusedOrigins) < 60 {
		t.Errorf("only %d origins", len(refusedOrigins))
	}
	refused := func(t *testing.T, what string, a answer) {
		t.Helper()
		if a.status != http.StatusForbidden || a.code(t) != "origin" {
			t.Errorf("%s: %d %s, want 403 origin", what, a.status, a.body)
		}
		checkAlways(t, a)
		for name := range a.header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: the refusal carries %s", what, name)
			}
		}
	}
	for _, by := range gets {
		t.Run(by.name, func(t *testing.T) {
			for _, origin := range refusedOrigins {
				header := append([]string{"Host", tricked, "Origin", origin}, by.header...)
				refused(t, "Origin "+origin, s.get(t, by.path+query("client-id", id), header...))
				refused(t, "Origin "+origin+" to register", s.get(t, by.path, header...))
			}
			refused(t, "two origins",
				s.get(t, by.path, append([]string{"Host", tricked, "Origin", "https://" + tricked, "Origin",
					"https://evil.example"}, by.header...)...))
			refused(t, "two origins",
				s.get(t, by.path, append([]string{"Host", tricked, "Origin", "https://evil.example", "Origin",
					"https://" + tricked}, by.header...)...))
		})
	}
	t.Run("post", func(t *testing.T) {
		for _, origin := range refusedOrigins {
			for _, path := range []string{"/poll", "/poll/events"} {
				refused(t, "Origin "+origin, s.post(t, path, id, "{}", "Host", tricked, "Origin", origin))
			}
		}
	})
	if st := s.Stats(); st.Clients != 1 || st.Delivered != 0 {
		t.Errorf("%d clients, %d delivered; want 1 and 0", st.Clients, st.Delivered)
	}
	if a := s.get(t, "/poll"+query("client-id", id)); a.body != "secret" {
		t.Errorf("the owner gets %d %q", a.status, a.body)
	}
}

func TestAllowedOrigin(t *testing.T) {
	type rule struct {
		host, origin   string
		public         string
		allowed, cross bool
	}
	for _, c := range []rule{
		{host: tricked, origin: "https://" + tricked, allowed: true}, // a proxy may end TLS
		{host: tricked, origin: "http://" + tricked, allowed: true},
		{host: "app.example", origin: "https://app.example", allowed: true},
		{host: "app.example", origin: "http://app.example", allowed: true},
		{host: "app.example", origin: "http://app.example:8080"},
		{host: "app.example", origin: "https://app.example:80"},
		{host: "app.example", origin: "http://app.example:443"},
		{host: "[::1]:8443", origin: "https://[::1]:8443", allowed: true},
		{host: "[::1]:8443", origin: "https://[::2]:8443"},
		{host: tricked, origin: "https://partner.test", allowed: true, cross: true},
		{host: tricked, origin: "https://port.test:8443", allowed: true, cross: true},
		{host: tricked, origin: "https://port.test"},
		{host: "inner:8080", public: "https://public.example", origin: "https://public.example", allowed: true},
		{host: "inner:8080", public: "https://public.example", origin: "http://public.example"},
		{host: "inner:8080", public: "https://public.example", origin: "https://public.example:8443"},
		{host: "inner:8080", public: "https://public.example", origin: "http://inner:8080"},
		{host: "inner:8080", public: "https://public.example", origin: "https://partner.test", allowed: true, cross: true},
	} {
		t.Run(c.origin+" at "+c.host+" public "+c.public, func(t *testing.T) {
			s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
				b.AllowedOrigins = []string{"https://partner.test", "https://port.test:8443"}
				b.PublicOrigin = c.public
			}})
			header := []string{"Host", c.host, "Origin", c.origin}
			id, _ := s.register(t)
			s.Send("m")
			check := func(what string, h http.Header) {
				t.Helper()
				want := ""
				if c.cross {
					want = c.origin
				}
				if got := h.Get("Access-Control-Allow-Origin"); got != want {
					t.Errorf("%s: Access-Control-Allow-Origin %q, want %q", what, got, want)
				}
				if c.cross {
					exposed := h.Get("Access-Control-Expose-Headers")
					for _, name := range []string{"Gpoll-Position", "Gpoll-Gap", "Gpoll-Error"} {
						if !strings.Contains(exposed, name) {
							t.Errorf("%s: Access-Control-Expose-Headers %q lacks %s", what, exposed, name)
						}
					}
				}
			}
			a := s.get(t, "/poll"+query("client-id", id), header...)
			if (a.status == http.StatusOK && a.body == "m") != c.allowed || !c.allowed && a.status != http.StatusForbidden {
				t.Errorf("poll: %d %s, allowed should be %v", a.status, a.body, c.allowed)
			}
			if c.allowed {
				check("poll", a.header)
				check("an error", s.get(t, "/poll?client-id=x", header...).header)
				e := s.events(t, "/poll/events", header...)
				check("SSE", e.resp.Header)
				e.close()
			}
			ws, wa, err := s.trySocket(t, "/poll/ws", "", header...)
			if (err == nil) != c.allowed || !c.allowed && wa.status != http.StatusForbidden {
				t.Errorf("WebSocket: %d %v, allowed should be %v", wa.status, err, c.allowed)
			}
			if ws != nil {
				ws.CloseNow()
			}
		})
	}
}

// A request without Origin: browsers omit it on a same-origin GET, and say Sec-Fetch-Site.
func TestAbsentOrigin(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.PollWait = time.Millisecond }})
	for site, allowed := range map[string]bool{
		"": true, "same-origin": true, "none": true,
		"cross-site": false, "same-site": false, "Cross-Site": false, "SAME-SITE": false, "x": false,
		"same-origin, cross-site": false, "same-origin cross-site": false,
	} {
		for _, by := range gets {
			if strings.HasPrefix(by.name, "sse") && allowed {
				continue // a stream without end: below
			}
			header := by.header
			if site != "" {
				header = append([]string{"Sec-Fetch-Site", site}, header...)
			}
			a := answer{status: http.StatusOK}
			if strings.HasPrefix(by.name, "websocket") {
				c, wa, err := s.trySocket(t, by.path, "", dropHandshake(header)...)
				if a = wa; err == nil {
					c.CloseNow()
					a.status = http.StatusOK
				}
			} else {
				a = s.get(t, by.path, header...)
			}
			if ok := a.status == http.StatusOK; ok != allowed ||
				!ok && (a.status != http.StatusForbidden || a.code(t) != "origin") {
				t.Errorf("%s with Sec-Fetch-Site %q: %d %s, allowed should be %v", by.name, site, a.status, a.body, allowed)
			}
		}
		if allowed {
			var header []string
			if site != "" {
				header = []string{"Sec-Fetch-Site", site}
			}
			s.events(t, "/poll/events", header...).close()
		}
	}
}

// dropHandshake leaves the WebSocket handshake to the dialler.
func dropHandshake(header []string) []string {
	var rest []string
	for i := 0; i < len(header); i += 2 {
		if !slices.Contains(wsHandshake, header[i]) {
			rest = append(rest, header[i], header[i+1])
		}
	}
	return rest
}

// A WebSocket without Origin comes from no browser: its cookies count for nothing, a header of its own does.
func TestSocketWithoutOriginHasNoCookies(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
			if c, err := r.Cookie("session"); err == nil && c.Value == "alice" {
				return gpoll.Grant{User: "alice"}, nil
			}
			if r.Header.Get("Authorization") == "Bearer alice" {
				return gpoll.Grant{User: "alice"}, nil
			}
			return gpoll.Grant{}, errors.New("who are you?")
		}
	}})
	for _, c := range []struct {
		name   string
		header []string
		status int // of the WebSocket
		poll   int
	}{
		{"nothing", nil, 401, 401},
		{"cookie without Origin", []string{"Cookie", "session=alice"}, 401, 200},
		{"cookie without Origin, same-origin", []string{"Cookie", "session=alice", "Sec-Fetch-Site", "same-origin"},
			401, 200},
		{"cookie with the same Origin", []string{"Cookie", "session=alice", "Origin", s.url}, 101, 200},
		{"cookie with a foreign Origin", []string{"Cookie", "session=alice", "Origin", "https://evil.example"}, 403, 403},
		{"header without Origin", []string{"Authorization", "Bearer alice"}, 101, 200},
		{"wrong header beside the cookie", []string{"Authorization", "Bearer bob", "Cookie", "session=alice"}, 401, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			ws, a, err := s.trySocket(t, "/poll/ws", "", c.header...)
			if err == nil {
				ws.CloseNow()
			}
			if a.status != c.status {
				t.Errorf("WebSocket: %d %s, want %d", a.status, a.body, c.status)
			}
			if a := s.get(t, "/poll", c.header...); a.status != c.poll {
				t.Errorf("poll: %d %s, want %d", a.status, a.body, c.poll)
			}
		})
	}
}

func TestPreflight(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.AllowedOrigins = []string{"https://partner.test"} }})
	preflight := func(path, origin, method, headers string) answer {
		r := s.request(t, t.Context(), path, "Host", tricked, "Access-Control-Request-Method", method, "Sec-Fetch-Site",
			"cross-site")
		r.Method = http.MethodOptions
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if headers != "" {
			r.Header.Set("Access-Control-Request-Headers", headers)
		}
		return s.do(t, r)
	}
	for _, path := range []string{"/poll", "/poll/events"} {
		fixed := ""
		for _, headers := range []string{"", "gpoll-client-id", "content-type,gpoll-client-id,authorization", "x-evil", "*"} {
			a := preflight(path, "https://partner.test", "POST", headers)
			if a.status != http.StatusNoContent && a.status != http.StatusOK {
				t.Errorf("%s: preflight %d %s", path, a.status, a.body)
			}
			checkAlways(t, a)
			if got := a.header.Get("Access-Control-Allow-Origin"); got != "https://partner.test" {
				t.Errorf("%s: Access-Control-Allow-Origin %q", path, got)
			}
			allow := strings.ToLower(a.header.Get("Access-Control-Allow-Headers"))
			for _, name := range []string{"content-type", "gpoll-client-id", "authorization"} {
				if !strings.Contains(allow, name) {
					t.Errorf("%s: Access-Control-Allow-Headers %q lacks %s", path, allow, name)
				}
			}
			if !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "POST") {
				t.Errorf("%s: Access-Control-Allow-Methods %q", path, a.header.Get("Access-Control-Allow-Methods"))
			}
			if fixed == "" {
				fixed = allow
			}
			if allow != fixed || strings.Contains(allow, "evil") || strings.Contains(allow, "*") {
				t.Errorf("%s: the list of headers %q follows what was asked", path, allow)
			}
		}
		for _, origin := range append([]string{"", "https://" + tricked + "."}, refusedOrigins...) {
			a := preflight(path, origin, "POST", "gpoll-client-id")
			for name := range a.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s: preflight of Origin %q is answered with %s", path, origin, name)
				}
			}
			checkAlways(t, a)
			if a.status < 400 && origin != "" {
				t.Errorf("%s: preflight of Origin %q: %d", path, origin, a.status)
			}
		}
	}
}

// checkAlways checks what stands on every answer.
func checkAlways(t testing.TB, a answer) {
	t.Helper()
	for name, want := range map[string]string{
		"Cache-Control":          "no-store",
		"X-Content-Type-Options": "nosniff",
		"Referrer-Policy":        "no-referrer",
	} {
		if got := a.header.Values(name); len(got) != 1 ||
			got[0] != want && !(name == "Cache-Control" && strings.Contains(got[0], want)) {
			t.Errorf("status %d: %s is %q, want %q", a.status, name, got, want)
		}
	}
	vary := strings.Join(a.header.Values("Vary"), ", ")
	for _, name := range []string{"Origin", "Gpoll-Client-Id"} {
		if !strings.Contains(vary, name) {
			t.Errorf("status %d: Vary is %q, it lacks %s", a.status, vary, name)
		}
	}
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.PollWait = time.Millisecond
		b.AllowedOrigins = []string{"https://partner.test"}
	}})
	id, after := s.register(t)
	s.Send("m")
	for _, origin := range []string{"", "https://partner.test", "https://evil.example"} {
		var header []string
		if origin != "" {
			header = []string{"Origin", origin}
		}
		for _, path := range []string{
			"/poll", "/poll?client-id=0", "/poll" + query("client-id", id),
			"/poll" + query("client-id", id, "after", after), "/poll" + query("client-id", id, "format", "json"),
			"/poll" + query("client-id", id, "topic", "quiet"), "/poll?client-id=x", "/poll?after=x", "/poll?topic=%00",
			"/poll?" + strings.Repeat("x", 3000), "/poll/ws", "/poll/events?client-id=x",
		} {
			for _, method := range []string{"GET", "POST", "PUT", "HEAD", "OPTIONS"} {
				r := s.request(t, t.Context(), path, header...)
				r.Method = method
				resp, err := s.client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				checkAlways(t, answer{resp.StatusCode, resp.Header, string(body)})
			}
		}
		if origin != "https://evil.example" {
			e := s.events(t, "/poll/events", header...)
			checkAlways(t, answer{200, e.resp.Header, ""})
			if e.resp.Header.Get("X-Accel-Buffering") != "no" {
				t.Errorf("SSE: X-Accel-Buffering %q", e.resp.Header.Get("X-Accel-Buffering"))
			}
			e.close()
			c, a, err := s.trySocket(t, "/poll/ws", "", header...)
			if err != nil {
				t.Fatal(err)
			}
			checkAlways(t, a)
			c.CloseNow()
		}
	}
}

// mayRead is the rule of section 13 in a few lines, for origins as browsers spell them. FuzzOrigin compares with it.
func mayRead(origins, sites []string, host, public string, allowed []string) bool {
	if len(origins) == 0 {
		return len(sites) == 0 || len(sites) == 1 && (sites[0] == "" || sites[0] == "same-origin" || sites[0] == "none")
	}
	if len(origins) > 1 {
		return false
	}
	origin := origins[0]
	if slices.Contains(allowed, origin) {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || origin != u.Scheme+"://"+u.Host {
		return false
	}
	if public != "" {
		return origin == public
	}
	return u.Host == host
}
