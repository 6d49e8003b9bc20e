package gpoll_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/socket"
)

// A machine that vanishes without a word. TCP acknowledges nothing for it, and heartbeats hold keep-alive off.

// An accepting listener remembers the connections.
type accepting struct {
	net.Listener
	mu  sync.Mutex
	all []*net.TCPConn
}

func (l *accepting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, conn.(*net.TCPConn))
	}
	return conn, err
}

// patiences are the times after which the system gives up the connections that are open.
func (l *accepting) patiences() (all []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.all {
		if raw := socket.Raw(conn); raw.Control(func(uintptr) {}) == nil { // it is open
			all = append(all, socket.GivesUpAfter(raw))
		}
	}
	return all
}

// While gpoll has a connection, the system gives it up 20 s after the peer has stopped to acknowledge. A connection
// that goes back to net/http is as it was.
func TestGoneIsWatched(t *testing.T) {
	const watched = 20 * time.Second
	for _, c := range []struct {
		name                       string
		tls, h2, through, listener bool // through: middleware keeps the connection
		attach                     func(t *testing.T, s *server) (end func())
		want                       time.Duration
	}{
		{name: "SSE", attach: attachEvents, want: watched},
		{name: "SSE over TLS", tls: true, attach: attachEvents, want: watched},
		{name: "WebSocket", attach: attachSocket, want: watched},
		{name: "WebSocket over TLS", tls: true, attach: attachSocket, want: watched},
		{name: "SSE on Listener", listener: true, attach: attachEvents, want: watched},
		{name: "SSE on Listener over TLS", listener: true, tls: true, attach: attachEvents, want: watched},
		{name: "SSE on Listener over HTTP/2", listener: true, tls: true, h2: true, attach: attachEvents, want: watched},
		{name: "SSE on Listener, kept by middleware", listener: true, through: true, attach: attachEvents, want: watched},
		{name: "poll on Listener", listener: true, attach: attachKept, want: watched},
		{name: "poll", attach: attachPoll, want: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := gpoll.NewBroadcaster()
			mux := http.NewServeMux()
			b.ListenAndBroadcast("/poll", mux)
			mux.HandleFunc("GET /other", func(w http.ResponseWriter, r *http.Request) {})
			var handler http.Handler = mux
			if c.through {
				handler = noHijack(mux)
			}
			ts := httptest.NewUnstartedServer(handler)
			ln := &accepting{Listener: ts.Listener}
			ts.Listener = ln
			if c.listener {
				ts.Listener = b.Listener(ln)
			}
			if ts.EnableHTTP2 = c.h2; c.tls {
				ts.StartTLS()
			} else {
				ts.Start()
			}
			s := &server{Broadcaster: b, url: ts.URL, client: ts.Client()}
			s.dial = func(ctx context.Context) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", ts.Listener.Addr().String())
			}
			defer func() {
				shutdown(t, b)
				s.client.CloseIdleConnections()
				ts.Close()
			}()
			end := c.attach(t, s)
			await(t, fmt.Sprint("patience of ", c.want), func() bool {
				all := ln.patiences()
				return len(all) == 1 && all[0] == c.want
			})
			end()
			await(t, "no patience afterwards", func() bool {
				for _, d := range ln.patiences() {
					if d != 0 {
						return false
					}
				}
				return true
			})
		})
	}
}

func attachEvents(t *testing.T, s *server) (end func()) {
	stream := s.events(t, "/poll/events?client-id=0")
	stream.next(t)
	return stream.close
}

func attachSocket(t *testing.T, s *server) (end func()) {
	c := s.socketHTTP1(t, "")
	return func() { c.CloseNow() }
}

// attachKept has a poll parked, and ends with a request that net/http answers on the same connection.
func attachKept(t *testing.T, s *server) (end func()) {
	w := s.armed(t)
	w.parked()
	return func() {
		s.Send("m")
		w.answer()
		w.get("/other")
		w.read()
	}
}

func attachPoll(t *testing.T, s *server) (end func()) {
	id, after := s.register(t)
	answered := s.later(t, "/poll"+query("client-id", id, "after", after))
	s.awaitAttached(t, "long-poll", 1)
	return func() {
		s.Send("m")
		<-answered
	}
}
