package gpoll_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// overHTTP2 starts a server in memory whose clients speak HTTP/2 without TLS.
func overHTTP2(t *testing.T, configure func(*gpoll.Broadcaster)) *server {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := start(t, setup{memory: true, broadcaster: configure, server: func(hs *http.Server) { hs.Protocols = protocols }})
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols:   only,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx) },
	}
	t.Cleanup(transport.CloseIdleConnections)
	s.client = &http.Client{Transport: transport}
	return s
}

// No deadline of a write outlives the write: net/http resets a stream of HTTP/2 at its deadline, written to or not.
func TestHTTP2Quiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := overHTTP2(t, func(b *gpoll.Broadcaster) { b.Heartbeat, b.WriteTimeout = time.Hour, time.Second })
		stream := s.events(t, "/poll/events?client-id=0")
		stream.next(t)
		advance(time.Minute)
		s.Send("m")
		if e := stream.next(t); e.data != "m" {
			t.Errorf("%q", e.data)
		}
	})
}
