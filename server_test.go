package gpoll_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
	decode "github.com/corvuscrypto/gpoll/internal/wire"
)

// patience bounds every wait of a test that runs on real time. Nothing is asserted with it.
const patience = 20 * time.Second

// A server is one Broadcaster behind one http.Server, with a client for it.
type server struct {
	*gpoll.Broadcaster
	url    string
	client *http.Client
	dial   func(context.Context) (net.Conn, error)
	settle func() // lets the server come to rest, in a bubble; nil on real time
}

// A setup says how a server differs from the ordinary one: HTTP/1.1 in clear over loopback, mounted at /poll.
type setup struct {
	broadcaster func(*gpoll.Broadcaster)
	server      func(*http.Server)
	wrap        func(http.Handler) http.Handler
	tls         bool                            // TLS with HTTP/2
	http1       bool                            // with tls: HTTP/1.1 only
	memory      bool                            // the in-memory listener, for fake time
	buffer      int                             // with memory: bytes that a connection holds; 0: the ordinary size
	listener    bool                            // on Broadcaster.Listener; GPOLL_TEST_LISTENER=1 sets it for every test
	coded       bool                            // connections are codedConns at both ends
	under       func(net.Listener) net.Listener // with memory: goes around the listener, below everything else
}

// A codedConn encodes what it carries: the bytes on the wire are not those that are read from it and written to it,
// although it shows its socket.
type codedConn struct{ *net.TCPConn }

func (c codedConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	code(p[:n])
	return n, err
}

func (c codedConn) Write(p []byte) (int, error) {
	p = bytes.Clone(p)
	code(p)
	return c.TCPConn.Write(p)
}

func code(p []byte) {
	for i := range p {
		p[i] ^= 0x55
	}
}

type codedListener struct{ net.Listener }

func (l codedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return codedConn{conn.(*net.TCPConn)}, nil
}

func (how setup) wrapped() bool { return how.listener || os.Getenv("GPOLL_TEST_LISTENER") != "" }

// start runs a server until the test ends. At its end the server must shut down and leave nobody attached.
func start(t testing.TB, how setup) *server {
	t.Helper()
	b := gpoll.NewBroadcaster()
	if how.broadcaster != nil {
		how.broadcaster(b)
	}
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	var handler http.Handler = mux
	if how.wrap != nil {
		handler = how.wrap(mux)
	}
	s := &server{Broadcaster: b}
	var stop func()
	if how.memory {
		stop = s.serveMemory(t, handler, how)
	} else {
		stop = s.serveLoopback(handler, how)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		s.client.CloseIdleConnections()
		stop()
		if st := b.Stats(); st.Clients != 0 || st.Routines != 0 {
			t.Errorf("after Shutdown: %d clients, %d routines", st.Clients, st.Routines)
		}
	})
	return s
}

func (s *server) serveLoopback(handler http.Handler, how setup) (stop func()) {
	ts := httptest.NewUnstartedServer(handler)
	if how.server != nil {
		how.server(ts.Config)
	}
	if how.coded {
		ts.Listener = codedListener{ts.Listener}
	}
	if how.wrapped() {
		ts.Listener = s.Listener(ts.Listener)
	}
	if how.tls {
		ts.EnableHTTP2 = !how.http1
		ts.StartTLS()
	} else {
		ts.Start()
	}
	s.url = ts.URL
	s.client = ts.Client()
	s.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", ts.Listener.Addr().String())
		if err == nil && how.coded {
			conn = codedConn{conn.(*net.TCPConn)}
		}
		return conn, err
	}
	if how.coded {
		s.client = s.clientOnDial()
	}
	return ts.Close
}

func (s *server) serveMemory(t testing.TB, handler http.Handler, how setup) (stop func()) {
	ln := gpolltest.NewListener()
	ln.Buffer = how.buffer
	var accepts net.Listener = ln
	if how.under != nil {
		accepts = how.under(ln)
	}
	if how.wrapped() {
		accepts = s.Listener(accepts)
	}
	hs := &http.Server{Handler: handler}
	if how.server != nil {
		how.server(hs)
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(accepts) }() // ends with hs.Close in stop
	s.url = "http://gpoll.test"
	s.settle = synctest.Wait
	s.dial = func(ctx context.Context) (net.Conn, error) { return ln.DialContext(ctx, "tcp", "gpoll.test:80") }
	s.client = s.clientOnDial()
	return func() {
		hs.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	}
}

func (s *server) clientOnDial() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx) },
	}}
}

// An answer is a whole HTTP response.
type answer struct {
	status int
	header http.Header
	body   string
}

// position returns the Gpoll-Position header.
func (a answer) position() string { return a.header.Get("Gpoll-Position") }

// code returns the stable code of an error answer and checks that it has one form everywhere.
func (a answer) code(t testing.TB) string {
	t.Helper()
	var e struct {
		Error   string `json:"error"`
		Message string `json:"message"`
		Retry   int64  `json:"retry_ms"`
	}
	body, kind := errorOf(a.body), "application/json"
	if a.status == http.StatusOK && body != a.body {
		kind = "text/event-stream"
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("status %d: the body %q of an error is not JSON: %v", a.status, a.body, err)
	}
	if e.Error == "" || e.Message == "" || a.header.Get("Gpoll-Error") != e.Error || a.header.Get("Content-Type") != kind {
		t.Errorf("status %d: error body %s with Gpoll-Error %q and Content-Type %q", a.status, a.body,
			a.header.Get("Gpoll-Error"), a.header.Get("Content-Type"))
	}
	if a.status == 429 || a.status == 503 {
		if e.Retry <= 0 || a.header.Get("Retry-After") == "" {
			t.Errorf("status %d: retry_ms %d, Retry-After %q", a.status, e.Retry, a.header.Get("Retry-After"))
		}
	}
	return e.Error
}

// A batch is the body of a JSON poll.
type batch struct {
	ClientID string    `json:"client-id"`
	Position string    `json:"position"`
	Messages []element `json:"messages"`
	More     bool      `json:"more"`
}

// An element is one message or one gap, as JSON.
type element struct {
	ID     string `json:"id"`
	Topic  string `json:"topic"`
	Data   string `json:"data"`
	Data64 string `json:"data64"`
	Gap    *struct {
		From   string `json:"from"`
		To     string `json:"to"`
		Reason string `json:"reason"`
	} `json:"gap"`
}

func (e element) payload(t testing.TB) string {
	if e.Data64 == "" {
		return e.Data
	}
	data, err := base64.StdEncoding.DecodeString(e.Data64)
	if err != nil {
		t.Fatalf("data64 %q: %v", e.Data64, err)
	}
	return string(data)
}

func (a answer) batch(t testing.TB) batch {
	t.Helper()
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("not a JSON poll's answer: %d %q %s", a.status, a.header.Get("Content-Type"), a.body)
	}
	var v batch
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("body %s: %v", a.body, err)
	}
	return v
}

// payloads returns the data of every message of v.
func (v batch) payloads(t testing.TB) []string {
	var all []string
	for _, e := range v.Messages {
		if e.Gap == nil {
			all = append(all, e.payload(t))
		}
	}
	return all
}

// request makes a GET of path, relative to the server, with pairs of header names and values.
func (s *server) request(t testing.TB, ctx context.Context, path string, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// try sends r and reads the whole answer.
func (s *server) try(r *http.Request) (answer, error) {
	resp, err := s.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}

func (s *server) do(t testing.TB, r *http.Request) answer {
	t.Helper()
	a, err := s.try(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return a
}

// get is request and do, bounded by patience.
func (s *server) get(t testing.TB, path string, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
	defer cancel()
	return s.do(t, s.request(t, ctx, path, header...))
}

// later is get in a goroutine of its own, which ends with the answer. The channel gives the answer, or the zero answer
// after an error.
func (s *server) later(t testing.TB, path string, header ...string) <-chan answer {
	t.Helper()
	done := make(chan answer, 1)
	r := s.request(t, t.Context(), path, header...)
	over := make(chan struct{})
	go func() { // ends with the answer, or with the test
		defer close(over)
		a, err := s.try(r)
		if err != nil && t.Context().Err() == nil {
			t.Errorf("%s: %v", path, err)
		}
		done <- a
	}()
	t.Cleanup(func() { <-over })
	return done
}

// post sends a JSON body with the client id in its header.
func (s *server) post(t testing.TB, path, id, body string, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
	defer cancel()
	r := s.request(t, ctx, path, append([]string{"Content-Type", "application/json", "Gpoll-Client-Id", id}, header...)...)
	r.Method = http.MethodPost
	r.Body = io.NopCloser(strings.NewReader(body))
	r.ContentLength = int64(len(body))
	return s.do(t, r)
}

// register makes a client by a poll and returns its id and the Position it starts at.
func (s *server) register(t testing.TB, header ...string) (id, position string) {
	t.Helper()
	a := s.get(t, "/poll?client-id=0", header...)
	if a.status != http.StatusOK {
		t.Fatalf("register: %d %s", a.status, a.body)
	}
	return idOf(t, a.body), a.position()
}

// idOf reads a registration.
func idOf(t testing.TB, body string) string {
	t.Helper()
	var v struct {
		ClientID string `json:"client-id"`
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil || v.ClientID == "" {
		t.Fatalf("registration %q: %v", body, err)
	}
	return v.ClientID
}

// query spells a query string of pairs.
func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return "?" + v.Encode()
}

// mustPublish publishes data to topic ("" is everybody).
func (s *server) mustPublish(t testing.TB, topic, data string) gpoll.Position {
	t.Helper()
	pos, err := s.Publish(t.Context(), gpoll.Message{Topic: topic, Data: []byte(data)})
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}
	return pos
}

// witness returns a function that sends data to everybody and returns when the routine has handed it out. From then on
// the window alone decides who else may have it.
func (s *server) witness(t testing.TB) (send func(data string)) {
	t.Helper()
	pipe, err := s.GetChannel(s.AddClient())
	if err != nil {
		t.Fatal(err)
	}
	return func(data string) {
		t.Helper()
		s.Send(data)
		for m := range pipe {
			if m == data {
				return
			}
		}
		t.Errorf("the witness did not get %q", data)
	}
}

// await returns when ok is true, or fails the test. It waits, on real time, for something that another goroutine will
// do soon.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

// awaitAttached waits until n clients are attached by transport.
func (s *server) awaitAttached(t testing.TB, transport string, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d attached by %s", n, transport), func() bool { return s.Stats().Attached[transport] == n })
}

// An event is one dispatched by the rules of the HTML standard, section 9.2.6.
type event struct {
	name, id, data string
	retry          string
}

// An eventStream reads Server-Sent Events.
type eventStream struct {
	resp   *http.Response
	r      *decode.Events
	lastID string
	cancel context.CancelFunc
}

// events opens an SSE stream and fails unless it is one.
func (s *server) events(t testing.TB, path string, header ...string) *eventStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := s.client.Do(s.request(t, ctx, path, header...))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	e := &eventStream{resp: resp, r: decode.NewEvents(resp.Body, 8<<20), cancel: cancel}
	t.Cleanup(e.close)
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || !strings.HasPrefix(ct, "text/event-stream") {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %d %q %s", path, resp.StatusCode, ct, body)
	}
	return e
}

func (e *eventStream) close() {
	e.cancel()
	e.resp.Body.Close()
}

// read returns the next event, io.EOF at the end of the stream. An id without data, and a heartbeat, change lastID
// only.
func (e *eventStream) read() (event, error) {
	retry := ""
	for {
		ev, err := e.r.Next()
		if err != nil {
			return event{}, err
		}
		e.lastID, retry = ev.ID, cmp.Or(ev.Retry, retry)
		if ev.HasData && ev.Name != "position" {
			return event{name: cmp.Or(ev.Name, "message"), id: ev.ID, data: ev.Data, retry: retry}, nil
		}
	}
}

func (e *eventStream) next(t testing.TB) event {
	t.Helper()
	ev, err := e.read()
	if err != nil {
		t.Fatalf("event stream: %v", err)
	}
	return ev
}

// socket opens a WebSocket. protocol is "" for the plain form or "gpoll.v1".
func (s *server) socket(t testing.TB, path, protocol string, header ...string) *websocket.Conn {
	t.Helper()
	c, resp, err := s.trySocket(t, path, protocol, header...)
	if err != nil {
		t.Fatalf("%s: %v %v", path, err, resp)
	}
	return c
}

func (s *server) trySocket(t testing.TB, path, protocol string, header ...string) (*websocket.Conn, answer, error) {
	t.Helper()
	lines, host := http.Header{}, ""
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			host = header[i+1]
			continue
		}
		lines.Add(header[i], header[i+1])
	}
	opts := dialOptions(s.client, lines, host)
	if protocol != "" {
		opts.Subprotocols = []string{protocol}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, s.url+path, opts)
	var a answer
	if resp != nil {
		a = answer{status: resp.StatusCode, header: resp.Header}
		if err != nil && resp.Body != nil {
			body, _ := io.ReadAll(resp.Body)
			a.body = string(body)
		}
	}
	if err != nil {
		return nil, a, err
	}
	c.SetReadLimit(-1)
	t.Cleanup(func() { c.CloseNow() })
	if got := c.Subprotocol(); got != protocol {
		t.Fatalf("subprotocol %q, want %q", got, protocol)
	}
	return c, a, nil
}

// frame reads one text or binary frame.
func frame(t testing.TB, c *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, data, err := c.Read(ctx)
	if err != nil {
		t.Fatalf("websocket read: %v", err)
	}
	return string(data)
}

// say writes one text frame.
func say(t testing.TB, c *websocket.Conn, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatalf("websocket write: %v", err)
	}
}

// closing reads until the peer closes and returns code and reason.
func closing(t testing.TB, c *websocket.Conn) (websocket.StatusCode, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, _, err := c.Read(ctx)
		if err == nil {
			continue
		}
		ce, ok := errors.AsType[websocket.CloseError](err)
		if !ok {
			t.Fatalf("no close frame: %v", err)
		}
		return ce.Code, ce.Reason
	}
}

// raw opens a connection to the server.
func (s *server) raw(t testing.TB) net.Conn {
	t.Helper()
	conn, err := s.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// headerSet spells a header as sorted lines, without the Date.
func headerSet(h http.Header) string {
	var lines []string
	for name, values := range h {
		if name != "Date" {
			for _, v := range values {
				lines = append(lines, name+": "+v)
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// elementOf reads one gpoll.v1 frame that is a message or a gap.
func elementOf(t testing.TB, frame string) element {
	t.Helper()
	var e element
	d := json.NewDecoder(strings.NewReader(frame))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("frame %s is no message and no gap: %v", frame, err)
	}
	return e
}

// gapOfJSON spells the data of an SSE gap event as the Gpoll-Gap header does.
func gapOfJSON(t testing.TB, data string) string {
	t.Helper()
	var g struct{ From, To, Reason string }
	if err := json.Unmarshal([]byte(data), &g); err != nil {
		t.Fatalf("gap %s: %v", data, err)
	}
	return g.From + ".." + g.To + ";" + g.Reason
}

func jsonString(t testing.TB, s string) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// closeFrame is closing for a goroutine of its own: it waits without limit and fails nothing.
func closeFrame(c *websocket.Conn) (websocket.StatusCode, string) {
	for {
		if _, _, err := c.Read(context.Background()); err != nil {
			ce, _ := errors.AsType[websocket.CloseError](err)
			return ce.Code, ce.Reason
		}
	}
}

// errorOf returns the JSON of an error: the body itself, or the data of the event that tells an EventSource.
func errorOf(body string) string {
	if _, data, ok := strings.Cut(body, "event: end\ndata: "); ok {
		return data
	}
	return body
}

// retryOf reads the hint of an ending.
func retryOf(t testing.TB, body string) int64 {
	t.Helper()
	var v struct {
		Retry int64 `json:"retry_ms"`
	}
	if err := json.Unmarshal([]byte(errorOf(body)), &v); err != nil {
		t.Errorf("ending %s: %v", body, err)
	}
	return v.Retry
}
