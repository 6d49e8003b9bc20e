package gpoll_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

const upgradeRequest = "GET /poll/ws%s HTTP/1.1\r\nHost: gpoll.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"

// A reader is a client of a stream that reads when the test says so, byte by byte of the wire.
type reader struct {
	net.Conn
	r    *bufio.Reader
	kind string // "sse", "websocket" or "gpoll.v1"
}

var streamKinds = []string{"sse", "websocket", "gpoll.v1"}

// transport is how Stats names the kind.
func transportOf(kind string) string {
	if kind == "gpoll.v1" {
		return "websocket"
	}
	return kind
}

// stream attaches the client id ("0": a new one) and reads up to its registration. cursor may be "".
func (s *server) stream(t testing.TB, kind, id, cursor string) *reader {
	t.Helper()
	conn := s.raw(t)
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetReadBuffer(16 << 10)
	}
	c := &reader{conn, bufio.NewReaderSize(conn, 16), kind}
	pairs := []string{"client-id", id}
	if cursor != "" {
		pairs = append(pairs, "after", cursor)
	}
	switch kind {
	case "sse":
		fmt.Fprintf(conn, "GET /poll/events%s HTTP/1.1\r\nHost: gpoll.test\r\n\r\n", query(pairs...))
	case "websocket":
		fmt.Fprintf(conn, upgradeRequest, query(pairs...), "")
	case "gpoll.v1":
		fmt.Fprintf(conn, upgradeRequest, "", "Sec-WebSocket-Protocol: gpoll.v1\r\n")
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: the head ends with %q, %v", kind, line, err)
		}
		if line == "\r\n" {
			break
		}
	}
	if kind == "gpoll.v1" {
		conn.Write(clientFrame(t, fmt.Sprintf(`text {"hello":{"client-id":"%s","after":"%s"}}`, id, cursor)))
	}
	if _, end, err := c.next(); end != "" || err != nil {
		t.Fatalf("%s: %q and %v in the place of the registration", kind, end, err)
	}
	return c
}

// next reads one frame or event. It returns a message as data, or an end such as `4008 slow` or `slow`. A torn frame or
// event is io.ErrUnexpectedEOF.
func (c *reader) next() (data, end string, err error) {
	if c.kind == "sse" {
		return c.nextEvent()
	}
	var head [2]byte
	if _, err = io.ReadFull(c.r, head[:]); err != nil {
		return "", "", err
	}
	size := uint64(head[1])
	switch size {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(c.r, b[:])
		size = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(c.r, b[:])
		size = binary.BigEndian.Uint64(b[:])
	}
	payload := make([]byte, size)
	if err == nil {
		_, err = io.ReadFull(c.r, payload)
	}
	if err != nil {
		return "", "", io.ErrUnexpectedEOF
	}
	switch head[0] {
	case 0x80 | 8:
		return "", fmt.Sprint(binary.BigEndian.Uint16(payload), " ", string(payload[2:])), nil
	case 0x80 | 9, 0x80 | 10:
		return c.next()
	}
	return string(payload), "", nil
}

func (c *reader) nextEvent() (data, end string, err error) {
	var name string
	for begun := false; ; begun = true {
		line, err := c.r.ReadString('\n')
		switch {
		case err == io.EOF && line == "" && !begun:
			return "", "", io.EOF
		case err != nil:
			return "", "", io.ErrUnexpectedEOF
		case line == "\n" && name == "end":
			return "", data, nil
		case line == "\n":
			return data, "", nil
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "event":
			name = value
		case "data":
			data = value
		}
	}
}

// rest reads all messages up to the end, and what it is. The client reads on a little at a time.
func (c *reader) rest() (messages []string, end string, err error) {
	c.r = bufio.NewReaderSize(c.r, 2<<10)
	for {
		m, end, err := c.next()
		if err != nil || end != "" {
			return messages, end, err
		}
		messages = append(messages, m)
	}
}

// says reports whether an end of this kind of stream is the one with that code.
func (c *reader) says(end, code string) bool {
	if c.kind == "sse" {
		return strings.Contains(end, `"error":"`+code+`"`) && (code != "shutdown" || strings.Contains(end, `"retry_ms":`))
	}
	closes := map[string]string{"slow": "4008 slow", "superseded": "4009 superseded", "removed": "4004 removed",
		"shutdown": "1001 shutdown;retry_ms="}
	return end == closes[code] || code == "shutdown" && strings.HasPrefix(end, closes[code])
}

// smallSendBuffers makes the server's sockets hold little that was not read, largeSendBuffers makes them hold much.
var smallSendBuffers, largeSendBuffers = sendBuffers(8 << 10), sendBuffers(1 << 20)

func sendBuffers(size int) func(*http.Server) {
	return func(hs *http.Server) {
		hs.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
			if outer, ok := conn.(interface{ NetConn() net.Conn }); ok {
				conn = outer.NetConn()
			}
			if tcp, ok := conn.(*net.TCPConn); ok {
				tcp.SetWriteBuffer(size)
			}
			return ctx
		}
	}
}

func channelOf(t testing.TB, s *server, id string) {
	t.Helper()
	_, bare, _ := strings.Cut(id, "$")
	if _, err := s.GetChannel(bare, 0); err != nil {
		t.Error(err)
	}
}

// ends are what ends an attach from outside, by the code that its client hears.
var ends = map[string]func(t testing.TB, s *server, id string){
	"superseded": channelOf,
	"removed": func(t testing.TB, s *server, id string) {
		if !s.RemoveClient(id) {
			t.Error("there is no such client")
		}
	},
	"shutdown": func(t testing.TB, s *server, _ string) {
		go s.Shutdown(context.Background()) // ends within WriteTimeout
	},
}

// big is a message that no small buffer holds. Its number comes first.
func big(i int) string { return fmt.Sprintf("%d ", i) + strings.Repeat("x", 20_000+i%3*20_000) }

// checkWhole checks that messages, of big, come in order and unbroken from the first one on.
func checkWhole(t testing.TB, kind string, messages []string) {
	t.Helper()
	for i, m := range messages {
		if kind == "gpoll.v1" {
			m = elementOf(t, m).Data
		}
		if m != big(i) {
			t.Errorf("%s: message %d of %d is %.20q, %d bytes", kind, i, len(messages), m, len(m))
			return
		}
	}
}

// A client that does not read at the moment gets the reason why its attach ended as soon as it reads again, after whole
// frames. The next test is about how long it may take.
func TestEndsOnFullSockets(t *testing.T) {
	var all sync.WaitGroup
	var finish []func()
	resume := make(chan struct{})
	for code, end := range ends {
		for _, kind := range streamKinds {
			s := start(t, setup{server: smallSendBuffers,
				broadcaster: func(b *gpoll.Broadcaster) { b.WriteTimeout = 5 * patience }})
			send := s.witness(t)
			const clients = 20
			var ids []string
			for i := range clients {
				id, after := s.register(t)
				ids = append(ids, id)
				c := s.stream(t, kind, id, after)
				all.Go(func() { // ends with its connection
					<-resume
					c.SetReadDeadline(time.Now().Add(5 * patience))
					messages, said, err := c.rest()
					checkWhole(t, kind, messages)
					if err != nil || !c.says(said, code) {
						t.Errorf("%s, %s, client %d: %q and %v after %d messages", kind, code, i, said, err, len(messages))
					}
					c.Close()
				})
			}
			for i := range 8 {
				send(big(i))
			}
			finish = append(finish, func() {
				await(t, "full sockets", func() bool { return s.Stalled() == clients })
				for _, id := range ids {
					end(t, s, id)
				}
			})
		}
	}
	for _, f := range finish {
		f()
	}
	close(resume)
	all.Wait()
}

// The same for a client that a goroutine serves from the start, to the nanosecond. A client that reads again within
// WriteTimeout gets the end. Any other client is given up at that moment.
func TestEndHasWriteTimeout(t *testing.T) {
	for code, end := range ends {
		for _, kind := range streamKinds {
			for _, pause := range []time.Duration{0, 10*time.Second - 1, 10*time.Second + 1} {
				t.Run(fmt.Sprint(kind, " ", code, " ", pause), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := start(t, setup{memory: true, buffer: 8 << 10})
						id, after := s.register(t)
						c := s.stream(t, kind, id, after)
						for i := range 4 {
							s.Send(big(i))
						}
						synctest.Wait()
						time.Sleep(5 * time.Second) // of the WriteTimeout that the message under way has
						end(t, s, id)
						ended := time.Now()
						time.Sleep(pause)
						messages, said, err := c.rest()
						if pause > 10*time.Second {
							if err != io.ErrUnexpectedEOF {
								t.Errorf("%q and %v after WriteTimeout", said, err)
							}
							return
						}
						checkWhole(t, kind, messages)
						if err != nil || !c.says(said, code) {
							t.Errorf("%q and %v after %d messages", said, err, len(messages))
						}
						if _, err := io.Copy(io.Discard, c.r); err != nil {
							t.Error(err)
						}
						most := pause
						if kind != "sse" && code != "shutdown" {
							most += 5 * time.Second // for the answer to the close frame
						}
						within(t, "closed", time.Since(ended), most, most)
					})
				})
			}
		}
	}
}

// A write that takes longer than WriteTimeout ends the attach as slow. The client gets that end if it reads within
// another WriteTimeout.
func TestSlowWriteIsTold(t *testing.T) {
	for _, kind := range streamKinds {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, setup{memory: true, buffer: 8 << 10})
				id, after := s.register(t)
				c := s.stream(t, kind, id, after)
				s.Send(big(0))
				synctest.Wait()
				begun := time.Now()
				time.Sleep(10*time.Second - 1)
				if n := s.Stats().Attached[transportOf(kind)]; n != 1 {
					t.Errorf("ended within %v", time.Since(begun))
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if n := s.Stats().Attached[transportOf(kind)]; n != 0 {
					t.Errorf("not ended after %v", time.Since(begun))
				}
				time.Sleep(9 * time.Second)
				messages, said, err := c.rest()
				checkWhole(t, kind, messages)
				if len(messages) != 1 || err != nil || !c.says(said, "slow") {
					t.Errorf("%q and %v after %d messages", said, err, len(messages))
				}
				if n := s.Stats().Dropped["slow"]; n != 1 {
					t.Errorf("Dropped = %v", s.Stats().Dropped)
				}
			})
		})
	}
}

// Under DisconnectSlow a client that stops reading and reads again within WriteTimeout gets whole frames and the reason
// of its end.
func TestDisconnectSlowIsTold(t *testing.T) {
	disconnecting := func(b *gpoll.Broadcaster) { b.DisconnectSlow = true; b.ClientBufferSize = 1 }
	for _, kind := range streamKinds {
		t.Run(kind, func(t *testing.T) {
			s := start(t, setup{server: smallSendBuffers, broadcaster: func(b *gpoll.Broadcaster) {
				disconnecting(b)
				b.WriteTimeout = 5 * patience
			}})
			send := s.witness(t)
			const n = 250
			var stuck []*reader
			for range n {
				stuck = append(stuck, s.stream(t, kind, "0", ""))
			}
			// A client that still has a goroutine would wait for its WriteTimeout.
			await(t, "the routine carries all", func() bool { return s.Carried() == n+1 })
			for i := 0; s.Stats().Dropped["slow"] < n; i++ {
				send(big(i))
			}
			var all sync.WaitGroup
			for i, c := range stuck {
				all.Go(func() {
					c.SetReadDeadline(time.Now().Add(5 * patience))
					messages, said, err := c.rest()
					if err != nil || !c.says(said, "slow") {
						t.Errorf("client %d: %q and %v after %d messages", i, said, err, len(messages))
					}
					for i, m := range messages {
						if kind == "gpoll.v1" {
							m = elementOf(t, m).Data
						}
						if m != big(i) {
							t.Errorf("message %d is %.20q", i, m)
						}
					}
					c.Close()
				})
			}
			s.awaitFinish(t, &all)
		})
		t.Run(kind+" in memory", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, setup{memory: true, buffer: 8 << 10, broadcaster: disconnecting})
				c := s.stream(t, kind, "0", "")
				synctest.Wait() // the routine carries it
				for i := range 4 {
					s.Send(big(i))
					synctest.Wait()
				}
				if n := s.Stats().Dropped["slow"]; n != 1 {
					t.Fatalf("Dropped = %v", s.Stats().Dropped)
				}
				time.Sleep(10*time.Second - 1)
				messages, said, err := c.rest()
				checkWhole(t, kind, messages)
				if err != nil || !c.says(said, "slow") {
					t.Errorf("%q and %v after %d messages", said, err, len(messages))
				}
			})
		})
	}
}

// If the client of an SSE response is removed while it attaches, or is superseded at once, the response still begins
// with its head.
func TestHeadComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true})
		id, after := s.register(t)
		channelOf(t, s, id) // the request waits for 20 ms before it supersedes
		conn := s.raw(t)
		fmt.Fprintf(conn, "GET /poll/events%s HTTP/1.1\r\nHost: gpoll.test\r\n\r\n", query("client-id", id, "after", after))
		time.Sleep(10 * time.Millisecond)
		s.RemoveClient(id)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK || err != nil || !strings.HasPrefix(string(body), "event: end\ndata: {") {
			t.Errorf("%d %q %v", resp.StatusCode, body, err)
		}
	})
}

// The same when everything comes at once.
func TestHeadComesFirstAlways(t *testing.T) {
	s := start(t, setup{})
	for i := range 300 {
		id, after := s.register(t)
		conn := s.raw(t)
		fmt.Fprintf(conn, "GET /poll/events%s HTTP/1.1\r\nHost: gpoll.test\r\n\r\n", query("client-id", id, "after", after))
		for s.Stats().Attached["sse"] == 0 && s.Stats().Attached["channel"] == 0 {
		}
		if i%2 == 0 {
			channelOf(t, s, id)
			s.RemoveClient(id)
		} else {
			s.RemoveClient(id)
		}
		all, err := io.ReadAll(conn)
		whole := bytes.HasPrefix(all, []byte("HTTP/1.1 200 OK\r\n")) && bytes.Contains(all, []byte("event: end\n"))
		if err != nil || !whole {
			t.Fatalf("the response is %q, %v", all, err)
		}
		conn.Close()
	}
}

// A poll may have to end while its client does not read the answers before it. The client gets the end if it reads
// within WriteTimeout. After that the connection is given up.
func TestPollEndOnFullSocket(t *testing.T) {
	for code, end := range ends {
		for _, pause := range []time.Duration{10*time.Second - 1, 10*time.Second + 1} {
			t.Run(fmt.Sprint(code, " ", pause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const buffer = 8 << 10
					s := start(t, setup{memory: true, buffer: buffer})
					id, after := s.register(t)
					conn := s.raw(t)
					ask := func(cursor string) {
						fmt.Fprintf(conn, "GET /poll%s HTTP/1.1\r\nHost: gpoll.test\r\n\r\n", query("client-id", id, "after", cursor))
						synctest.Wait()
					}
					ask(after)
					pos := s.mustPublish(t, "", strings.Repeat("x", buffer-400)) // there is room for the head
					synctest.Wait()
					ask(pos.String())
					if n := s.Stats().Attached["long-poll"]; n != 1 {
						t.Fatalf("%d polls wait", n)
					}
					end(t, s, id)
					time.Sleep(pause)
					r := bufio.NewReader(conn)
					status := map[string]int{"superseded": 409, "removed": 404, "shutdown": 503}[code]
					for i, want := range []int{http.StatusOK, status} {
						resp, err := http.ReadResponse(r, nil)
						if i == 1 && pause > 10*time.Second {
							if err == nil {
								_, err = io.ReadAll(resp.Body)
							}
							if err == nil {
								t.Error("the answer is whole after WriteTimeout")
							}
							return
						}
						if err != nil {
							t.Fatal(err)
						}
						if _, err := io.ReadAll(resp.Body); resp.StatusCode != want || err != nil {
							t.Errorf("%d, %v, want %d", resp.StatusCode, err, want)
						}
					}
				})
			})
		}
	}
}

// A command comes to its turn while the socket is full: the goroutine that reads it waits for nobody.
func TestCommandOnFullSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, buffer: 8 << 10})
		id, after := s.register(t)
		c := s.stream(t, "gpoll.v1", id, after)
		s.Send(big(0))
		synctest.Wait()
		c.Write(clientFrame(t, `text {"subscribe":["b"]}`))
		c.Write(clientFrame(t, `ping hello`))
		time.Sleep(time.Second)
		s.mustPublish(t, "b", "first")
		c.Write(clientFrame(t, `text {"leave":true}`))
		time.Sleep(time.Second)
		messages, said, err := c.rest()
		if len(messages) != 1 || said != "1000 left" || err != nil {
			t.Errorf("%q and %v after %d messages", said, err, len(messages))
		}
	})
}

// Shutdown does not wait for a peer that has not said hello, or that does not answer a close frame. Each of them gets
// the end and the moment at which to come back.
func TestShutdownWaitsForNoPeer(t *testing.T) {
	play := func(t *testing.T, s *server, settle func()) (took time.Duration) {
		silent := s.raw(t)
		fmt.Fprintf(silent, upgradeRequest, "", "Sec-WebSocket-Protocol: gpoll.v1\r\n")
		half := s.raw(t) // has begun its hello
		fmt.Fprintf(half, upgradeRequest, "", "Sec-WebSocket-Protocol: gpoll.v1\r\n")
		half.Write(clientFrame(t, `text {"hello":{}}`)[:5])
		told := s.stream(t, "websocket", "0", "")
		told.Write(clientFrame(t, "text who is there"))
		if _, said, err := told.next(); !strings.HasPrefix(said, "1003 ") || err != nil {
			t.Fatal(said, err)
		}
		var attached []*reader
		for _, kind := range streamKinds {
			attached = append(attached, s.stream(t, kind, "0", ""))
		}
		for _, conn := range []net.Conn{silent, half} {
			head := bufio.NewReaderSize(conn, 16)
			for line := ""; line != "\r\n"; {
				var err error
				if line, err = head.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			attached = append(attached, &reader{conn, head, "gpoll.v1"})
		}
		settle()
		begun := time.Now()
		shutdown(t, s.Broadcaster)
		took = time.Since(begun)
		for i, c := range attached {
			if _, said, err := c.rest(); !c.says(said, "shutdown") || err != nil {
				t.Errorf("client %d: %q, %v", i, said, err)
			}
			if _, err := c.r.ReadByte(); err != io.EOF {
				t.Errorf("client %d: %v after the end", i, err)
			}
		}
		return took
	}
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, setup{memory: true})
			if took := play(t, s, synctest.Wait); took != 0 {
				t.Errorf("Shutdown took %v", took)
			}
		})
	})
	t.Run("loopback", func(t *testing.T) {
		s := start(t, setup{})
		if took := play(t, s, func() {}); took > time.Second {
			t.Errorf("Shutdown took %v", took)
		}
	})
}

// Shutdown returns when its context ends, even if a client does not read. That client still gets the end if it reads
// within WriteTimeout.
func TestShutdownStaysInItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, buffer: 8 << 10})
		c := s.stream(t, "websocket", "0", "")
		s.Send(big(0))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begun := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		within(t, "Shutdown returned", time.Since(begun), 3*time.Second, 3*time.Second)
		if _, said, err := c.rest(); !c.says(said, "shutdown") || err != nil {
			t.Errorf("%q, %v", said, err)
		}
	})
}

// serveTLS serves a Broadcaster over TLS and HTTP/1.1 on in-memory connections.
func serveTLS(t *testing.T, certificate tls.Certificate, buffer int) *server {
	return serveTLSBehind(t, certificate, buffer, func(h http.Handler) http.Handler { return h })
}

// serveTLSBehind is serveTLS behind middleware.
func serveTLSBehind(t *testing.T, certificate tls.Certificate, buffer int,
	wrap func(http.Handler) http.Handler) *server {

	b := gpoll.NewBroadcaster()
	b.Heartbeat = time.Hour
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	ln := gpolltest.NewListener()
	ln.Buffer = buffer
	hs := &http.Server{Handler: wrap(mux)}
	served := make(chan error, 1)
	go func() { // ends with hs.Close
		config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}
		served <- hs.Serve(tls.NewListener(ln, config))
	}()
	s := &server{Broadcaster: b, url: "http://gpoll.test", settle: synctest.Wait}
	s.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := ln.DialContext(ctx, "tcp", "gpoll.test:443")
		if err != nil {
			return nil, err
		}
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), nil
	}
	s.client = s.clientOnDial()
	t.Cleanup(func() {
		shutdown(t, b)
		s.client.CloseIdleConnections()
		hs.Close()
		<-served
	})
	return s
}

func certificateForTests() tls.Certificate {
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	defer ts.Close()
	return ts.TLS.Certificates[0]
}

// Over TLS, a write that was given up cannot go on. Ends arrive all the same, on a WebSocket and on an SSE response
// that net/http carries.
func TestEndOverTLS(t *testing.T) {
	certificate := certificateForTests()
	slow := map[string]func(t testing.TB, s *server, id string){
		"slow": func(testing.TB, *server, string) { time.Sleep(5 * time.Second) },
	}
	maps.Copy(slow, ends)
	for code, end := range slow {
		for _, pause := range []time.Duration{10*time.Second - 1, 10*time.Second + 1} {
			late := pause > 10*time.Second
			for _, transport := range []string{"websocket", "sse"} {
				t.Run(fmt.Sprint(transport, " ", code, " ", pause), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := serveTLS(t, certificate, 8<<10)
						id, after := s.register(t)
						c := s.stream(t, transport, id, after)
						s.Send(big(0))
						synctest.Wait()
						time.Sleep(5 * time.Second)
						end(t, s, id)
						time.Sleep(pause)
						messages, said, err := c.rest()
						if late != (err != nil) || !late && (len(messages) != 1 || !c.says(said, code)) {
							t.Errorf("%q and %v after %d messages", said, err, len(messages))
						}
					})
				})
			}
			t.Run(fmt.Sprint("sse through net/http ", code, " ", pause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := serveTLSBehind(t, certificate, 8<<10, noHijack)
					id, after := s.register(t)
					stream := s.events(t, "/poll/events"+query("client-id", id, "after", after))
					stream.next(t)
					s.Send(strings.Repeat("x", 60_000)) // more than the client's buffers take
					synctest.Wait()
					time.Sleep(5 * time.Second)
					end(t, s, id)
					if late = code == "slow" && late; late { // else the write has still longer
						time.Sleep(time.Second)
					}
					time.Sleep(pause)
					_, err := stream.read()
					var ev event
					if err == nil {
						ev, err = stream.read()
					}
					if late != (err != nil) || !late && (ev.name != "end" || !strings.Contains(ev.data, code)) {
						t.Errorf("%+v, %v", ev, err)
					}
				})
			})
		}
	}
}

// A message may take 10 s from its first byte to its last. Then the peer is told. A connection on which no message has
// begun has no deadline, also when a ping or a pong has.
func TestMessageWait(t *testing.T) {
	certificate := certificateForTests()
	message, pong := `text {"subscribe":["b"]}`, "pong "
	for _, over := range []string{"memory", "tls"} {
		open := func(t *testing.T) *reader {
			var s *server
			if over == "tls" {
				s = serveTLS(t, certificate, 0)
			} else {
				s = start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { b.Heartbeat = time.Hour }})
			}
			return s.stream(t, "gpoll.v1", "0", "")
		}
		for name, begin := range map[string][]byte{
			"message":         clientFrame(t, message)[:1],
			"message's data":  clientFrame(t, message)[:12],
			"fragments":       append([]byte{0x01}, clientFrame(t, "text {")[1:]...),
			"behind a pong":   append(clientFrame(t, pong), clientFrame(t, message)[:3]...),
			"pong in message": append(append([]byte{0x01}, clientFrame(t, "text {")[1:]...), clientFrame(t, pong)...),
		} {
			t.Run(over+" half a "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := open(t)
					time.Sleep(time.Second)
					c.Write(begin)
					begun := time.Now()
					if _, said, err := c.rest(); said != "4008 message-timeout" || err != nil {
						t.Errorf("%q, %v", said, err)
					}
					within(t, "told", time.Since(begun), 10*time.Second, 10*time.Second)
					if strings.HasPrefix(name, "pong") || name == "fragments" { // the next frame may be a close frame
						c.Write(clientFrame(t, "close 4008 message-timeout"))
						begun = begun.Add(-5 * time.Second)
					}
					if m, said, err := c.next(); err != io.EOF {
						t.Errorf("%q, %q, %v after the end", m, said, err)
					}
					within(t, "closed", time.Since(begun), 15*time.Second, 15*time.Second)
				})
			})
		}
		for cut := 1; cut < 10; cut++ {
			t.Run(fmt.Sprint(over, " a pong cut at ", cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := open(t)
					for _, frame := range [][]byte{clientFrame(t, "pong late"), clientFrame(t, "ping late")} {
						c.Write(frame[:cut])
						time.Sleep(time.Minute)
						c.Write(append(frame[cut:], clientFrame(t, message)...))
						if m, said, err := c.next(); !strings.HasPrefix(m, `{"subscribed":`) || said != "" || err != nil {
							t.Fatalf("%q, %q, %v", m, said, err)
						}
					}
				})
			})
		}
		t.Run(over+" silent", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := open(t)
				for _, part := range [][]byte{
					clientFrame(t, pong)[:3], clientFrame(t, pong)[3:],
					clientFrame(t, message)[:3], clientFrame(t, message)[3:],
					clientFrame(t, "ping hello")[:1], clientFrame(t, "ping hello")[1:],
					append(clientFrame(t, pong), clientFrame(t, message)...),
					append([]byte{0x01}, clientFrame(t, "text {")[1:]...), clientFrame(t, pong),
					append([]byte{0x80}, clientFrame(t, "text }")[1:]...),
				} {
					time.Sleep(4 * time.Second) // less than the 10 s of what has begun
					if _, err := c.Write(part); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute)
				c.Write(clientFrame(t, `text {"unsubscribe":["c"]}`))
				for {
					m, said, err := c.next()
					if said != "" || err != nil {
						t.Fatalf("a silent connection: %q, %v", said, err)
					}
					if strings.HasPrefix(m, `{"unsubscribed":`) {
						return
					}
				}
			})
		})
	}
}

// If a plain WebSocket breaks before the messages in front of a gap have gone out, the client gets them, and the gap,
// on its next connection.
func TestGapBehindUnwrittenMessages(t *testing.T) {
	for _, close := range []bool{false, true} {
		t.Run(fmt.Sprint("close=", close), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := &scriptedBroker{before: gpoll.Position{Epoch: 1, Seq: 0}}
				s := start(t, setup{memory: true, buffer: 8 << 10, broadcaster: func(b *gpoll.Broadcaster) { b.Broker = broker }})
				id, _ := s.register(t)
				deliver := func(seq uint64) {
					broker.deliver(gpoll.Message{Position: gpoll.Position{Epoch: 1, Seq: seq}, Data: []byte(big(int(seq)))})
				}
				deliver(1)
				deliver(2)
				deliver(9)
				c := s.stream(t, "websocket", id, "")
				synctest.Wait()
				if close {
					c.Close()
				} else {
					time.Sleep(time.Minute) // it is ended as slow, and given up
				}
				synctest.Wait()
				c = s.stream(t, "websocket", id, "")
				messages, said, err := c.rest()
				if len(messages) != 2 || messages[0] != big(1) || messages[1] != big(2) || !strings.HasPrefix(said, "4010 ") ||
					!strings.HasSuffix(said, ";broker") || err != nil {
					t.Fatalf("%d messages, %q, %v", len(messages), said, err)
				}
				synctest.Wait() // the server has noted that the gap was told
				c = s.stream(t, "websocket", id, "")
				if m, said, err := c.next(); m != big(9) {
					t.Errorf("%.20q, %q, %v behind the gap", m, said, err)
				}
			})
		})
	}
}

// If plain WebSockets of one client supersede each other while messages are published, each message goes to exactly one
// of them.
func TestHandoversOfPlainSockets(t *testing.T) {
	for _, memory := range []bool{false, true} {
		t.Run(fmt.Sprint("memory=", memory), func(t *testing.T) {
			play := func(t *testing.T) {
				s := start(t, setup{memory: memory})
				pause := 20 * time.Microsecond
				if memory {
					pause = 500 * time.Microsecond
				}
				for range 50 { // others, so that a round takes a while
					c := s.socket(t, "/poll/ws", "")
					go func() { // ends with the server
						for {
							if _, _, err := c.Read(context.Background()); err != nil {
								return
							}
						}
					}()
				}
				id, _ := s.register(t)
				stop := make(chan struct{})
				sent := make(chan int)
				go func() { // ends with stop
					i := 0
					defer func() { sent <- i }()
					for ; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						s.Send(fmt.Sprint(i))
						time.Sleep(pause)
					}
				}()
				const handovers = 40
				got := make([][]string, handovers+1)
				settled := make(chan struct{})
				var all sync.WaitGroup
				for i := range got {
					c := s.socket(t, "/poll/ws"+query("client-id", id), "")
					frame(t, c)
					all.Go(func() { // ends with the next handover, or with its client
						for {
							_, data, err := c.Read(context.Background())
							if err != nil {
								if ce, _ := errors.AsType[websocket.CloseError](err); ce.Code != 4009 && ce.Code != 4004 {
									t.Errorf("handover %d: %v", i, err)
								}
								return
							}
							if string(data) == "settled" { // the last connection has everything
								close(settled)
								continue
							}
							got[i] = append(got[i], string(data))
						}
					})
				}
				close(stop)
				n := <-sent
				s.Send("settled")
				<-settled
				s.RemoveClient(id)
				s.awaitFinish(t, &all)
				next := 0
				for i, messages := range got {
					for _, m := range messages {
						if m != fmt.Sprint(next) {
							t.Fatalf("connection %d gets %s, want %d", i, m, next)
						}
						next++
					}
				}
				if next != n {
					t.Errorf("%d of %d came", next, n)
				}
			}
			if memory {
				synctest.Test(t, play)
			} else {
				play(t)
			}
		})
	}
}

// A plain WebSocket goes on where the client's channel ends, also when that one has lagged.
func TestHandoverOfAChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { b.ClientBufferSize = 2 }})
		cid, rid := s.AddClient()
		ch, err := s.GetChannel(cid, rid)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			s.mustPublish(t, "", fmt.Sprint(i))
		}
		synctest.Wait()
		got := []string{<-ch, <-ch, <-ch}
		synctest.Wait()
		c := s.socket(t, "/poll/ws"+query("client-id", fmt.Sprintf("%d$%s", rid, cid)), "")
		frame(t, c)
		for m := range ch {
			got = append(got, m)
		}
		for len(got) < 10 {
			got = append(got, frame(t, c))
		}
		if want := strings.Fields("0 1 2 3 4 5 6 7 8 9"); !slices.Equal(got, want) {
			t.Errorf("%q came", got)
		}
	})
}

// A client that does not read is handed over in the middle of a message: the old connection brings that message to its
// end, and a new one without a cursor what comes after it.
func TestHandoverInTheMiddle(t *testing.T) {
	for _, kind := range []string{"websocket", "sse", "sse behind middleware"} {
		play := func(t *testing.T, how setup) {
			if kind == "sse behind middleware" {
				how.wrap = func(next http.Handler) http.Handler { // it keeps the connection
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path != "/poll/events" {
							next.ServeHTTP(w, r)
							return
						}
						next.ServeHTTP(struct {
							http.ResponseWriter
							http.Flusher
						}{w, w.(http.Flusher)}, r)
					})
				}
			}
			s := start(t, how)
			id, _ := s.register(t)
			var old *reader
			if how.wrap == nil {
				old = s.stream(t, kind, id, "")
			} else {
				resp, err := s.client.Do(s.request(t, t.Context(), "/poll/events"+query("client-id", id)))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				old = &reader{nil, bufio.NewReaderSize(resp.Body, 16), "sse"}
				if _, end, err := old.next(); end != "" || err != nil {
					t.Fatalf("%q and %v in the place of the registration", end, err)
				}
			}
			const n = 12
			send := s.witness(t)
			for i := range n {
				send(big(i))
			}
			young := s.stream(t, "websocket", id, "")
			got, end, err := old.rest()
			if err != nil || !old.says(end, "superseded") {
				t.Errorf("the old connection ends with %q, %v", end, err)
			}
			for len(got) < n {
				m, end, err := young.next()
				if end != "" || err != nil {
					t.Fatalf("the new connection ends with %q, %v", end, err)
				}
				got = append(got, m)
			}
			checkWhole(t, kind, got)
		}
		t.Run(kind+" in memory", func(t *testing.T) { // a goroutine writes
			synctest.Test(t, func(t *testing.T) { play(t, setup{memory: true, buffer: 8 << 10}) })
		})
		t.Run(kind, func(t *testing.T) { play(t, setup{server: smallSendBuffers}) }) // the routine writes
	}
}

// If a socket becomes full in the middle of a round, the client gets the rest of the frame and the rest of the round
// later: each message once and in order.
func TestStallInARound(t *testing.T) {
	s := start(t, setup{server: smallSendBuffers, broadcaster: func(b *gpoll.Broadcaster) {
		b.SyncDelayMs = 2 // long rounds
		b.RoutineBufferSize = 1000
		b.WriteTimeout = 5 * patience
	}})
	settle := s.witness(t)
	var all sync.WaitGroup
	const n = 200
	for _, kind := range streamKinds {
		for range 4 {
			c := s.stream(t, kind, "0", "")
			all.Go(func() { // ends with the last message
				c.SetReadDeadline(time.Now().Add(5 * patience))
				c.r = bufio.NewReaderSize(c.r, 2<<10)
				for i := range n {
					m, end, err := c.next()
					if kind == "gpoll.v1" && err == nil && end == "" {
						m = elementOf(t, m).Data
					}
					if number, _, _ := strings.Cut(m, " "); number != fmt.Sprint(i) {
						t.Errorf("%s: %.20q, %q, %v in the place of message %d", kind, m, end, err, i)
						return
					}
				}
			})
		}
	}
	for i := range n {
		s.mustPublish(t, "other", "of no interest")
		s.Send(fmt.Sprint(i, " ", strings.Repeat("x", i*97%7000)))
	}
	settle("settled")
	s.awaitFinish(t, &all)
}

// If a plain WebSocket was disconnected as slow in the middle of a round, the next connection goes on exactly after the
// last message that the client got.
func TestSlowGoesOn(t *testing.T) {
	s := start(t, setup{server: smallSendBuffers, broadcaster: func(b *gpoll.Broadcaster) {
		b.SyncDelayMs = 20
		b.RoutineBufferSize = 1000
		b.DisconnectSlow = true
		b.WriteTimeout = 5 * patience
	}})
	id, _ := s.register(t)
	settle := s.witness(t)
	c := s.stream(t, "websocket", id, "")
	const n = 100
	// The test cannot see whether the routine has taken the client over by then. If it has not, the client's goroutine
	// waits, and no client is slow.
	for i := 0; s.Stats().Dropped["slow"] == 0; {
		if i == 20*n {
			t.Fatal("nobody was slow")
		}
		end := i + n
		for j := i; j < end; j++ {
			s.Send(fmt.Sprint(j, " ", strings.Repeat("x", 4000)))
		}
		settle("settled")
		for i < end {
			c.SetReadDeadline(time.Now().Add(5 * patience))
			m, said, err := c.next()
			switch number, _, _ := strings.Cut(m, " "); {
			case said == "4008 slow":
				c.Close()
				c = s.stream(t, "websocket", id, "")
			case number == fmt.Sprint(i):
				i++
			case m == "settled":
			default:
				t.Fatalf("%.20q, %q, %v in the place of message %d", m, said, err, i)
			}
		}
	}
}
