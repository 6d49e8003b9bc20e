package gpoll_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// The words of a script that is played to a server over one connection. What stands between them is written as it is.
const (
	flush   = "\x00" // what stands before is written in one piece, and the server comes to rest
	publish = "\x01" // the same, and then a message for everybody
	topical = "\x02" // the same, for topic a
	elapse  = "\x03" // the same, and then a poll's time
	remove  = "\x04" // the same, and then the client is removed
)

// scripts are what FuzzListener begins with. OWN is the client's id, NOW the newest Position.
var scripts = func() []string {
	get := func(path string, headers ...string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: gpoll.test\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
	}
	poll := get("/poll?client-id=OWN&after=NOW")
	batch := get("/poll?client-id=OWN&after=NOW&format=json&topic=a")
	blind := get("/poll?client-id=OWN")
	armed := poll + publish + poll + publish
	echo := "POST /echo HTTP/1.1\r\nHost: gpoll.test\r\nContent-Length: "
	list := []string{
		armed + poll + flush + publish,
		armed + poll + elapse + poll + publish,
		batch + publish + batch + topical + batch + publish + batch + elapse + batch + topical,
		blind + publish + blind + publish + blind + publish + publish + blind + elapse,
		armed + get("/echo") + flush + poll + publish + poll + publish,
		armed + poll + flush + poll + publish, // pipelined while it waits
		armed + poll + poll + publish + publish,
		armed + poll + flush + "GET /echo HTTP/1.1\r\nHost: gpoll.test\r\n\r\n" + publish,
		armed + poll + flush + "x" + publish,
		armed + poll + "\r\n" + publish + poll + publish, // which begins the next request with an empty line
		armed + poll + flush + remove + poll + flush,
		armed + remove + poll + flush,
		armed + get("/poll?client-id=OWN&after=NOW", "Cookie: a=b") + publish +
			get("/poll?client-id=OWN&after=NOW", "Cookie: a=c") + publish,
		armed + get("/poll?client-id=OWN&after=NOW", "Connection: close") + publish + poll,
		armed + get("/poll?client-id=OWN&after=NOW", "Accept: application/json") + publish + poll + publish,
		armed + get("/poll?client-id=OWN&after=NOW", "Accept: text/event-stream") + publish,
		armed + "POST /poll HTTP/1.1\r\nHost: gpoll.test\r\n\r\n" + poll + publish,
		armed + echo + fmt.Sprint(len("GET /poll?client-id=OWN HTTP/1.1\r\nHost: gpoll.test\r\n\r\n")) + "\r\n\r\n" +
			flush + blind + publish,
		blind + publish + blind + publish + echo + "54\r\n\r\n" + flush + blind + publish + blind,
		armed + "GET /poll?client-id=OWN&after=NOW HTTP/1.0\r\n\r\n" + publish,
		armed + "GET /poll?client-id=OWN&after=9f86d081884c7d65-41 HTTP/1.1\r\nHost: gpoll.test\r\n\r\n" + publish,
		armed + strings.Replace(poll, "NOW", "NOW0", 1) + publish,
		armed + strings.Replace(poll, "NOW", "NOW99999999999999999999", 1) + publish,
		armed + strings.ReplaceAll(poll, "\r\n", "\n") + publish + poll + publish,
		get("/poll?client-id=0") + flush + get("/poll?client-id=0&format=json&topic=a") + flush,
		"\r\n" + armed + poll + publish,
		publish + publish + blind + blind + flush + blind + publish,
	}
	for i := range poll { // cut everywhere
		list = append(list, armed+poll[:i]+flush+poll[i:]+publish)
	}
	return list
}()

// FuzzListener plays a script to a server on an ordinary listener and to one on Broadcaster.Listener, and compares
// every answer.
func FuzzListener(f *testing.F) {
	for _, script := range scripts {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script string) {
		if len(script) > 20_000 {
			t.Skip("longer than it has to be")
		}
		plain, _ := playOn(t, script, false)
		wrapped, _ := playOn(t, script, true)
		if plain != wrapped {
			t.Fatalf("the ordinary listener answers\n%s\n\nand Broadcaster.Listener\n%s", plain, wrapped)
		}
	})
}

// TestListenerScripts shows that the scripts meet what they are for.
func TestListenerScripts(t *testing.T) {
	total := uint64(0)
	for i, script := range scripts {
		_, repeats := playOn(t, script, true)
		if repeats == 0 && i < 14 {
			t.Errorf("script %d: no poll was answered without net/http: %q", i, script)
		}
		total += repeats
	}
	t.Logf("%d repeats in %d scripts", total, len(scripts))
}

func playOn(t *testing.T, script string, wrapped bool) (heard string, repeats uint64) {
	synctest.Test(t, func(t *testing.T) { heard, repeats = play(t, script, wrapped) })
	return heard, repeats
}

// play returns the server's answers, in a form that two runs have in common.
func play(t *testing.T, script string, wrapped bool) (heard string, repeats uint64) {
	b := gpoll.NewBroadcaster()
	b.PollWait = time.Second
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "echo %q", digits.ReplaceAll(body, []byte("h"))) // an id and a Position may be cut anywhere
	})
	mine := httptest.NewRecorder()
	b.HandleRequests(mine, httptest.NewRequest(http.MethodGet, "/poll", nil))
	own, now := idOf(t, mine.Body.String()), mine.Header().Get("Gpoll-Position")

	s := &server{Broadcaster: b}
	stop := s.serveMemory(t, mux, setup{listener: wrapped})
	conn, err := s.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	heardAll := make(chan string)
	go func() { // ends with the connection
		all, _ := io.ReadAll(conn)
		heardAll <- string(all)
	}()
	epoch := now[:17]
	say := func(text string) {
		if text == "" {
			return
		}
		_, _ = conn.Write([]byte(strings.NewReplacer("OWN", own, "NOW", now).Replace(text))) // the server may have closed
		synctest.Wait()
	}
	put := func(topic string) {
		now = s.mustPublish(t, topic, "message "+now[17:]).String()
		synctest.Wait()
	}
	begin := 0
	for i := range len(script) {
		if script[i] > remove[0] {
			continue
		}
		say(script[begin:i])
		begin = i + 1
		switch script[i : i+1] {
		case publish:
			put("")
		case topical:
			put("a")
		case elapse:
			advance(1200 * time.Millisecond)
		case remove:
			b.RemoveClient(own)
			synctest.Wait()
		}
	}
	say(script[begin:])
	if half, ok := conn.(*gpolltest.Conn); ok {
		half.CloseWrite()
	}
	advance(3 * time.Second) // what waits comes to its end
	conn.Close()
	answers := <-heardAll
	repeats = b.Stats().Repeats
	shutdown(t, b)
	stop()
	return common(answers, strings.NewReplacer(own, "OWN", epoch, "EPOCH-")), repeats
}

var digits = regexp.MustCompile(`[0-9a-f]`)

var varies = regexp.MustCompile(`\d+\$[0-9a-f-]{36}|"retry_ms":\d+|[0-9a-f]{32}`)

// common spells answers without what differs between two runs, and their heads in one order.
func common(answers string, names *strings.Replacer) string {
	r := bufio.NewReader(strings.NewReader(answers))
	var out strings.Builder
	for {
		if _, err := r.Peek(1); err != nil {
			break
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			fmt.Fprintf(&out, "not an answer: %v\n", err)
			break
		}
		body, err := io.ReadAll(resp.Body)
		fmt.Fprintf(&out, "%s %s close=%v\n", resp.Proto, resp.Status, resp.Close)
		var lines []string
		for name, values := range resp.Header {
			switch name {
			case "Date", "Retry-After":
				values = []string{"…"}
			}
			lines = append(lines, fmt.Sprintf("%s: %q\n", name, values))
		}
		slices.Sort(lines)
		fmt.Fprintf(&out, "%s%s %v\n", strings.Join(lines, ""), body, err)
	}
	return varies.ReplaceAllString(names.Replace(out.String()), "…")
}
