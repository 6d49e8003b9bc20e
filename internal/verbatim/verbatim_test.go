package verbatim

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

const poll = "GET /poll?client-id=0%24a&after=9f86d081884c7d65-41&format=json HTTP/1.1\r\nHost: gpoll.test\r\n\r\n"

func parse(text string) (*http.Request, error) {
	return http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
}

func TestRequest(t *testing.T) {
	r, err := parse(poll)
	if err != nil {
		t.Fatal(err)
	}
	q, ok := NewRequest([]byte(poll), r, "after=9f86d081884c7d65-41", 2)
	if !ok {
		t.Fatal("a poll is none")
	}
	if got := string(q.With([]byte("7"))); got != strings.Replace(poll, "-41&", "-7&", 1) {
		t.Errorf("with another number it is %q", got)
	}
	for text, want := range map[string]string{
		poll:                                   "41",
		strings.Replace(poll, "-41", "-", 1):   "",
		strings.Replace(poll, "-41", "-42", 1): "42",
		strings.Replace(poll, "-41", "-4&topic=a", 1): "4&topic=a", // whoever reads the digits refuses them
	} {
		if digits, ok := q.Match([]byte(text)); !ok || string(digits) != want {
			t.Errorf("%q: %q, %v; want %q", text, digits, ok, want)
		}
	}
	for _, text := range []string{
		"", poll[:len(poll)-1], poll + "x", "x" + poll,
		strings.Replace(poll, "9f", "8f", 1),
		strings.Replace(poll, "json", "jsom", 1),
		strings.Replace(poll, "\r\n\r\n", "\r\nA: b\r\n\r\n", 1),
	} {
		if digits, ok := q.Match([]byte(text)); ok {
			t.Errorf("%q is the request, with %q", text, digits)
		}
	}
}

func TestRequestWithoutNumber(t *testing.T) {
	const text = "GET /poll HTTP/1.1\r\nHost: gpoll.test\r\nConnection: Keep-Alive\r\n\r\n"
	r, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	q, ok := NewRequest([]byte(text), r, "", 0)
	if !ok || string(q.With([]byte("7"))) != text {
		t.Fatalf("%v, %q", ok, q.With(nil))
	}
	if digits, ok := q.Match([]byte(text)); !ok || len(digits) > 0 {
		t.Errorf("%q, %v", digits, ok)
	}
	for _, other := range []string{"", text + "1", text[1:], text[:len(text)-1]} {
		if _, ok := q.Match([]byte(other)); ok {
			t.Errorf("%q is the request", other)
		}
	}
}

func TestNewRequestRefuses(t *testing.T) {
	with := func(line string) string { return strings.Replace(poll, "\r\n\r\n", "\r\n"+line+"\r\n\r\n", 1) }
	for _, text := range []string{
		strings.Replace(poll, "GET", "HEAD", 1),
		strings.Replace(poll, "HTTP/1.1", "HTTP/1.0", 1),
		strings.ReplaceAll(poll, "\r\n", "\n"),
		strings.Replace(poll, "&after=", "&%61fter=", 1),
		strings.Replace(poll, "&after=", "&topic=after=", 1),
		strings.Replace(poll, "-41", "-041", 1),
		with("Connection: close"),
		with("Connection: keep-alive, x"),
		with("Connection: keep-alive\r\nConnection: x"),
		with("Content-Length: 0"),
		with("Content-Length: 4") + "body",
		with("Expect: 100-continue"),
		with("Upgrade: h2c"),
		poll + poll,
		poll + "\r\n",
	} {
		r, err := parse(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if _, ok := NewRequest([]byte(text), r, "after=9f86d081884c7d65-41", 2); ok {
			t.Errorf("%q is a request that may come again", text)
		}
	}
	r, err := parse(poll)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(poll, "/poll", "/pull", 1)
	for _, text := range []string{"", poll[1:], other, poll + poll, poll[:len(poll)-2]} {
		if _, ok := NewRequest([]byte(text), r, "", 0); ok {
			t.Errorf("%q is %q", text, poll)
		}
	}
}

// FuzzRequest: a request that is taken is found again, with any number, and net/http reads nothing else from it.
func FuzzRequest(f *testing.F) {
	for _, text := range []string{
		poll, poll + poll, strings.Replace(poll, "&after", "&topic=after", 1), "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		strings.Replace(poll, "Host", "A:\n\nHost", 1), strings.Replace(poll, "?", "?a?", 1),
		strings.Replace(poll, "\r\n", "\r\nAfter: after=9f86d081884c7d65-41\r\n", 1),
	} {
		f.Add([]byte(text), uint64(42))
	}
	const after = "9f86d081884c7d65-41"
	f.Fuzz(func(t *testing.T, text []byte, number uint64) {
		src := bytes.NewReader(text)
		buffered := bufio.NewReader(src)
		r, err := http.ReadRequest(buffered)
		if err != nil {
			return
		}
		varying := ""
		if values := r.URL.Query()["after"]; len(values) == 1 && values[0] == after {
			varying = "after=" + after
		}
		before := bytes.Clone(text)
		q, ok := NewRequest(text, r, varying, 2)
		if !bytes.Equal(text, before) {
			t.Fatal("the text was written to")
		}
		if !ok {
			return
		}
		if left := src.Len() + buffered.Buffered(); left > 0 {
			t.Fatalf("%q is a request and %d bytes more", text, left)
		}
		if digits, ok := q.Match(text); !ok || varying != "" && string(digits) != "41" {
			t.Fatalf("%q is not itself, with %q", text, digits)
		}
		other := q.With([]byte("42"))
		if digits, ok := q.Match(other); !ok || varying != "" && string(digits) != "42" {
			t.Fatalf("%q is not %q, with %q", other, text, digits)
		}
		again, err := parse(string(other))
		if err != nil {
			t.Fatalf("%q cannot be read: %v", other, err)
		}
		want := r.URL.Query()
		if varying != "" {
			want.Set("after", after[:len(after)-1]+"2")
		}
		if got := again.URL.Query(); got.Encode() != want.Encode() || again.URL.Path != r.URL.Path || again.Host != r.Host {
			t.Fatalf("%q asks for %v, want %v", other, again.URL, want)
		}
	})
}

// A Handed knows a request that was read by itself, in however many pieces.
func TestHanded(t *testing.T) {
	var h Handed
	if !h.Fresh() {
		t.Error("a new connection does not begin with a request")
	}
	add := func(pieces ...string) uint32 {
		for _, p := range pieces {
			h.Add([]byte(p))
		}
		if h.Fresh() {
			t.Error("in the midst of a request another one may begin")
		}
		return h.Reads()
	}
	for cut := range len(poll) - len(endOfHead) {
		reads := add(poll[:cut], poll[cut:])
		if got := string(h.Over(reads, true)); got != poll || !h.Fresh() {
			t.Fatalf("cut at %d: %q, fresh %v", cut, got, h.Fresh())
		}
	}
	unknown := func(why string, reads uint32, written bool) {
		t.Helper()
		if got := h.Over(reads, written); got != nil {
			t.Errorf("%s, and the request is %q", why, got)
		}
	}
	unknown("the answer was not written", add(poll), false)
	if h.Fresh() {
		t.Error("after an answer that was not written a request begins")
	}
	unknown("it is not known where the request began", add(poll), true)
	if !h.Fresh() {
		t.Error("a head that was read last is not the request's")
	}
	reads := add(poll)
	add(poll)
	unknown("another request came while the first was answered", reads, true)
	h.Over(add(poll), true)
	unknown("a request before it was no poll", add(poll, poll), true)
	if got := string(h.Over(add(poll), true)); got != poll {
		t.Errorf("afterwards the request is %q", got)
	}
	unknown("the request does not end with its head", add(poll, "x"), true)
	h.Over(add(poll), true)
	unknown("an empty line follows it", add(poll+"\r\n"), true)
	h.Over(add(poll), true)
	unknown("an empty line may follow it", add(poll[:len(poll)-2], endOfHead), true)
	h.Over(add(poll), true)
	unknown("the request is too long", add(strings.Repeat("x", MaxHead), poll), true)
}

// A Written knows a head and the body that is expected, in whatever pieces they are written.
func TestWritten(t *testing.T) {
	const head, body = "HTTP/1.1 200 OK\r\nContent-Length: 5", "hello"
	write := func(pieces ...string) (string, bool) {
		var w Written
		w.Expect(body)
		for _, p := range pieces {
			w.Add([]byte(p))
		}
		return w.Head()
	}
	whole := head + endOfHead + body
	for i := range whole {
		for j := i; j < len(whole); j++ {
			if got, ok := write(whole[:i], whole[i:j], whole[j:]); !ok || got != head {
				t.Fatalf("cut at %d and %d: %q, %v", i, j, got, ok)
			}
		}
		if got, ok := write(whole[:i]); ok {
			t.Errorf("after %d bytes: %q", i, got)
		}
	}
	for _, other := range []string{whole + "x", head + endOfHead + "hellx", head + endOfHead + "x" + body} {
		for i := range other {
			if got, ok := write(other[:i], other[i:]); ok {
				t.Errorf("%q cut at %d: %q", other, i, got)
			}
		}
	}
	long := "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", MaxHead)
	for i := 1; i < len(long); i += 100 {
		if _, ok := write(long[:i], long[i:]+endOfHead+body); ok {
			t.Errorf("a head of %d bytes is kept", len(long))
		}
	}
}

func TestRest(t *testing.T) {
	const own = "Content-Type: text/plain\r\nAt: 1\r\nContent-Length: 5\r\n"
	for name, c := range map[string]struct {
		head, lines string
		ok          bool
	}{
		"its own":        {"HTTP/1.1 200 OK\r\nAt: 1\r\nContent-Length: 5\r\nContent-Type: text/plain", "", true},
		"more":           {"HTTP/1.1 200 OK\r\nB: 2\r\n" + own + "Date: now\r\nSet-Cookie: a=b", "B: 2\r\n", true},
		"another status": {"HTTP/1.1 201 Created\r\n" + own + "A: b", "", false},
		"another text":   {"HTTP/1.1 200 Fine\r\n" + own + "A: b", "", false},
		"one less":       {"HTTP/1.1 200 OK\r\nAt: 1\r\nContent-Length: 5", "", false},
		"one changed":    {"HTTP/1.1 200 OK\r\nAt: 2\r\nContent-Length: 5\r\nContent-Type: text/plain", "", false},
		"one spelled":    {"HTTP/1.1 200 OK\r\nat: 1\r\nContent-Length: 5\r\nContent-Type: text/plain", "", false},
		"one twice":      {"HTTP/1.1 200 OK\r\n" + own + "At: 1", "", false},
		"one more":       {"HTTP/1.1 200 OK\r\n" + own + "Gap: 1", "", false},
		"a part of one":  {"HTTP/1.1 200 OK\r\nAt: \r\nContent-Length: 5\r\nContent-Type: text/plain", "", false},
		"gzip":           {"HTTP/1.1 200 OK\r\n" + own + "Content-Encoding: gzip", "", false},
		"the last":       {"HTTP/1.1 200 OK\r\n" + own + "connection: close", "", false},
	} {
		lines, ok := Rest(c.head, 200, own, "Content-Type", "Content-Length", "At", "Gap")
		if ok != c.ok || ok && lines != c.lines {
			t.Errorf("%s: %q, %v; want %q, %v", name, lines, ok, c.lines, c.ok)
		}
	}
}
