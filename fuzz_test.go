package gpoll_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

var clientIDForm = regexp.MustCompile(
	`^(0|[1-9][0-9]{0,5})\$[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// FuzzClientID sends anything as a client id. The answer is that the id is unknown, unless the server gave that id out.
// Only "0" and "" register. Every id that the server gives out follows the grammar.
func FuzzClientID(f *testing.F) {
	for _, id := range strangeIDs("0$6ba7b811-9dad-41d1-80b4-00c04fd430c8") {
		f.Add(id, false)
		f.Add(id, true)
	}
	b := gpoll.NewBroadcaster()
	b.RegisterRate, b.MaxClients = -1, 1<<30
	f.Cleanup(func() { shutdown(f, b) })
	f.Fuzz(func(t *testing.T, id string, inHeader bool) {
		r := httptest.NewRequest(http.MethodGet, "/poll", nil)
		if inHeader {
			r.Header.Set("Gpoll-Client-Id", id)
		} else {
			r.URL.RawQuery = url.Values{"client-id": {id}}.Encode()
		}
		w := httptest.NewRecorder()
		b.HandleRequests(w, r)
		switch {
		case id == "0" || id == "":
			given := idOf(t, w.Body.String())
			if w.Code != http.StatusOK || !clientIDForm.MatchString(given) {
				t.Fatalf("id %q: %d %s", id, w.Code, w.Body)
			}
			if !b.RemoveClient(given) {
				t.Fatalf("the id %q that was given out is not known", given)
			}
		case len(r.URL.RawQuery) > 2048:
			if w.Code != http.StatusRequestURITooLong {
				t.Fatalf("id %q: %d %s", id, w.Code, w.Body)
			}
		default:
			if w.Code != http.StatusNotFound || w.Header().Get("Gpoll-Error") != "unknown-client" {
				t.Fatalf("id %q: %d %s", id, w.Code, w.Body)
			}
		}
		if client, ok := b.Client(id); ok {
			t.Fatalf("Client(%q) is %v", id, client.PublicID())
		}
		if b.RemoveClient(id) {
			t.Fatalf("RemoveClient(%q) removed something", id)
		}
		if public := gpoll.PublicID(id); clientIDForm.MatchString(id) {
			_, uuid, _ := strings.Cut(id, "$")
			if public != gpoll.PublicID(uuid) {
				t.Fatalf("PublicID of %q and of its uuid differ", id)
			}
		}
	})
}

var positionForm = regexp.MustCompile(`^[0-9a-f]{16}-(0|[1-9][0-9]{0,19})$`)

// FuzzPosition: ParsePosition accepts exactly the grammar, up to the largest seq, and String is its inverse.
func FuzzPosition(f *testing.F) {
	for _, s := range []string{
		"", "-", "9f86d081884c7d65-41", "9f86d081884c7d65-0", "0000000000000000-0",
		"ffffffffffffffff-18446744073709551615", "ffffffffffffffff-18446744073709551616",
		"ffffffffffffffff-9007199254740991", "ffffffffffffffff-9007199254740992",
		"9F86d081884c7d65-41", "9f86d081884c7d65-041", "9f86d081884c7d65-+1", "9f86d081884c7d65--1",
		"9f86d081884c7d65-1e3", "9f86d081884c7d6-41", "9f86d081884c7d655-41",
		"9f86d081884c7d65 41", "9f86d081884c7d65-99999999999999999999", "9f86d081884c7d65-4\x00",
		"9f86d081884c7d65-41 ", "g f86d081884c7d6-41",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := gpoll.ParsePosition(s)
		want := positionForm.MatchString(s)
		if want {
			seq, err := strconv.ParseUint(s[17:], 10, 64)
			want = err == nil && seq <= maxSeq
		}
		if (err == nil) != want {
			t.Fatalf("ParsePosition(%q) is %v, %v; by the grammar it is good: %v", s, p, err, want)
		}
		if err == nil && p.String() != s {
			t.Fatalf("ParsePosition(%q).String() is %q", s, p)
		}
		if err != nil && !p.IsZero() {
			t.Fatalf("ParsePosition(%q) is %v beside an error", s, p)
		}
	})
}

// statuses are all that the mount ever answers; the codes are those of docs/protocol.md.
var statuses = map[string][]int{
	"":                       {200, 204, 101},
	"unknown-client":         {404},
	"superseded":             {409},
	"shutdown":               {503},
	"too-many-clients":       {503, 429},
	"rate":                   {429},
	"origin":                 {403},
	"unauthorized":           {401},
	"topic-forbidden":        {403},
	"bad-client-id":          {400},
	"bad-position":           {400},
	"bad-topic":              {400},
	"too-many-topics":        {400},
	"bad-request":            {400},
	"body-on-get":            {400},
	"query-too-long":         {414},
	"too-large":              {413},
	"unsupported-media-type": {415},
	"method":                 {405},
	"not-websocket":          {426, 400},
	"closed":                 {503},
	"unsupported":            {400},
	"id-reused":              {400},
	"reply-gone":             {410},
	"too-many-commands":      {400},
	"bad-utf-8":              {400},
}

// FuzzRequest sends a random method, path, raw query, header block and body through the whole mux. The answer is one of
// those documented, carries no-store, is valid JSON if it is an error, and never tells of another client.
func FuzzRequest(f *testing.F) {
	for _, seed := range []struct{ method, path, query, header, body string }{
		{"GET", "/poll", "client-id=0", "", ""},
		{"GET", "/poll", "", "Accept: application/json", ""},
		{"GET", "/poll", "client-id=0&format=json&topic=a&last=5", "", ""},
		{"GET", "/poll", "client-id=OWN&after=9f86d081884c7d65-41&topic=a&topic=b", "", ""},
		{"GET", "/poll", "client-id=OWN&after=NOW", "Gpoll-Client-Id: OWN", ""},
		{"GET", "/poll/events", "topic=a", "Last-Event-ID: NOW", ""},
		{"GET", "/poll", "", "Accept: text/event-stream", ""},
		{"GET", "/poll/ws", "", "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Protocol: gpoll.v1", ""},
		{"GET", "/poll/ws", "client-id=0",
			"Connection: keep-alive, upgrade\nUpgrade: h2c, websocket\nSec-WebSocket-Version: 8", ""},
		{"POST", "/poll", "", "Content-Type: application/json\nGpoll-Client-Id: 0",
			`{"topics":["a"],"last":5,"format":"json"}`},
		{"POST", "/poll/events", "", "Content-Type: application/json; charset=utf-8\nGpoll-Client-Id: OWN",
			`{"after":"NOW"}`},
		{"POST", "/poll", "", "Content-Type: application/json\nGpoll-Client-Id: 0\nContent-Encoding: gzip", "\x1f\x8b"},
		{"POST", "/poll", "after=x", "Content-Type: text/plain", "[[[[[["},
		{"OPTIONS", "/poll", "", "Origin: https://partner.test\nAccess-Control-Request-Method: " +
			"POST\nAccess-Control-Request-Headers: gpoll-client-id", ""},
		{"POST", "/poll/commands", "", "Content-Type: application/json\nGpoll-Client-Id: OWN",
			`[{"send":{"data":"hi"},"id":"1"},{"send":{"data":"ho"},"id":"1"},{"request":{"data64":"/w=="},"id":"2"}]`},
		{"POST", "/poll/commands", "", "Content-Type: application/json\nGpoll-Client-Id: OWN",
			`{"publish":{"topic":"open","data":"hi"}}`},
		{"POST", "/poll/commands", "", "Content-Type: application/json\nGpoll-Client-Id: OWN", `{"leave":true}`},
		{"POST", "/poll/commands", "client-id=OWN", "Content-Type: application/json\nGpoll-Client-Id: 0", `{}`},
		{"GET", "/poll", "", "Origin: null", ""},
		{"GET", "/poll", "", "Sec-Fetch-Site: cross-site", ""},
		{"GET", "/poll", "client-id=0&client-id=1", "", ""},
		{"GET", "/poll", "client-id=0;a=b&%00=%zz", "", ""},
		{"GET", "/poll", strings.Repeat("a=b&", 600), "", ""},
		{"GET", "/poll", "", "Content-Length: 3", "abc"},
		{"HEAD", "/poll", "", "", ""},
		{"BREW", "/poll/ws", "", "", ""},
		{"GET", "/poll/x.css", "", "", ""},
		{"GET", "/poll/../poll", "", "", ""},
		{"GET", "/poll/", "", "", ""},
	} {
		f.Add(seed.method, seed.path, seed.query, seed.header, seed.body)
	}
	f.Fuzz(func(t *testing.T, method, path, rawQuery, header, body string) {
		synctest.Test(t, func(t *testing.T) { fuzzRequest(t, method, path, rawQuery, header, body) })
	})
}

func fuzzRequest(t *testing.T, method, path, rawQuery, header, body string) {
	b := gpoll.NewBroadcaster()
	b.PollWait, b.Heartbeat = time.Second, time.Second
	b.AllowedOrigins = []string{"https://partner.test"}
	hearing(b)
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	defer shutdown(t, b)
	other := httptest.NewRecorder()
	b.HandleRequests(other, httptest.NewRequest(http.MethodGet, "/poll", nil))
	secret := idOf(t, other.Body.String())
	mine := httptest.NewRecorder()
	b.HandleRequests(mine, httptest.NewRequest(http.MethodGet, "/poll", nil))
	own, now := idOf(t, mine.Body.String()), mine.Header().Get("Gpoll-Position")
	forOther := gpoll.Message{To: gpoll.ToClient(gpoll.PublicID(secret)), Data: []byte("for the other")}
	if _, err := b.Publish(t.Context(), forOther); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("OWN", own, "NOW", now).Replace

	r := httptest.NewRequest(http.MethodGet, "/poll", strings.NewReader(fill(body)))
	if body == "" {
		r = httptest.NewRequest(http.MethodGet, "/poll", nil)
	}
	r.Method = cleanMethod(method)
	if !strings.HasPrefix(path, "/") {
		path = "/poll"
	}
	r.URL = &url.URL{Path: path, RawQuery: fill(rawQuery)}
	r.RequestURI = r.URL.RequestURI()
	for line := range strings.SplitSeq(fill(header), "\n") {
		name, value, _ := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); name != "" && validHeaderName(name) {
			r.Header.Add(name, strings.TrimSpace(value))
		}
	}
	// An SSE response goes on until its client leaves.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	near, far := gpolltest.Pipe(0)
	w := hijackable{httptest.NewRecorder(), far}
	begun := time.Now()
	mux.ServeHTTP(w, r.WithContext(ctx))
	synctest.Wait()
	near.Close()
	far.Close()
	synctest.Wait()
	if took := time.Since(begun); took > 4*time.Second {
		t.Fatalf("answered after %v", took)
	}

	if _, pattern := mux.Handler(r); pattern == "" || w.Code >= 300 && w.Code < 400 {
		return // the mux's own answer
	}
	code := w.Header().Get("Gpoll-Error")
	if allowed, known := statuses[code]; !known || !slices.Contains(allowed, w.Code) {
		t.Fatalf("status %d with code %q: %s", w.Code, code, w.Body)
	}
	if cc := w.Header().Get("Cache-Control"); !strings.Contains(cc, "no-store") {
		t.Fatalf("status %d: Cache-Control %q", w.Code, cc)
	}
	if code != "" && r.Method != http.MethodHead {
		answer{w.Code, w.Header(), w.Body.String()}.code(t)
	}
	if w.Code == http.StatusOK && w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
		t.Fatalf("not JSON: %s", w.Body)
	}
	whole := w.Body.String() + headerSet(w.Header())
	_, uuid, _ := strings.Cut(secret, "$")
	if strings.Contains(whole, uuid) || strings.Contains(whole, gpoll.PublicID(secret)) ||
		strings.Contains(whole, "for the other") {
		t.Fatalf("tells of another client: %s", whole)
	}
	if origin := w.Header().Get("Access-Control-Allow-Origin"); origin != "" &&
		(origin != "https://partner.test" || r.Header.Get("Origin") != origin) {
		t.Fatalf("Access-Control-Allow-Origin %q", origin)
	}
	if st := b.Stats(); st.Clients > 3 || st.Attached["long-poll"]+st.Attached["sse"]+st.Attached["websocket"] != 0 {
		t.Fatalf("after one request: %+v", st)
	}
}

// A hijackable recorder has a connection that can be upgraded.
type hijackable struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (w hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.conn, bufio.NewReadWriter(bufio.NewReader(w.conn), bufio.NewWriter(w.conn)), nil
}

func cleanMethod(method string) string {
	for _, c := range method {
		if c <= ' ' || c > '~' || strings.ContainsRune(`()<>@,;:\"/[]?={}`, c) {
			return http.MethodGet
		}
	}
	if method == "" || method == http.MethodConnect {
		return http.MethodGet
	}
	return method
}

// validHeaderName reports what net/http lets through.
func validHeaderName(name string) bool {
	text := "GET / HTTP/1.1\r\nHost: x\r\n" + name + ": v\r\n\r\n"
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	return err == nil && len(r.Header) == 1
}

// FuzzOrigin compares who may read with the small matcher mayRead, through the poll handler.
func FuzzOrigin(f *testing.F) {
	for _, origin := range append([]string{"", "https://app.example:8443", "http://app.example:8443",
		"https://partner.test", "https://app.example"}, refusedOrigins...) {
		f.Add(origin, "", tricked, "")
		f.Add(origin, "cross-site", "app.example", "")
		f.Add(origin, "same-origin", "inner:8080", "https://app.example:8443")
	}
	allowed := []string{"https://partner.test"}
	f.Fuzz(func(t *testing.T, origin, site, host, public string) {
		if public != "" {
			u, err := url.Parse(public)
			if err != nil || u.Scheme != "https" || u.Host == "" || public != "https://"+u.Host || u.Hostname() == "" {
				return // refused where it is set
			}
			public = "https://app.example:8443"
		}
		if strings.ToLower(origin) != origin || strings.ToLower(host) != host || defaultPort(origin) ||
			defaultPort("x://"+host) {
			return // other spellings of one origin: no browser sends them
		}
		b := gpoll.NewBroadcaster()
		b.RegisterRate, b.AllowedOrigins, b.PublicOrigin = -1, allowed, public
		defer shutdown(t, b)
		r := httptest.NewRequest(http.MethodGet, "/poll", nil)
		r.Host = host
		var origins, sites []string
		if origin != "" {
			origins = []string{origin}
			r.Header["Origin"] = origins
		}
		if site != "" {
			sites = []string{site}
			r.Header["Sec-Fetch-Site"] = sites
		}
		w := httptest.NewRecorder()
		b.HandleRequests(w, r)
		if got, want := w.Code == http.StatusOK, mayRead(origins, sites, host, public, allowed); got != want {
			t.Fatalf("Origin %q, Sec-Fetch-Site %q, Host %q, PublicOrigin %q: %d, it may read: %v", origin, site, host,
				public, w.Code, want)
		}
	})
}

// defaultPort reports whether s spells a port that its scheme would imply.
func defaultPort(s string) bool { return strings.HasSuffix(s, ":80") || strings.HasSuffix(s, ":443") }

// TestIDsAreUnique is the other half of FuzzClientID: the ids that the server gives out are random, follow the grammar,
// and never repeat.
func TestIDsAreUnique(t *testing.T) {
	b := gpoll.NewBroadcaster()
	defer shutdown(t, b)
	seen := map[string]bool{}
	for range 5000 {
		id, routine := b.AddClient()
		whole := strconv.Itoa(routine) + "$" + id
		if seen[id] || !clientIDForm.MatchString(whole) || gpoll.PublicID(whole) != gpoll.PublicID(id) ||
			seen[gpoll.PublicID(id)] {
			t.Fatalf("client %q of routine %d", id, routine)
		}
		seen[id], seen[gpoll.PublicID(id)] = true, true
		if u := gpoll.UUID(); seen[u] || !clientIDForm.MatchString("0$"+u) {
			t.Fatalf("UUID() is %q", u)
		}
	}
	if _, err := b.GetChannel("6ba7b811-9dad-41d1-80b4-00c04fd430c8", 0); !errors.Is(err, gpoll.ErrUnknownClient) {
		t.Errorf("GetChannel of an unknown client: %v", err)
	}
}
