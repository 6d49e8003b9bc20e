package gpoll_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/corvuscrypto/gpoll"
)

// The mount stands beside the patterns that a program is likely to have, and a taken path panics.
func TestMountBesidePatterns(t *testing.T) {
	for _, pattern := range []string{"/", "GET /", "GET /{page}", "OPTIONS /", "/{page}", "POST /{rest...}",
		"GET /poll/{id}"} {
		t.Run(pattern, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "another") })
			b := gpoll.NewBroadcaster()
			defer shutdown(t, b)
			b.ListenAndBroadcast("/poll", mux)
			for method, want := range map[string]int{"GET": 200, "PUT": 405, "HEAD": 405, "OPTIONS": 204} {
				w := httptest.NewRecorder()
				mux.ServeHTTP(w, httptest.NewRequest(method, "/poll?client-id=0", nil))
				elsewhere := method == "PUT" && w.Body.String() == "another"
				if w.Code != want && !elsewhere || method == "GET" && w.Header().Get("Referrer-Policy") == "" {
					t.Errorf("%s: %d %s", method, w.Code, w.Body)
				}
			}
		})
	}
}

func TestMountPanics(t *testing.T) {
	taken := func(pattern string) []*http.ServeMux {
		mux := http.NewServeMux()
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
		return []*http.ServeMux{mux}
	}
	for _, tt := range []struct {
		path string
		mux  []*http.ServeMux
		want string
	}{
		{"poll", nil, "like /poll"},
		{"/a//b", nil, "like /poll"},
		{"/a/../b", nil, "like /poll"},
		{"/poll?x=1", nil, "like /poll"},
		{"/poll#x", nil, "like /poll"},
		{"/a b", nil, "like /poll"},
		{"/{x}", nil, "like /poll"},
		{"/p%6fll", nil, "like /poll"},
		{"/poll", []*http.ServeMux{nil}, "nil mux"},
		{"/poll", []*http.ServeMux{http.NewServeMux(), http.NewServeMux()}, "one mux"},
		{"/poll", taken("GET /poll"), "conflicts"},
		{"/poll", taken("POST /poll/ws"), "conflicts"},
	} {
		t.Run(tt.path+" "+tt.want, func(t *testing.T) {
			defer func() {
				if said := fmt.Sprint(recover()); !strings.Contains(said, tt.want) {
					t.Errorf("%s", said)
				}
			}()
			b := gpoll.NewBroadcaster()
			defer shutdown(t, b)
			b.ListenAndBroadcast(tt.path, tt.mux...)
		})
	}
}

// Clients that offer h2c at each request, as Java's and curl --http2, poll and read SSE.
func TestUpgradeToSomethingElse(t *testing.T) {
	s := start(t, setup{})
	offer := []string{"Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c",
		"HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"}
	if a := s.get(t, "/poll?client-id=0", offer...); a.status != 200 {
		t.Errorf("a registration: %d %s", a.status, a.body)
	}
	s.events(t, "/poll", append(offer, "Accept", "text/event-stream")...).next(t)
}

// What a request says and is not understood is refused: to pass over it would make something else of the request.
func TestTopicsInQuery(t *testing.T) {
	s := start(t, setup{})
	for _, path := range []string{"/poll?client-id=0&topics=a", "/poll/events?topics=a,b", "/poll/ws?topics=a"} {
		header := []string{}
		if strings.Contains(path, "ws") {
			header = wsHandshake
		}
		if a := s.get(t, path, header...); a.status != 400 || !strings.Contains(a.body, "topic=a") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// event-source-polyfill comes back with its cursor in the query, beside what the page's URL says.
func TestLastEventIDInQuery(t *testing.T) {
	s := start(t, setup{})
	first := s.events(t, "/poll/events")
	id := first.next(t)
	s.Send("a")
	first.next(t)
	at := first.lastID
	first.close()
	s.Send("b")
	again := s.events(t, "/poll/events?after="+id.id+"&lastEventId="+at)
	again.next(t)
	if ev := again.next(t); ev.data != "b" {
		t.Errorf("%+v, want b, which came after the last one", ev)
	}
	if a := s.get(t, "/poll/events?lastEventId="+at+"&lastEventId="+at); a.status != 400 {
		t.Errorf("twice: %d %s", a.status, a.body)
	}
}

// Over HTTP/2 a GET may end by an empty frame of data: the server is not told that there is no body.
func TestHTTP2GetOfUnknownLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := overHTTP2(t, nil)
		nothing := io.NopCloser(strings.NewReader(""))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/poll?client-id=0", nothing)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = -1
		if a := s.do(t, r); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}

// A preflight lists what gpoll reads, what EventSource polyfills send, and what the application says.
func TestPreflightHeaders(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) {
		b.AllowedOrigins = []string{"https://app.test"}
		b.AuthHeaders = []string{"Cookie", "X-Token"}
		b.AllowedHeaders = []string{"traceparent", "cache-control"}
	}})
	r := s.request(t, t.Context(), "/poll", "Origin", "https://app.test", "Access-Control-Request-Method", "GET")
	r.Method = http.MethodOptions
	const want = "Authorization, Cache-Control, Content-Type, Gpoll-Client-Id, Gpoll-Fallback, Last-Event-ID, X-Token, " +
		"Traceparent"
	if got := s.do(t, r).header.Get("Access-Control-Allow-Headers"); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	bad := &gpoll.Broadcaster{AllowedHeaders: []string{"a b"}}
	_, err := bad.Publish(t.Context(), gpoll.Message{})
	if err == nil || !strings.Contains(err.Error(), "AllowedHeaders") {
		t.Errorf("a bad header: %v", err)
	}
}
