package client_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
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

// A server that goes away says when to come back.
func TestShutdownHint(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			broker := gpoll.NewMemoryBroker()
			inWorld(t, func(b *gpoll.Broadcaster) { b.Broker = broker }, func(w *world) {
				c := w.dial(client.Options{Transports: []client.Transport{transport}})
				w.await(w.publish("", 1), c)
				synctest.Wait()
				old := w.b
				begun := time.Now()
				go w.stop(old)
				synctest.Wait()
				s := c.Status()
				if s.State != client.Waiting || s.Retry < time.Second || s.Retry > 10*time.Second || codeOf(s.Err) != "shutdown" {
					t.Errorf("it is %v, and waits %v", s, s.Retry)
				}
				time.Sleep(100 * time.Millisecond)
				w.start()
				w.until(c, connectedBy(transport))
				if d := time.Since(begun); d < s.Retry || d > s.Retry+2*time.Second {
					t.Errorf("it was back after %v, and the server said %v", d, s.Retry)
				}
				// The log is the same, and the client another one: it registers with its cursor.
				w.await(w.publish("", 2), c)
				synctest.Wait()
				if got := c.payloads(); got != "m1 m2 m3" {
					t.Errorf("it got %q", got)
				}
			})
			broker.Close(context.Background())
		})
	}
}

// A client that the server has forgotten registers with its cursor, and misses nothing.
func TestUnknown(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			broker := gpoll.NewMemoryBroker()
			inWorld(t, func(b *gpoll.Broadcaster) { b.Broker = broker }, func(w *world) {
				c := w.dial(client.Options{Transports: []client.Transport{transport}, Topics: []string{"news"}})
				w.await(w.publish("news", 1), c)
				id := c.ID()
				old := w.b
				w.start()
				w.publish("news", 2)
				w.ln.Cut()
				w.await(w.publish("news", 2), c)
				synctest.Wait()
				if got := c.payloads(); got != "m1 m2 m3 m4 m5" || c.ID() == id {
					t.Errorf("it got %q", got)
				}
				w.stop(old)
			})
			broker.Close(context.Background())
		})
	}
}

// A newer client with the same id ends the client, as does another attach of its id.
func TestSuperseded(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				c := w.dial(client.Options{Transports: []client.Transport{transport}})
				w.await(w.publish("", 1), c)
				synctest.Wait()
				r, _ := http.NewRequest(http.MethodGet, "http://gpoll.test/poll?format=json&after="+c.Position().String(), nil)
				r.Header.Set("Gpoll-Client-Id", c.ID())
				ctx, cancel := context.WithCancel(context.Background())
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					if resp, err := w.hc.Do(r.WithContext(ctx)); err == nil {
						resp.Body.Close()
					}
				}()
				<-c.done
				if codeOf(c.err) != "superseded" || codeOf(c.Status().Err) != "superseded" {
					t.Errorf("it ended with %v, and is %v", c.err, c.Status())
				}
				if err := c.Send(context.Background(), nil); codeOf(err) != "superseded" {
					t.Error(err)
				}
				if err := c.Subscribe(context.Background(), "a"); codeOf(err) != "superseded" {
					t.Error(err)
				}
				cancel()
				<-gone
			})
		})
	}
}

// A 401 of something on the way is no word of the server: the client goes on when it has gone.
func TestForeign401(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				asked := 0
				c := w.dial(client.Options{Transports: []client.Transport{transport},
					Token: func(context.Context) (string, error) { asked++; return "t", nil }})
				w.await(w.publish("", 1), c)
				w.stands(func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
					http.Error(rw, "<html>sign in</html>", http.StatusUnauthorized)
				})
				w.ln.Cut()
				time.Sleep(time.Minute)
				if s := c.Status(); s.State == client.Closed || s.State == client.Connected || asked != 2 {
					t.Errorf("it asked for %d tokens, and is %v", asked, s)
				}
				w.stands(nil)
				w.await(w.publish("", 1), c)
			})
		})
	}
}

// Topics that the server refuses late are taken back, and the client goes on.
func TestRefusedTopic(t *testing.T) {
	for _, transport := range transports {
		for name, slow := range map[string]time.Duration{"at once": 0, "late": 3 * time.Second} {
			t.Run(string(transport)+" "+name, func(t *testing.T) {
				inWorld(t, func(b *gpoll.Broadcaster) {
					b.Authorize = func(*http.Request) (gpoll.Grant, error) {
						return gpoll.Grant{Subscribe: func(topic string) bool {
							if topic == "closed" {
								time.Sleep(slow)
							}
							return topic != "closed"
						}}, nil
					}
				}, func(w *world) {
					c := w.dial(client.Options{Transports: []client.Transport{transport}, Topics: []string{"open"}})
					w.await(w.publish("open", 1), c)
					synctest.Wait()
					err := c.Subscribe(context.Background(), "closed")
					if codeOf(err) != "topic-forbidden" && !(transport == client.LongPoll && slow > 0 && err == nil) {
						t.Error(err)
					}
					time.Sleep(10 * time.Second)
					w.await(w.publish("open", 2), c)
					if err := c.Subscribe(context.Background(), "also"); err != nil {
						t.Error(err)
					}
					c.trace.Subscribed("also", c.Position())
					w.publish("closed", 1)
					w.await(w.publish("also", 1), c)
					synctest.Wait()
					if got := c.payloads(); got != "m1 m2 m3 m5" {
						t.Errorf("it got %q", got)
					}
					told := slices.ContainsFunc(c.statuses, func(s client.Status) bool { return codeOf(s.Err) == "topic-forbidden" })
					if err == nil && !told {
						t.Errorf("nobody was told: %v", c.statuses)
					}
				})
			})
		}
	}
}

// A poll that comes back after a fault is connected before its answer, and not before the server has it.
func TestConnectedLate(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		c := w.dial(client.Options{Transports: []client.Transport{client.LongPoll}})
		w.await(w.publish("", 1), c)
		synctest.Wait()
		bad := func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
			http.Error(rw, "<html>", http.StatusBadGateway)
		}
		w.stands(bad)
		w.ln.Cut()
		s := w.until(c, func(s client.Status) bool { return s.State == client.Waiting })
		w.stands(nil)
		begun := time.Now()
		w.until(c, connectedBy(client.LongPoll))
		if d := time.Since(begun); d < time.Second || d > s.Retry+2*time.Second {
			t.Errorf("it said so after %v", d)
		}
		w.stands(bad)
		w.ln.Cut()
		time.Sleep(20 * time.Second)
		if s := c.Status(); s.State == client.Connected {
			t.Errorf("it is %v", s)
		}
		w.stands(nil)
		w.await(w.publish("", 1), c)
	})
}
