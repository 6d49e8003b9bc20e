package gpoll_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// WriteTimeout bounds the time without progress, on every way to a client.

// A slowConn takes so many bytes in a second; with 0 nothing, and with a negative rate everything at once.
type slowConn struct {
	net.Conn
	rate    *atomic.Int64
	stopped chan struct{} // closed by Close
	once    sync.Once
}

func (c *slowConn) Read(p []byte) (int, error) {
	rate := c.awaitRate()
	if rate > 0 {
		p = p[:min(len(p), int(max(rate/10, 1)))]
	}
	n, err := c.Conn.Read(p)
	c.awaitRate() // which may have become 0 meanwhile: what came then is not taken either
	if rate > 0 {
		select {
		case <-time.After(time.Duration(n) * time.Second / time.Duration(rate)):
		case <-c.stopped:
		}
	}
	return n, err
}

// awaitRate waits until the rate is not 0 or the connection is closed.
func (c *slowConn) awaitRate() int64 {
	for {
		if rate := c.rate.Load(); rate != 0 {
			return rate
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-c.stopped:
			return 0
		}
	}
}

func (c *slowConn) Close() error {
	c.once.Do(func() { close(c.stopped) })
	return c.Conn.Close()
}

// An openListener counts the connections that the server has not closed yet.
type openListener struct {
	net.Listener
	open *atomic.Int64
}

type openConn struct {
	*gpolltest.Conn
	open *atomic.Int64
	once sync.Once
}

func (l openListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &openConn{Conn: conn.(*gpolltest.Conn), open: l.open}, nil
}

func (c *openConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// A slowServer is a server whose client takes rate bytes in a second.
type slowServer struct {
	*server
	rate atomic.Int64
	open atomic.Int64
}

// A way brings messages to a client. begin registers, attaches as far as it can, has publish called and then reads.
type way struct {
	name   string
	how    func(*setup)
	h2     bool
	http2  *http.HTTP2Config // the server's
	secure bool
	stream bool // it has its end told, for another WriteTimeout
	kept   bool // the attach ends before the answer has gone out: look at the connection
	read   func(t *testing.T, s *slowServer, publish func()) (string, error)
}

func (s *slowServer) pollOf(t *testing.T, post bool, id, at string) *http.Request {
	if !post {
		return s.request(t, t.Context(), "/poll"+query("client-id", id, "after", at, "format", "json"))
	}
	body := fmt.Sprintf(`{"after":%q,"format":"json"}`, at)
	r := s.request(t, t.Context(), "/poll", "Gpoll-Client-Id", id, "Content-Type", "application/json")
	r.Method, r.Body, r.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader(body)), int64(len(body))
	return r
}

// poll polls until it has seen the end. after is how long it waits before there is something.
func poll(post bool, after time.Duration) func(*testing.T, *slowServer, func()) (string, error) {
	return func(t *testing.T, s *slowServer, publish func()) (string, error) {
		id, at := s.register(t)
		if after > 0 {
			time.AfterFunc(after, publish)
		} else {
			publish()
		}
		var all strings.Builder
		for {
			a, err := s.try(s.pollOf(t, post, id, at))
			all.WriteString(a.body)
			if err != nil || a.status != http.StatusOK || strings.Contains(a.body, "END") {
				return all.String(), err
			}
			at = a.position()
		}
	}
}

func keptPoll(parked bool) func(*testing.T, *slowServer, func()) (string, error) {
	return func(t *testing.T, s *slowServer, publish func()) (string, error) {
		w := s.wire(t)
		w.register()
		w.json = true
		w.arm()
		if parked {
			w.parked()
			publish()
		} else {
			publish()
			w.poll()
		}
		var all strings.Builder
		for {
			a, err := w.read()
			all.WriteString(a.body)
			if err != nil || strings.Contains(a.body, "END") {
				return all.String(), err
			}
			w.poll()
		}
	}
}

// until reads from r until it has seen "end" at the end of what there is.
func until(r io.Reader) (string, error) {
	var all strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		all.Write(buf[:n])
		if s := all.String(); err != nil || strings.Contains(s[max(0, len(s)-n-3):], "END") {
			return s, err
		}
	}
}

func eventsOf(t *testing.T, s *slowServer, publish func()) (string, error) {
	e := s.events(t, "/poll/events"+query("client-id", "0", "format", "json"))
	publish()
	return until(e.resp.Body)
}

func socketOf(protocol string) func(*testing.T, *slowServer, func()) (string, error) {
	return func(t *testing.T, s *slowServer, publish func()) (string, error) {
		c := s.socket(t, "/poll/ws?client-id=0", protocol)
		if protocol != "" {
			say(t, c, `{"hello":{}}`)
		}
		frame(t, c)
		publish()
		return until(readFrames{c})
	}
}

type readFrames struct{ c *websocket.Conn }

func (f readFrames) Read(p []byte) (int, error) {
	_, r, err := f.c.Reader(context.Background())
	if err != nil {
		return 0, err
	}
	data, err := io.ReadAll(r)
	if len(data) > len(p) {
		if strings.HasSuffix(string(data), "END") || strings.Contains(string(data), "END\"") {
			return copy(p, "…END"), err
		}
		return copy(p, "…"), err
	}
	return copy(p, data), err
}

// noHijack hides that the connection can be taken over.
func noHijack(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(struct {
			http.ResponseWriter
			http.Flusher
			deadlineSetter
		}{w, w.(http.Flusher), w.(deadlineSetter)}, r)
	})
}

type deadlineSetter interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

var ways = []way{
	{name: "poll", read: poll(false, 0)},
	{name: "poll that waits", read: poll(false, 3*time.Second)},
	{name: "POST", read: poll(true, 0)},
	{name: "poll over HTTP/2", h2: true, read: poll(false, 0)},
	{name: "poll over TLS", secure: true, read: poll(false, 0)},
	{name: "Listener, parked", how: func(h *setup) { h.listener = true }, kept: true, read: keptPoll(true)},
	{name: "Listener, at once", how: func(h *setup) { h.listener = true }, kept: true, read: keptPoll(false)},
	{name: "SSE", stream: true, read: eventsOf},
	{name: "SSE through net/http", stream: true, how: func(h *setup) { h.wrap = noHijack }, read: eventsOf},
	{name: "SSE over HTTP/2", stream: true, h2: true, read: eventsOf},
	{name: "SSE over TLS", stream: true, secure: true, read: eventsOf},
	{name: "WebSocket", stream: true, read: socketOf("")},
	{name: "gpoll.v1", stream: true, read: socketOf("gpoll.v1")},
	{name: "WebSocket over TLS", stream: true, secure: true, read: socketOf("gpoll.v1")},
}

// serve starts a server for the way. certificate is for TLS.
func (w *way) serve(t *testing.T, certificate tls.Certificate) *slowServer {
	s := &slowServer{}
	s.rate.Store(-1)
	how := setup{memory: true, buffer: 8 << 10, broadcaster: func(b *gpoll.Broadcaster) { b.MaxMessage = 2 << 20 }}
	how.under = func(ln net.Listener) net.Listener { return openListener{ln, &s.open} }
	if w.secure {
		open := how.under
		how.under = func(ln net.Listener) net.Listener {
			return tls.NewListener(open(ln), &tls.Config{Certificates: []tls.Certificate{certificate}})
		}
	}
	if w.how != nil {
		w.how(&how)
	}
	if w.h2 {
		how.server = func(hs *http.Server) {
			hs.Protocols = new(http.Protocols)
			hs.Protocols.SetUnencryptedHTTP2(true)
			hs.HTTP2 = w.http2
		}
	}
	s.server = start(t, how)
	dial := s.dial
	s.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		conn = &slowConn{Conn: conn, rate: &s.rate, stopped: make(chan struct{})}
		t.Cleanup(func() { conn.Close() }) // one of HTTP/2 may not count as idle yet when the client's are closed
		if w.secure {
			secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			return secure, secure.HandshakeContext(ctx) // here, since a bubble's clock does not go on beside a Mutex
		}
		return conn, nil
	}
	transport := s.clientOnDial().Transport.(*http.Transport)
	if w.h2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	s.client = &http.Client{Transport: transport}
	return s
}

// A client that takes 40 KiB in a second gets 960 kB on every way, in one message and in a batch: in 24 s, with a
// WriteTimeout of 10 s. So does one that takes 4 KiB in a second, in four minutes.
func TestProgressIsKept(t *testing.T) {
	cert := certificateForTests()
	for _, w := range ways {
		for _, c := range []struct{ rate, messages, size int }{
			{40 << 10, 1, 960_000}, {40 << 10, 20, 48_000}, {4 << 10, 1, 960_000},
		} {
			t.Run(fmt.Sprintf("%s/%d of %d at %d", w.name, c.messages, c.size, c.rate), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := w.serve(t, cert)
					got, err := w.read(t, s, func() {
						s.rate.Store(int64(c.rate))
						for range c.messages - 1 {
							s.mustPublish(t, "", strings.Repeat("x", c.size))
						}
						s.mustPublish(t, "", strings.Repeat("x", c.size)+"END")
					})
					if err != nil || !strings.Contains(got, "END") {
						t.Errorf("%d bytes, %v; the server has ended: %v", len(got), err, s.Stats().Dropped)
					}
					s.rate.Store(-1)
				})
			})
		}
	}
}

// A client that takes nothing, or a byte now and then, is cut at WriteTimeout: a poll, and a stream after its end has
// had WriteTimeout too.
func TestNoProgressIsCut(t *testing.T) {
	cert := certificateForTests()
	for _, w := range ways {
		for _, rate := range []int64{0, 1, 100} {
			t.Run(fmt.Sprintf("%s/%d", w.name, rate), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := w.serve(t, cert)
					began := make(chan time.Time, 1)
					over := make(chan struct{})
					go func() { // ends when the client takes everything
						defer close(over)
						w.read(t, s, func() {
							s.rate.Store(rate)
							s.mustPublish(t, "", strings.Repeat("x", 960_000)+"END")
							began <- time.Now()
						})
					}()
					from := <-began
					time.Sleep(time.Second) // the answer is under way
					ended := func() bool {
						st := s.Stats()
						return st.Attached["long-poll"]+st.Attached["sse"]+st.Attached["websocket"] == 0
					}
					if w.kept {
						open := s.open.Load()
						ended = func() bool { return s.open.Load() < open }
					}
					for !ended() && time.Since(from) < 5*time.Minute {
						time.Sleep(50 * time.Millisecond)
					}
					within(t, "cut", time.Since(from), 9900*time.Millisecond, 13*time.Second)
					if n := s.Stats().Dropped["slow"]; w.stream && n != 1 {
						t.Errorf("%d ended as slow", n)
					}
					s.rate.Store(-1)
					<-over
				})
			})
		}
	}
}

// The server's own pings end the stream of a machine that vanished, over HTTP/2, as docs/guide.md says.
func TestHTTP2MachineVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := way{h2: true,
			http2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, WriteByteTimeout: 10 * time.Second}}
		s := w.serve(t, tls.Certificate{})
		stream := s.events(t, "/poll/events?client-id=0")
		stream.next(t)
		advance(5 * time.Minute)
		if n := s.Stats().Attached["sse"]; n != 1 {
			t.Fatalf("%d streams are attached", n)
		}
		s.rate.Store(0)
		began := time.Now()
		for s.Stats().Attached["sse"] > 0 && time.Since(began) < 5*time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		within(t, "given up", time.Since(began), 10*time.Second, 40*time.Second)
		s.rate.Store(-1)
	})
}

// A client whose batch was cut gets smaller ones until one goes out. When its link is good again the batches grow.
func TestBatchThatWasCut(t *testing.T) {
	cert := certificateForTests()
	for _, w := range ways {
		if w.stream {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := w.serve(t, cert)
				id, at := s.register(t)
				fill := func() {
					for range 400 {
						s.mustPublish(t, "", strings.Repeat("x", 2000))
					}
					s.mustPublish(t, "", "END")
				}
				cut := 0
				batches := func(rate int64) (sizes []int) {
					s.rate.Store(rate)
					for range 300 {
						a, err := s.try(s.pollOf(t, w.name == "POST", id, at))
						if err != nil {
							cut++
							s.client.CloseIdleConnections()
							continue
						}
						if a.status != http.StatusOK {
							t.Fatalf("%d %s", a.status, a.body)
						}
						at = a.position()
						sizes = append(sizes, len(a.body))
						if strings.Contains(a.body, "END") {
							return sizes
						}
					}
					t.Fatalf("%d cut, then %d came", cut, len(sizes))
					return nil
				}
				fill()
				batches(1000)
				if cut < 3 || cut > 30 {
					t.Errorf("%d batches were cut", cut)
				}
				largest := 0
				for range 30 {
					fill()
					for _, size := range batches(-1) {
						largest = max(largest, size)
					}
				}
				if largest < 800_000 {
					t.Errorf("on a good link the largest batch has %d bytes", largest)
				}
			})
		})
	}
}
