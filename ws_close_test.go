package gpoll_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll"
)

// sockets are the kinds of connections that carry a WebSocket: those that a routine writes to, and those that it does
// not.
var sockets = map[string]func(t *testing.T) *server{
	"loopback": func(t *testing.T) *server { return start(t, setup{server: smallSendBuffers}) },
	"tls": func(t *testing.T) *server {
		s := start(t, setup{tls: true, http1: true, server: smallSendBuffers})
		dial := s.dial
		s.dial = func(ctx context.Context) (net.Conn, error) {
			conn, err := dial(ctx)
			if err != nil {
				return nil, err
			}
			conn.(*net.TCPConn).SetReadBuffer(64 << 10)
			return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), nil
		}
		return s
	},
}

// expectEcho reads up to the close frame, which is the last thing that comes. The server closes the connection, and
// does not wait for the client to do so.
func expectEcho(t *testing.T, c *reader, want string) {
	t.Helper()
	if _, said, err := c.rest(); said != want || err != nil {
		t.Fatalf("%q, %v, want %q", said, err, want)
	}
	if m, said, err := c.next(); err != io.EOF {
		t.Fatalf("after the close frame: %q, %q, %v", m, said, err)
	}
}

// A client's close frame is answered while messages flow.
func TestCloseEchoedWhileMessagesFlow(t *testing.T) {
	for name, open := range sockets {
		for _, kind := range []string{"websocket", "gpoll.v1"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				s := open(t)
				stop := keepSending(t, s, 300)
				defer stop()
				for i := range 20 {
					c := s.stream(t, kind, "0", "")
					for range i % 5 {
						if _, said, err := c.next(); said != "" || err != nil {
							t.Fatal(said, err)
						}
					}
					c.Write(clientFrame(t, "close 1000 bye"))
					expectEcho(t, c, "1000 bye")
					c.Close()
				}
			})
		}
	}
}

// keepSending sends messages to everybody until stop is called.
func keepSending(t *testing.T, s *server, size int) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	message := strings.Repeat("x", size)
	wg.Go(func() { // ends with stop
		pace := time.NewTicker(100 * time.Microsecond)
		defer pace.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.Context().Done():
				return
			case <-pace.C:
				s.Send(message)
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		wg.Wait()
	})
}

// coder/websocket's Close waits for the answer.
func TestCloseOfCoder(t *testing.T) {
	for _, protocol := range []string{"", "gpoll.v1"} {
		s := start(t, setup{})
		stop := keepSending(t, s, 300)
		for range 30 {
			c := s.socket(t, "/poll/ws", protocol)
			if protocol != "" {
				say(t, c, `{"hello":{}}`)
			}
			frame(t, c)
			if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
				t.Errorf("%q: %v", protocol, err)
			}
		}
		stop()
	}
}

// A client that is behind, and whose socket is full, gets the answer to its close frame when it reads on.
func TestCloseEchoedToClientBehind(t *testing.T) {
	for name, open := range sockets {
		for _, kind := range []string{"websocket", "gpoll.v1"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				s := open(t)
				for range 4 {
					c := s.stream(t, kind, "0", "")
					send := s.witness(t)
					for range 40 { // much more than the sockets hold
						send(big(0))
					}
					c.Write(clientFrame(t, "close 1001 later"))
					begun := time.Now()
					expectEcho(t, c, "1001 later")
					within(t, "answered", time.Since(begun), 0, 10*time.Second)
					c.Close()
				}
			})
		}
	}
	certificate := certificateForTests()
	for _, kind := range []string{"websocket", "gpoll.v1"} {
		for _, over := range []string{"memory", "tls in memory"} {
			for _, pause := range []time.Duration{0, 5 * time.Second, 10*time.Second - 1, 10*time.Second + 1} {
				t.Run(fmt.Sprint(over, " ", kind, " ", pause), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := (*server)(nil)
						if over == "memory" {
							s = start(t, setup{memory: true, buffer: 8 << 10})
						} else {
							s = serveTLS(t, certificate, 8<<10)
						}
						c := s.stream(t, kind, "0", "")
						for range 10 {
							s.Send(big(0))
						}
						synctest.Wait()
						c.Write(clientFrame(t, "close 1001 later"))
						synctest.Wait()
						time.Sleep(pause)
						if pause > 10*time.Second { // WriteTimeout: then it is cut
							if _, said, err := c.rest(); err == nil {
								t.Errorf("%q after %v", said, pause)
							}
							return
						}
						expectEcho(t, c, "1001 later")
					})
				})
			}
		}
	}
}

// A close frame is answered also where the client has half closed its connection behind it, and where commands before
// it wait for their answers.
func TestCloseEchoedBeforeTheEnd(t *testing.T) {
	s := start(t, setup{})
	for _, kind := range []string{"websocket", "gpoll.v1"} {
		for range 20 {
			c := s.stream(t, kind, "0", "")
			c.Write(clientFrame(t, "close 1000 bye"))
			c.Conn.(*net.TCPConn).CloseWrite()
			expectEcho(t, c, "1000 bye")
			c.Close()
		}
	}
	inBubble(t, "commands", func(t *testing.T) {
		s := start(t, setup{memory: true})
		for _, last := range []string{"close 1000 bye", `text {"leave":true}`, "hex 8900", "hex 818100000000ff"} {
			c := s.stream(t, "gpoll.v1", "0", "")
			sent := []byte(nil)
			for i := range 10 {
				sent = append(sent, clientFrame(t, fmt.Sprintf(`text {"subscribe":["t%d"]}`, i))...)
			}
			c.Write(append(sent, clientFrame(t, last)...))
			if answers, said, err := c.rest(); len(answers) != 10 || said == "" || err != nil {
				t.Errorf("%s: %d answers, %q, %v", last, len(answers), said, err)
			}
			c.Close()
		}
	})
}

// The answer to a close frame is the end of what the server says: pings and commands behind it are not answered.
func TestNothingBehindACloseFrame(t *testing.T) {
	for _, kind := range []string{"websocket", "gpoll.v1"} {
		inBubble(t, kind, func(t *testing.T) {
			s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) { b.Heartbeat = time.Second }})
			c := s.stream(t, kind, "0", "")
			c.Write(append(append(clientFrame(t, "close 3000 mine"), clientFrame(t, "ping late")...),
				clientFrame(t, `text {"subscribe":["a"]}`)...))
			synctest.Wait()
			s.Send("late")
			time.Sleep(time.Minute)
			all, err := io.ReadAll(c.r)
			if string(all) != "\x88\x06\x0b\xb8mine" || err != nil {
				t.Errorf("%q, %v", all, err)
			}
		})
	}
}
