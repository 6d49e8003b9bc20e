package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
)

// A token that the server refuses is asked for again, once.
func TestToken(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			good := "Bearer t2"
			inWorld(t, func(b *gpoll.Broadcaster) {
				b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
					if r.Header.Get("Authorization") != good {
						return gpoll.Grant{}, errors.New("no")
					}
					return gpoll.Grant{}, nil
				}
			}, func(w *world) {
				asked := 0
				o := client.Options{Transports: []client.Transport{transport}, HTTPClient: w.hc,
					Token: func(context.Context) (string, error) {
						asked++
						return []string{"", "t1", "t2", "t3", "t4"}[asked], nil
					}}
				c := w.dial(o)
				w.await(w.publish("", 1), c)
				if asked != 2 {
					t.Errorf("it asked %d times", asked)
				}
				good = "Bearer never"
				asked = 0
				if _, err := w.tryDial(o); codeOf(err) != "unauthorized" || asked != 2 {
					t.Errorf("%v after %d tokens", err, asked)
				}
			})
		})
	}
}

// What keeps events back is found out, and polls take their place.
func TestBuffered(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.stands(func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/ws"):
				rw.Write([]byte("<html>"))
			case strings.HasSuffix(r.URL.Path, "/events"):
				<-r.Context().Done()
			default:
				mount.ServeHTTP(rw, r)
			}
		})
		begun := time.Now()
		c := w.dial(client.Options{})
		if d := time.Since(begun); d > 8*time.Second {
			t.Errorf("attached after %v", d)
		}
		if s := c.Status(); s.Transport != client.LongPoll || strings.Join(s.Reasons, " ") != "ws_refused sse_buffered" {
			t.Errorf("it is %v", s)
		}
		w.await(w.publish("", 2), c)
	})
}

// The server's word ends a client that it removes.
func TestRemoved(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				c := w.dial(client.Options{Transports: []client.Transport{transport}})
				w.await(w.publish("", 1), c)
				synctest.Wait()
				w.b.Reset()
				<-c.done
				if codeOf(c.err) != "removed" || c.Status().State != client.Closed {
					t.Errorf("it ended with %v, and is %v", c.err, c.Status())
				}
			})
		})
	}
}
