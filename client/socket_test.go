package client_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
)

// Over sockets of the system, plain, with TLS and over HTTP/2, with a header and a cookie, both ways.
func TestSockets(t *testing.T) {
	for _, secure := range []string{"plain", "TLS", "HTTP/2"} {
		for _, transport := range transports {
			if secure == "HTTP/2" && transport == client.WebSocket {
				continue // it needs HTTP/1.1
			}
			t.Run(secure+" "+string(transport), func(t *testing.T) {
				var l ledger
				b := gpoll.NewBroadcaster()
				l.hears(b)
				mux := http.NewServeMux()
				b.ListenAndBroadcast("/deep/poll", mux)
				var bare, conns atomic.Int32
				srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("X-Mine") != "yes" {
						bare.Add(1)
					}
					if secure == "HTTP/2" && r.ProtoMajor != 2 {
						t.Errorf("%s came by %s", r.URL.Path, r.Proto)
					}
					mux.ServeHTTP(w, r)
				}))
				srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
					if s == http.StateNew {
						conns.Add(1)
					}
				}
				switch secure {
				case "plain":
					srv.Start()
				case "HTTP/2":
					srv.EnableHTTP2 = true
					fallthrough
				default:
					srv.StartTLS()
				}
				defer srv.Close()
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				defer b.Shutdown(ctx)
				o := client.Options{Transports: []client.Transport{transport}, Topics: []string{"news"},
					Header: http.Header{"X-Mine": {"yes"}}}
				if secure != "plain" {
					o.HTTPClient = srv.Client()
				}
				c, err := client.Dial(ctx, srv.URL+"/deep/poll/", o)
				if err != nil {
					t.Fatal(err)
				}
				sent := make(chan error, 1)
				go func() {
					for i := range 50 {
						if err := c.Send(ctx, fmt.Append(nil, i)); err != nil {
							sent <- err
							return
						}
						if _, err := b.Publish(ctx, gpoll.Message{Topic: "news", Data: fmt.Append(nil, i)}); err != nil {
							sent <- err
							return
						}
					}
					sent <- nil
				}()
				n := 0
				for m, err := range c.Messages(ctx) {
					if err != nil {
						t.Fatal(err)
					}
					if string(m.Data) != fmt.Sprint(n) || m.Gap != nil {
						t.Errorf("%+v came, not %d", m, n)
					}
					if n++; n == 50 {
						break
					}
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
				if err := l.once(50); err != nil {
					t.Error(err)
				}
				c.Close()
				if bare.Load() > 0 {
					t.Errorf("%d requests came without the header", bare.Load())
				}
				if n := conns.Load(); n > 4 {
					t.Errorf("%d connections", n)
				}
			})
		}
	}
}

// A certificate that the program does not trust is an error that says so.
func TestUntrusted(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_, err := client.Dial(ctx, srv.URL+"/poll", client.Options{})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Error(err)
	}
}

// A server that is not there, and one that is not gpoll's, are errors that say so.
func TestNobodyThere(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_, err := client.Dial(ctx, srv.URL+"/poll", client.Options{})
	if err == nil || !strings.Contains(err.Error(), "no transport works at "+srv.URL) {
		t.Error(err)
	}
	srv.Close()
	begun := time.Now()
	ctx, cancel = context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err = client.Dial(ctx, srv.URL+"/poll", client.Options{})
	if err == nil || !strings.Contains(err.Error(), "refused") || time.Since(begun) > 2*time.Second {
		t.Error(err)
	}
}
