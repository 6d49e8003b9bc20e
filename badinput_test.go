package gpoll_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
)

// wsHandshake are the headers that make a GET a WebSocket handshake.
var wsHandshake = []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
	"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}

// gets are the ways in which a GET asks for a transport. What is wrong with its query or id is refused alike on each.
var gets = []getBy{
	{"poll", "/poll", nil},
	{"json poll", "/poll", []string{"Accept", "application/json"}},
	{"sse", "/poll/events", nil},
	{"sse by header", "/poll", []string{"Accept", "text/event-stream"}},
	{"websocket", "/poll/ws", wsHandshake},
	{"websocket by header", "/poll", wsHandshake},
}

type getBy struct {
	name, path string
	header     []string
}

// told is the status that says status to that transport: an EventSource is told in a stream what time cures.
func (by getBy) told(status int) int {
	if by.eventSource() && (status == 429 || status == 500 || status == 503) {
		return http.StatusOK
	}
	return status
}

// eventSource reports whether it asks as a browser's EventSource does, which gets a new id for one that is not known.
func (by getBy) eventSource() bool { return slices.Contains(by.header, "text/event-stream") }

// strangeIDs are client ids that were never given out: well formed, nearly so and not at all.
func strangeIDs(own string) []string {
	routine, uuid, _ := strings.Cut(own, "$")
	return []string{
		"0$6ba7b811-9dad-41d1-80b4-00c04fd430c8",
		"7$" + uuid, "999999$" + uuid, "1000000$" + uuid, "00$" + uuid, "-1$" + uuid, "+0$" + uuid, " 0$" + uuid,
		"0x0$" + uuid,
		"$" + uuid, uuid, own + "$", own + " ", own + "\x00", routine + "$" + strings.ToUpper(uuid) + "A",
		routine + "$" + uuid[:35],
		routine + "$$" + uuid, routine + "$" + strings.ReplaceAll(uuid, "-", ""), routine + "%24" + uuid,
		"1", "00", "x", "$", "null", "undefined", "0$", strings.Repeat("9", 500), "é", "0\n", "../../etc/passwd", "*",
	}
}

func TestUnknownID(t *testing.T) {
	s := start(t, setup{})
	own, _ := s.register(t)
	for _, by := range gets {
		if by.eventSource() {
			continue
		}
		t.Run(by.name, func(t *testing.T) {
			want := ""
			for _, id := range strangeIDs(own) {
				if strings.HasPrefix(by.name, "websocket") { // a browser shows its page a close, not a status
					c := s.socket(t, by.path+query("client-id", id), "")
					if code, reason := closing(t, c); code != 4010 || reason != "unknown-client" {
						t.Errorf("client-id %q: close %d %q, want 4010 unknown-client", id, code, reason)
					}
					continue
				}
				a := s.get(t, by.path+query("client-id", id), by.header...)
				if a.status != http.StatusNotFound || a.code(t) != "unknown-client" {
					t.Errorf("client-id %q: %d %s", id, a.status, a.body)
				}
				got := fmt.Sprint(a.status, "\n", headerSet(a.header), "\n\n", a.body)
				if want == "" {
					want = got
				}
				if got != want {
					t.Errorf("client-id %q is answered differently from the others:\n%s\nwant\n%s", id, got, want)
				}
			}
		})
	}
	t.Run("post", func(t *testing.T) {
		for _, path := range []string{"/poll", "/poll/events"} {
			for _, id := range []string{"0$6ba7b811-9dad-41d1-80b4-00c04fd430c8", "x", "00"} {
				if a := s.post(t, path, id, "{}"); a.status != http.StatusNotFound || a.code(t) != "unknown-client" {
					t.Errorf("POST %s of %q: %d %s", path, id, a.status, a.body)
				}
			}
		}
	})
	t.Run("gpoll.v1", func(t *testing.T) {
		for _, id := range []string{"0$6ba7b811-9dad-41d1-80b4-00c04fd430c8", "x", "00"} {
			c := s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q}}`, id))
			if code, reason := closing(t, c); code != 4010 {
				t.Errorf("hello of %q: close %d %q, want 4010", id, code, reason)
			}
		}
	})
	if st := s.Stats(); st.Clients != 1 {
		t.Errorf("%d clients after all that, want the first one only", st.Clients)
	}
}

// An id that is unknown, malformed, expired or removed gets one and the same answer, to the byte.
func TestUnknownIDIsOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		removed, _ := s.register(t)
		neverAttached, _ := s.register(t)
		left, _ := s.register(t)
		s.Send("m")
		if a := s.get(t, "/poll"+query("client-id", left)); a.body != "m" {
			t.Fatalf("%d %q", a.status, a.body)
		}
		if !s.RemoveClient(removed) {
			t.Error("RemoveClient: false")
		}
		advance(90 * time.Second)
		if st := s.Stats(); st.Clients != 0 {
			t.Fatalf("%d clients left", st.Clients)
		}
		expired2, _ := s.register(t)
		if !s.RemoveClient(strings.TrimPrefix(expired2, "0$")) {
			t.Error("RemoveClient of the bare uuid: false")
		}
		ids := map[string]string{
			"removed long ago": removed, "never attached": neverAttached, "expired": left, "removed just now": expired2,
			"unknown": "0$6ba7b811-9dad-41d1-80b4-00c04fd430c8", "malformed": "x$y",
			"other routine": "123$6ba7b811-9dad-41d1-80b4-00c04fd430c8",
		}
		for _, by := range gets {
			if by.eventSource() {
				continue
			}
			want := ""
			for why, id := range ids {
				conn := s.raw(t)
				if _, err := io.WriteString(conn, rawGet(by.path+query("client-id", id), by.header)+"\r\n"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // the whole answer is there
				got := readWaiting(t, conn)
				begins := "HTTP/1.1 404 Not Found\r\n"
				if strings.HasPrefix(by.name, "websocket") {
					begins = "HTTP/1.1 101 "
				}
				if !strings.HasPrefix(got, begins) || !strings.Contains(got, "unknown-client") {
					t.Fatalf("%s, %s: %s", by.name, why, got)
				}
				if want == "" {
					want = got
				}
				if got != want {
					t.Errorf("%s, %s:\n%s\nthe others get\n%s", by.name, why, got, want)
				}
			}
		}
	})
}

// rawGet spells a GET without the empty line at the end of its head.
func rawGet(path string, header []string) string {
	lines := []string{"GET " + path + " HTTP/1.1", "Host: gpoll.test"}
	for i := 0; i < len(header); i += 2 {
		lines = append(lines, header[i]+": "+header[i+1])
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}

// readWaiting returns what has arrived on conn.
func readWaiting(t testing.TB, conn net.Conn) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	got, err := io.ReadAll(conn)
	if err != nil && !isTimeout(err) {
		t.Fatal(err)
	}
	return string(got)
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

func TestTwoIDs(t *testing.T) {
	s := start(t, setup{})
	a, _ := s.register(t)
	b, _ := s.register(t)
	for _, by := range gets {
		t.Run(by.name, func(t *testing.T) {
			for what, c := range map[string]struct {
				query  string
				header []string
			}{
				"query twice":                {query("client-id", a, "client-id", b), nil},
				"query twice the same":       {query("client-id", a, "client-id", a), nil},
				"query and header differ":    {query("client-id", a), []string{"Gpoll-Client-Id", b}},
				"query registers, header no": {query("client-id", "0"), []string{"Gpoll-Client-Id", b}},
				"header twice":               {"", []string{"Gpoll-Client-Id", a, "Gpoll-Client-Id", b}},
			} {
				got := s.get(t, by.path+c.query, append(c.header, by.header...)...)
				if got.status != http.StatusBadRequest {
					t.Errorf("%s: %d %s, want 400", what, got.status, got.body)
				}
				if code := got.code(t); code != "bad-client-id" && code != "bad-request" {
					t.Errorf("%s: code %s", what, code)
				}
			}
		})
	}
	s.Send("m")
	if got := s.get(t, "/poll"+query("client-id", a), "Gpoll-Client-Id", a); got.body != "m" {
		t.Errorf("the same id in query and header: %d %s", got.status, got.body)
	}
	if got := s.post(t, "/poll"+query("client-id", b), a, "{}"); got.status != http.StatusBadRequest {
		t.Errorf("POST with two ids: %d %s", got.status, got.body)
	}
	if st := s.Stats(); st.Clients != 2 {
		t.Errorf("%d clients, want 2", st.Clients)
	}
}

func TestMalformedPosition(t *testing.T) {
	s := start(t, setup{})
	id, good := s.register(t)
	epoch, _, _ := strings.Cut(good, "-")
	bad := []string{
		"0", "-", "x", epoch, epoch + "-", "-1", epoch + "-x", epoch + "--1", epoch + "-+1", epoch + "-01",
		epoch + "-1.0", epoch + "-1e3", epoch + "- 1", epoch + "-1 ",
		strings.ToUpper(epoch[:15]) + "F-1", epoch[:15] + "-1", epoch + "0-1", epoch + "_1",
		epoch + "-18446744073709551616", epoch + "-99999999999999999999", epoch + "-1\x00",
		"0x" + epoch[2:] + "-1", strings.Repeat("9", 400), epoch + "-１",
	}
	for _, by := range gets {
		t.Run(by.name, func(t *testing.T) {
			for _, p := range bad {
				a := s.get(t, by.path+query("client-id", id, "after", p), by.header...)
				if a.status != http.StatusBadRequest || a.code(t) != "bad-position" {
					t.Errorf("after=%q: %d %s", p, a.status, a.body)
				}
			}
			a := s.get(t, by.path+query("client-id", id, "after", good, "after", good), by.header...)
			if a.status != http.StatusBadRequest {
				t.Errorf("after twice: %d %s", a.status, a.body)
			}
		})
	}
	for _, p := range bad {
		if strings.ContainsAny(p, "\x00１") || strings.TrimSpace(p) != p {
			continue // no header can carry it
		}
		a := s.get(t, "/poll/events"+query("client-id", id), "Last-Event-ID", p)
		if a.status != http.StatusBadRequest || a.code(t) != "bad-position" {
			t.Errorf("Last-Event-ID %q: %d %s", p, a.status, a.body)
		}
	}
	for _, path := range []string{"/poll", "/poll/events"} {
		for _, p := range bad {
			a := s.post(t, path, id, fmt.Sprintf(`{"after":%q}`, strings.ReplaceAll(p, "\x00", "?")))
			if a.status != http.StatusBadRequest {
				t.Errorf("POST %s after %q: %d %s", path, p, a.status, a.body)
			}
		}
	}
	for _, p := range bad {
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q,"after":%q}}`, id, strings.ReplaceAll(p, "\x00", "?")))
		if code, reason := closing(t, c); code != 1008 && code != 1002 && code != 1007 {
			t.Errorf("hello after %q: close %d %q", p, code, reason)
		}
	}
	if st := s.Stats(); st.Clients != 1 {
		t.Errorf("%d clients, want 1", st.Clients)
	}
}

// A cursor beyond the end of the log, or of another life of the log, gets one gap before the next message. It never
// makes a poll wait for ever.
func TestForeignCursor(t *testing.T) {
	for name, c := range map[string]struct {
		after  func(present gpoll.Position) gpoll.Position
		span   func(after gpoll.Position) string // nil: not looked at
		reason string
		next   string
	}{
		"future": {func(p gpoll.Position) gpoll.Position { p.Seq += 1000; return p },
			func(gpoll.Position) string { return ".." }, "future", "later"},
		"far future": {func(p gpoll.Position) gpoll.Position { p.Seq = maxSeq; return p },
			func(gpoll.Position) string { return ".." }, "future", "later"},
		"other epoch": {func(p gpoll.Position) gpoll.Position { p.Epoch ^= 1; p.Seq = 41; return p }, restAfter,
			"epoch", "present"},
		"epoch 0": {func(gpoll.Position) gpoll.Position { return gpoll.Position{Seq: 4} }, restAfter, "epoch",
			"present"},
		"end of epoch": {func(p gpoll.Position) gpoll.Position { p.Epoch ^= 1; p.Seq = maxSeq; return p }, nil, "epoch",
			"present"},
	} {
		inBubble(t, name, func(t *testing.T) {
			s := start(t, setup{memory: true})
			after := c.after(s.mustPublish(t, "", "present"))
			check := func(t *testing.T, by, gap string) {
				t.Helper()
				span, reason, _ := strings.Cut(gap, ";")
				if reason != c.reason {
					t.Errorf("%s: gap %q, want the reason %s", by, gap, c.reason)
				}
				if c.span != nil && span != c.span(after) {
					t.Errorf("%s: gap %q, want %s", by, gap, c.span(after))
				}
			}
			publish := func() {
				if c.next == "later" {
					s.Send("later")
				}
			}

			id, _ := s.register(t)
			done := s.later(t, "/poll"+query("client-id", id, "after", after.String()))
			synctest.Wait()
			publish()
			a := <-done
			if a.status == http.StatusNoContent { // the gap alone may be told at once
				check(t, "plain poll", a.header.Get("Gpoll-Gap"))
				a = s.get(t, "/poll"+query("client-id", id, "after", a.position()))
			} else {
				check(t, "plain poll", a.header.Get("Gpoll-Gap"))
			}
			if a.body != c.next {
				t.Errorf("plain poll: %d %q, want %q", a.status, a.body, c.next)
			}

			id, _ = s.register(t)
			v := s.get(t, "/poll"+query("client-id", id, "after", after.String(), "format", "json")).batch(t)
			if len(v.Messages) == 0 || v.Messages[0].Gap == nil {
				t.Fatalf("JSON poll: no gap first: %+v", v)
			}
			check(t, "JSON poll", v.Messages[0].Gap.From+".."+v.Messages[0].Gap.To+";"+v.Messages[0].Gap.Reason)
			if len(v.Messages) == 1 {
				publish()
				v = s.get(t, "/poll"+query("client-id", id, "after", v.Position, "format", "json")).batch(t)
			}
			if got := v.payloads(t); len(got) == 0 || got[0] != c.next {
				t.Errorf("JSON poll: %q, want %q", got, c.next)
			}

			for _, header := range []string{"", "Last-Event-ID"} {
				id, _ = s.register(t)
				path, pairs := "/poll/events", []string{"client-id", id}
				var h []string
				if header == "" {
					pairs = append(pairs, "after", after.String())
				} else {
					h = []string{header, after.String()}
				}
				e := s.events(t, path+query(pairs...), h...)
				if ev := e.next(t); ev.name != "client-id" {
					t.Fatalf("first event %+v", ev)
				}
				ev := e.next(t)
				if ev.name != "gap" {
					t.Fatalf("SSE: %+v, want a gap", ev)
				}
				check(t, "SSE", gapOfJSON(t, ev.data))
				publish()
				if ev := e.next(t); ev.data != c.next {
					t.Errorf("SSE: %+v, want %q", ev, c.next)
				}
				e.close()
			}

			id, _ = s.register(t)
			ws := s.socket(t, "/poll/ws"+query("client-id", id, "after", after.String()), "")
			code, reason := closing(t, ws)
			if code != 4010 {
				t.Errorf("plain WebSocket: close %d %q, want 4010", code, reason)
			}
			check(t, "plain WebSocket", reason)
			ws = s.socket(t, "/poll/ws"+query("client-id", id), "")
			idOf(t, frame(t, ws))
			publish()
			if got := frame(t, ws); got != c.next {
				t.Errorf("plain WebSocket: %q, want %q", got, c.next)
			}
			ws.CloseNow()

			id, _ = s.register(t)
			ws = s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, ws, fmt.Sprintf(`{"hello":{"client-id":%q,"after":%q}}`, id, after))
			if got := frame(t, ws); !strings.HasPrefix(got, `{"welcome":`) {
				t.Fatalf("gpoll.v1: %s", got)
			}
			el := elementOf(t, frame(t, ws))
			if el.Gap == nil {
				t.Fatalf("gpoll.v1: %+v, want a gap", el)
			}
			check(t, "gpoll.v1", el.Gap.From+".."+el.Gap.To+";"+el.Gap.Reason)
			publish()
			if el := elementOf(t, frame(t, ws)); el.Data != c.next {
				t.Errorf("gpoll.v1: %+v, want %q", el, c.next)
			}
			ws.CloseNow()
		})
	}
}

// restAfter spells the gap that an older epoch leaves.
func restAfter(p gpoll.Position) string {
	return gpoll.Position{Epoch: p.Epoch, Seq: p.Seq + 1}.String() + ".." + gpoll.Position{Epoch: p.Epoch}.String()
}

// inBubble is t.Run on fake time.
func inBubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestBodyOnGet(t *testing.T) {
	s := start(t, setup{})
	id, _ := s.register(t)
	for _, by := range gets {
		for _, framing := range []string{"Content-Length: 3\r\n\r\nabc",
			"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "Content-Length: 1000000\r\n\r\n"} {
			conn := s.raw(t)
			io.WriteString(conn, rawGet(by.path+query("client-id", id), by.header)+framing)
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("%s: %v", by.name, err)
			}
			body, _ := io.ReadAll(resp.Body)
			a := answer{resp.StatusCode, resp.Header, string(body)}
			if a.status != http.StatusBadRequest || a.code(t) != "body-on-get" || !resp.Close {
				t.Errorf("%s, %q: %d close=%v %s", by.name, framing, a.status, resp.Close, a.body)
			}
		}
	}
}

func TestOversize(t *testing.T) {
	const limit = 64 << 10
	s := start(t, setup{})
	t.Run("Publish", func(t *testing.T) {
		_, err := s.Publish(t.Context(), gpoll.Message{Data: make([]byte, limit+1)})
		if !errors.Is(err, gpoll.ErrTooLarge) {
			t.Errorf("Publish of one byte too many: %v", err)
		}
		id, _ := s.register(t)
		s.Send(strings.Repeat("x", limit+1)) // logged and counted
		if n := s.Stats().Refused["too-large"]; n != 2 {
			t.Errorf("Refused[too-large] = %d, want 2", n)
		}
		s.mustPublish(t, "", strings.Repeat("x", limit))
		if a := s.get(t, "/poll"+query("client-id", id)); len(a.body) != limit {
			t.Errorf("%d bytes, want %d", len(a.body), limit)
		}
	})
	t.Run("POST body", func(t *testing.T) {
		id, _ := s.register(t)
		for _, path := range []string{"/poll", "/poll/events"} {
			a := s.post(t, path, id, `{"topics":["`+strings.Repeat("a", 70_000)+`"]}`)
			if a.status != http.StatusRequestEntityTooLarge || a.code(t) != "too-large" {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		}
	})
	t.Run("WebSocket frame", func(t *testing.T) {
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{}}`)
		frame(t, c)
		say(t, c, `{"subscribe":["`+strings.Repeat("a", limit)+`"]}`)
		if code, reason := closing(t, c); code != websocket.StatusMessageTooBig {
			t.Errorf("close %d %q, want 1009", code, reason)
		}
		c = s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{"authorization":"`+strings.Repeat("a", limit)+`"}}`)
		if code, reason := closing(t, c); code != websocket.StatusMessageTooBig {
			t.Errorf("hello: close %d %q, want 1009", code, reason)
		}
	})
}

func TestPlainSocketIsOneWay(t *testing.T) {
	s := start(t, setup{})
	for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		c := s.socket(t, "/poll/ws", "")
		frame(t, c)
		if err := c.Write(t.Context(), kind, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if code, reason := closing(t, c); code != websocket.StatusUnsupportedData {
			t.Errorf("close %d %q, want 1003", code, reason)
		}
	}
}

func TestLongQuery(t *testing.T) {
	s := start(t, setup{})
	for _, by := range gets {
		for what, q := range map[string]string{
			"10,000 parameters": "?client-id=0" + strings.Repeat("&a=b", 10_000),
			"10,000 topics":     "?client-id=0" + strings.Repeat("&topic=a", 10_000),
			"just over 2 KiB":   "?x=" + strings.Repeat("y", 2047),
		} {
			a := s.get(t, by.path+q, by.header...)
			if a.status != http.StatusRequestURITooLong || a.code(t) != "query-too-long" {
				t.Errorf("%s, %s: %d %s", by.name, what, a.status, a.body)
			}
		}
	}
	if a := s.get(t, "/poll?x="+strings.Repeat("y", 2046)); a.status != http.StatusOK {
		t.Errorf("just 2 KiB: %d %s", a.status, a.body)
	}
	if st := s.Stats(); st.Clients != 1 {
		t.Errorf("%d clients, want 1", st.Clients)
	}
}

func TestBadTopic(t *testing.T) {
	s := start(t, setup{})
	id, _ := s.register(t)
	bad := []string{"", "a b", "a\x00", "a\nb", "\x7f", "*", ">", "a#", "a,b", "a+b", "ä", "a\u200b", "a\u202e", "\xff",
		"a?b", "a\\b", `a"b`, "a$b", strings.Repeat("x", 256)}
	for _, by := range gets {
		t.Run(by.name, func(t *testing.T) {
			for _, topic := range bad {
				a := s.get(t, by.path+query("client-id", id, "topic", topic), by.header...)
				if a.status != http.StatusBadRequest || a.code(t) != "bad-topic" {
					t.Errorf("topic=%q: %d %s", topic, a.status, a.body)
				}
			}
		})
	}
	for _, topic := range bad {
		if topic == "\xff" {
			continue // no JSON can carry it
		}
		quoted := jsonString(t, topic)
		for _, path := range []string{"/poll", "/poll/events"} {
			if a := s.post(t, path, id, `{"topics":[`+quoted+`]}`); a.status != http.StatusBadRequest ||
				a.code(t) != "bad-topic" {
				t.Errorf("POST %s of topic %q: %d %s", path, topic, a.status, a.body)
			}
		}
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{"topics":[`+quoted+`]}}`)
		if code, reason := closing(t, c); code != websocket.StatusPolicyViolation {
			t.Errorf("hello with topic %q: close %d %q, want 1008", topic, code, reason)
		}
		c = s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{}}`)
		frame(t, c)
		say(t, c, `{"subscribe":["good",`+quoted+`]}`)
		if got := frame(t, c); !strings.HasPrefix(got, `{"error":{"code":"bad-topic"`) {
			t.Errorf("subscribe to topic %q: %s", topic, got)
		}
		say(t, c, `{"unsubscribe":["good"]}`) // the session goes on, and nothing of the refused list was taken
		if got := frame(t, c); !strings.HasPrefix(got, `{"unsubscribed":`) {
			t.Errorf("after a refused subscribe: %s", got)
		}
		c.CloseNow()
		if _, err := s.Publish(t.Context(), gpoll.Message{Topic: topic, Data: []byte("x")}); topic != "" &&
			!errors.Is(err, gpoll.ErrBadMessage) {
			t.Errorf("Publish to topic %q: %v", topic, err)
		}
	}
	longest := strings.Repeat("x", 255)
	s.mustPublish(t, longest, "m")
	_, after := s.register(t)
	s.mustPublish(t, "A-Za/z0:9_.~@", "m")
	topics := query("topic", longest, "topic", "A-Za/z0:9_.~@", "client-id", id, "after", after, "format", "json")
	if v := s.get(t, "/poll"+topics).batch(t); len(v.Messages) != 1 || v.Messages[0].Topic != "A-Za/z0:9_.~@" {
		t.Errorf("good topics: %+v", v)
	}
}

func TestTooManyTopics(t *testing.T) {
	s := start(t, setup{})
	list := func(n int) (pairs []string, jsonList string) {
		for i := range n {
			pairs = append(pairs, "topic", fmt.Sprint("t", i))
			jsonList += fmt.Sprintf(`,"t%d"`, i)
		}
		return pairs, "[" + jsonList[1:] + "]"
	}
	tooMany, tooManyJSON := list(129)
	enough, enoughJSON := list(128)
	for _, by := range gets {
		a := s.get(t, by.path+query(tooMany...), by.header...)
		if a.status != http.StatusBadRequest || a.code(t) != "too-many-topics" {
			t.Errorf("%s: %d %s", by.name, a.status, a.body)
		}
	}
	if a := s.get(t, "/poll"+query(enough...)); a.status != http.StatusOK {
		t.Errorf("128 topics: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/poll", "/poll/events"} {
		if a := s.post(t, path, "0", `{"topics":`+tooManyJSON+`}`); a.status != http.StatusBadRequest ||
			a.code(t) != "too-many-topics" {
			t.Errorf("POST %s: %d %s", path, a.status, a.body)
		}
	}
	c := s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, `{"hello":{"topics":`+tooManyJSON+`}}`)
	if code, reason := closing(t, c); code != websocket.StatusPolicyViolation {
		t.Errorf("hello: close %d %q, want 1008", code, reason)
	}
	c = s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, `{"hello":{"topics":`+enoughJSON+`}}`)
	if got := frame(t, c); !strings.HasPrefix(got, `{"welcome":`) {
		t.Errorf("hello with 128: %s", got)
	}
	say(t, c, `{"subscribe":["one-more"]}`)
	if got := frame(t, c); !strings.HasPrefix(got, `{"error":{"code":"too-many-topics"`) {
		t.Errorf("the 129th: %s", got)
	}
	say(t, c, `{"subscribe":["t5"]}`)
	if got := frame(t, c); !strings.HasPrefix(got, `{"subscribed":`) {
		t.Errorf("one of the 128 again: %s", got)
	}
}

// What else can be wrong with a POST.
func TestBadPost(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.PollWait = 50 * time.Millisecond }})
	id, after := s.register(t)
	for _, path := range []string{"/poll", "/poll/events"} {
		for body, code := range map[string]string{
			``:                             "bad-request",
			`x`:                            "bad-request",
			`[]`:                           "bad-request",
			`null x`:                       "bad-request",
			`{"after":1}`:                  "bad-request",
			`{"topics":"a"}`:               "bad-request",
			`{"unknown":1}`:                "bad-request",
			`{"topics":["a"]}{}`:           "bad-request",
			`{"last":501}`:                 "bad-request",
			`{"last":-1}`:                  "bad-request",
			`{"last":1.5}`:                 "bad-request",
			`{"format":"xml"}`:             "bad-request",
			"{\"topics\":[\"\xff\"]}":      "",
			strings.Repeat("[", 60_000):    "bad-request",
			`{"after":"` + after + `x"}`:   "bad-position",
			strings.Repeat("\n", 65_000):   "bad-request",
			strings.Repeat("\n", 70_000):   "too-large",
			`{"topics":[` + `"",` + `""]}`: "bad-topic",
		} {
			a := s.post(t, path, id, body)
			if a.status < 400 || a.status >= 500 || code != "" && a.code(t) != code {
				t.Errorf("POST %s %.60q: %d %s, want the code %q", path, body, a.status, a.body, code)
			}
		}
		for _, q := range []string{"?topic=a", "?after=" + after, "?last=5"} {
			if a := s.post(t, path+q, id, "{}"); a.status != http.StatusBadRequest || a.code(t) != "bad-request" {
				t.Errorf("POST %s%s: %d %s", path, q, a.status, a.body)
			}
		}
		for _, ct := range []string{"", "text/plain", "application/x-www-form-urlencoded",
			"multipart/form-data; boundary=x", "application/jsonx", "application/json, text/plain"} {
			r := s.request(t, t.Context(), path, "Gpoll-Client-Id", id)
			r.Method, r.Body = http.MethodPost, io.NopCloser(strings.NewReader("{}"))
			if ct != "" {
				r.Header.Set("Content-Type", ct)
			}
			if a := s.do(t, r); a.status != http.StatusUnsupportedMediaType || a.code(t) != "unsupported-media-type" {
				t.Errorf("POST %s as %q: %d %s", path, ct, a.status, a.body)
			}
		}
		if a := s.post(t, path, id, "{}", "Content-Encoding", "gzip"); a.status != http.StatusUnsupportedMediaType {
			t.Errorf("POST %s in gzip: %d %s", path, a.status, a.body)
		}
		r := s.request(t, t.Context(), path, "Content-Type", "application/json")
		r.Method, r.Body = http.MethodPost, io.NopCloser(strings.NewReader("{}"))
		if a := s.do(t, r); a.status < 400 || a.status >= 500 {
			t.Errorf("POST %s without Gpoll-Client-Id: %d %s", path, a.status, a.body)
		}
	}
	a := s.post(t, "/poll", id, `{"after":"`+after+`","topics":["a"],"format":"json"}`,
		"Content-Type", "application/json; charset=utf-8")
	if a.status >= 500 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, method := range []string{"PUT", "DELETE", "PATCH", "HEAD", "PROPFIND"} {
		for _, path := range []string{"/poll", "/poll/events", "/poll/ws"} {
			r := s.request(t, t.Context(), path)
			r.Method = method
			a := s.do(t, r)
			if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") == "" ||
				a.header.Get("Gpoll-Error") != "method" {
				t.Errorf("%s %s: %d %q", method, path, a.status, headerSet(a.header))
			}
		}
	}
	if a := s.get(t, "/poll/ws"); a.status != http.StatusUpgradeRequired || a.code(t) != "not-websocket" {
		t.Errorf("GET /poll/ws without a handshake: %d %s", a.status, a.body)
	}
	for _, q := range []string{"?last=0", "?last=501", "?last=-1", "?last=x", "?last=+1", "?last=1&last=1",
		"?format=xml", "?format=json&format=json", "?%zz", "?a=%", "?client-id=0;topic=a"} {
		for _, by := range gets {
			a := s.get(t, by.path+q, by.header...)
			if a.status != http.StatusBadRequest {
				t.Errorf("%s %s: %d %s", by.name, q, a.status, a.body)
			}
		}
	}
}

// Two attaches at once on one client id: the newest wins, the older is told, and what is published then arrives once.
func TestNewestAttachWins(t *testing.T) {
	type attached struct {
		transport string
		ended     func(t *testing.T) // checks that it was told
		got       func(t *testing.T) string
	}
	ways := map[string]func(t *testing.T, s *server, id, after string) attached{
		"poll": func(t *testing.T, s *server, id, after string) attached {
			done := s.later(t, "/poll"+query("client-id", id, "after", after))
			return attached{"long-poll",
				func(t *testing.T) {
					if a := <-done; a.status != http.StatusConflict || a.code(t) != "superseded" {
						t.Errorf("the older poll: %d %s, want 409 superseded", a.status, a.body)
					}
				},
				func(t *testing.T) string { return (<-done).body }}
		},
		"json poll": func(t *testing.T, s *server, id, after string) attached {
			done := s.later(t, "/poll"+query("client-id", id, "after", after, "format", "json"))
			return attached{"long-poll",
				func(t *testing.T) {
					if a := <-done; a.status != http.StatusConflict || a.code(t) != "superseded" {
						t.Errorf("the older poll: %d %s, want 409 superseded", a.status, a.body)
					}
				},
				func(t *testing.T) string { return strings.Join((<-done).batch(t).payloads(t), ",") }}
		},
		"sse": func(t *testing.T, s *server, id, after string) attached {
			e := s.events(t, "/poll/events"+query("client-id", id, "after", after))
			if ev := e.next(t); ev.name != "client-id" || idOf(t, ev.data) != id {
				t.Fatalf("first event %+v", ev)
			}
			return attached{"sse",
				func(t *testing.T) {
					if ev := e.next(t); ev.name != "end" || !strings.Contains(ev.data, `"superseded"`) {
						t.Errorf("the older stream: %+v, want end superseded", ev)
					}
					if ev, err := e.read(); err == nil {
						t.Errorf("after the end: %+v", ev)
					}
				},
				func(t *testing.T) string { return e.next(t).data }}
		},
		"websocket": func(t *testing.T, s *server, id, after string) attached {
			c := s.socket(t, "/poll/ws"+query("client-id", id, "after", after), "")
			if got := idOf(t, frame(t, c)); got != id {
				t.Fatalf("id %s, want %s", got, id)
			}
			return attached{"websocket",
				func(t *testing.T) {
					if code, reason := closing(t, c); code != 4009 || !strings.HasPrefix(reason, "superseded") {
						t.Errorf("the older socket: %d %q, want 4009 superseded", code, reason)
					}
				},
				func(t *testing.T) string { return frame(t, c) }}
		},
		"gpoll.v1": func(t *testing.T, s *server, id, after string) attached {
			c := s.socket(t, "/poll/ws", "gpoll.v1")
			say(t, c, fmt.Sprintf(`{"hello":{"client-id":%q,"after":%q}}`, id, after))
			if got := frame(t, c); !strings.HasPrefix(got, `{"welcome":{"client-id":"`+id) {
				t.Fatalf("welcome %s", got)
			}
			return attached{"websocket",
				func(t *testing.T) {
					if code, reason := closing(t, c); code != 4009 || !strings.HasPrefix(reason, "superseded") {
						t.Errorf("the older socket: %d %q, want 4009 superseded", code, reason)
					}
				},
				func(t *testing.T) string { return elementOf(t, frame(t, c)).Data }}
		},
	}
	s := start(t, setup{})
	for older := range ways {
		for newer := range ways {
			t.Run(older+" then "+newer, func(t *testing.T) {
				id, after := s.register(t)
				first := ways[older](t, s, id, after)
				s.awaitTransport(t, id, first.transport)
				second := ways[newer](t, s, id, after)
				first.ended(t)
				s.awaitTransport(t, id, second.transport)
				s.Send("m")
				if got := second.got(t); got != "m" {
					t.Errorf("the newer attach got %q", got)
				}
				s.RemoveClient(id)
			})
		}
	}
}

// A request that its client has given up may reach its handler after the request that followed. It ends no attach, and
// its topics do not count.
func TestGivenUpRequest(t *testing.T) {
	for _, by := range gets {
		for _, later := range []time.Duration{0, 10 * time.Millisecond} { // that its end arrives after it
			inBubble(t, fmt.Sprintf("%s %v", by.name, later), func(t *testing.T) {
				s := start(t, setup{memory: true})
				id, after := s.register(t)
				stream := s.events(t, "/poll/events"+query("client-id", id, "after", after, "topic", "new"))
				stream.next(t)
				ghost := s.raw(t)
				io.WriteString(ghost, rawGet(by.path+query("client-id", id, "after", after, "topic", "old"), by.header)+"\r\n")
				if later > 0 {
					advance(later)
				}
				ghost.Close()
				advance(time.Second)
				s.mustPublish(t, "old", "not wanted")
				s.mustPublish(t, "new", "wanted")
				if ev := stream.next(t); ev.data != "wanted" {
					t.Errorf("%+v", ev)
				}
			})
		}
	}
}

// awaitTransport waits until the client is attached by transport.
func (s *server) awaitTransport(t testing.TB, id, transport string) {
	t.Helper()
	await(t, "attached by "+transport, func() bool {
		c, ok := s.Client(id)
		return ok && c.Transport() == transport
	})
}

// A client that never reads is ended as slow, and nobody else notices.
func TestNeverReading(t *testing.T) {
	for name, request := range map[string]string{
		"sse": "GET /poll/events HTTP/1.1\r\nHost: %s\r\n\r\n",
		"websocket": "GET /poll/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
	} {
		for _, disconnect := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s disconnect=%v", name, disconnect), func(t *testing.T) {
				s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
					b.WriteTimeout = 500 * time.Millisecond
					b.PongTimeout = 500 * time.Millisecond
					b.DisconnectSlow = disconnect
					b.ClientBufferSize = 20
					b.History = gpoll.Limits{Count: 10_000, Bytes: 256 << 20}
				}})
				stuck := s.raw(t)
				if tcp, ok := stuck.(*net.TCPConn); ok {
					tcp.SetReadBuffer(4096)
				}
				fmt.Fprintf(stuck, request, strings.TrimPrefix(s.url, "http://"))
				s.awaitAttached(t, name, 1)

				healthy := s.socket(t, "/poll/ws", "")
				idOf(t, frame(t, healthy))
				stream := s.events(t, "/poll/events")
				stream.next(t)
				pollID, after := s.register(t)

				const n = 300
				pad := strings.Repeat("x", 60_000)
				number := func(m string) string { head, _, _ := strings.Cut(m, " "); return head }
				for i := range n {
					want := fmt.Sprint(i)
					s.Send(want + " " + pad)
					if got := number(frame(t, healthy)); got != want {
						t.Fatalf("healthy WebSocket: %s, want %s", got, want)
					}
					if got := number(stream.next(t).data); got != want {
						t.Fatalf("healthy SSE: %s, want %s", got, want)
					}
					a := s.get(t, "/poll"+query("client-id", pollID, "after", after))
					if got := number(a.body); got != want {
						t.Fatalf("healthy poll: %d %s, want %s", a.status, got, want)
					}
					after = a.position()
				}
				await(t, "the stuck client is ended", func() bool {
					st := s.Stats()
					return st.Attached["websocket"]+st.Attached["sse"] == 2 && st.Dropped["slow"] == 1
				})
			})
		}
	}
}
