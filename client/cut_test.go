package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// A cable leads from one client to the server. It can break when a number of bytes have come through, or swallow all
// that comes.
type cable struct {
	ln     *gpolltest.Listener
	breaks atomic.Int64 // how many bytes come through before it breaks, once; below 0: it does not
	eats   atomic.Bool
	bytes  atomic.Int64 // that came through
	dials  atomic.Int64
}

// client returns an HTTP client whose connections go through c.
func (c *cable) client(t *testing.T) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := c.ln.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c.dials.Add(1)
		return &plug{conn.(*gpolltest.Conn), c}, nil
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// A plug is one connection of a cable.
type plug struct {
	*gpolltest.Conn
	cable *cable
}

func (p *plug) Read(b []byte) (int, error) {
	for {
		if most := p.cable.breaks.Load(); most >= 0 && int64(len(b)) > most {
			b = b[:most]
		}
		if len(b) == 0 {
			p.cable.breaks.Store(-1)
			p.Cut()
			return 0, errors.New("the cable is broken")
		}
		n, err := p.Conn.Read(b)
		if p.cable.eats.Load() && err == nil {
			continue
		}
		if p.cable.breaks.Load() >= 0 {
			p.cable.breaks.Add(int64(-n))
		}
		p.cable.bytes.Add(int64(n))
		return n, err
	}
}

// A connection that breaks after any number of bytes loses nothing, repeats nothing, and repeats no command.
func TestCutAnywhere(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			var l ledger
			inWorld(t, func(b *gpoll.Broadcaster) { l.hears(b); b.RegisterRate = -1 }, func(w *world) {
				w.publish("news", 3)
				commands := 0
				run := func(at int) (bytes int64) {
					wire := &cable{ln: w.ln}
					wire.breaks.Store(int64(at))
					c := w.dial(client.Options{Transports: []client.Transport{transport}, HTTPClient: wire.client(t),
						Topics: []string{"news"}})
					from := w.n
					w.publish("news", 1)
					if err := c.Send(context.Background(), fmt.Append(nil, at)); err != nil {
						t.Errorf("cut at %d: %v", at, err)
					}
					commands++
					w.await(w.publish("news", 2), c)
					synctest.Wait()
					if len(c.got) != w.n-from {
						t.Errorf("cut at %d: it got %q", at, c.payloads())
					}
					if at >= 0 && wire.breaks.Load() >= 0 {
						t.Errorf("cut at %d: there were not so many bytes", at)
					}
					bytes = wire.bytes.Load()
					c.trace.Scanned(c.Position())
					c.trace.Ended()
					c.Close()
					<-c.done
					w.seen = w.seen[:0]
					return bytes
				}
				all := run(-1)
				step := 1
				if testing.Short() || raceEnabled {
					step = 7
				}
				for at := 0; at < int(all)*8/10; at += step {
					run(at)
				}
				if err := l.once(commands); err != nil {
					t.Error(err)
				}
				t.Log(commands, "cuts in", all, "bytes")
			})
		})
	}
}

// A connection on which nothing comes, not even a heartbeat, is given up after 2.2 of them.
func TestWatchdog(t *testing.T) {
	for transport, heartbeat := range map[client.Transport]time.Duration{
		client.WebSocket: 10 * time.Second, client.SSE: 15 * time.Second,
	} {
		t.Run(string(transport), func(t *testing.T) {
			inWorld(t, func(b *gpoll.Broadcaster) { b.Heartbeat = heartbeat }, func(w *world) {
				wire := &cable{ln: w.ln}
				wire.breaks.Store(-1)
				c := w.dial(client.Options{Transports: []client.Transport{transport}, HTTPClient: wire.client(t)})
				time.Sleep(10 * time.Minute) // heartbeats keep it
				if n := wire.dials.Load(); n != 1 {
					t.Errorf("%d connections on a quiet day", n)
				}
				w.await(w.publish("", 1), c)
				begun := time.Now()
				wire.eats.Store(true)
				s := w.until(c, func(s client.Status) bool { return s.State != client.Connected })
				wire.eats.Store(false)
				if d, want := time.Since(begun), heartbeat*22/10; d < want-heartbeat || d > want+100*time.Millisecond {
					t.Errorf("it was given up after %v, want %v: %v", d, want, s)
				}
				w.await(w.publish("", 2), c)
				synctest.Wait()
				if got := c.payloads(); got != "m1 m2 m3" {
					t.Errorf("it got %q", got)
				}
			})
		})
	}
}

// A program that takes no messages does not make the client take more and more memory, and is not taken for a dead
// connection: what the server's window still holds comes when the program goes on.
func TestSlowProgram(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			inWorld(t, func(b *gpoll.Broadcaster) { b.History.Bytes = 256 << 20 }, func(w *world) {
				wire := &cable{ln: w.ln}
				wire.breaks.Store(-1)
				c, err := client.Dial(context.Background(), "http://gpoll.test/poll", client.Options{
					Transports: []client.Transport{transport}, HTTPClient: wire.client(t)})
				if err != nil {
					t.Fatal(err)
				}
				data := bytes.Repeat([]byte("data"), 10<<8)
				for range 500 {
					if _, err := w.b.Publish(context.Background(), gpoll.Message{Data: data}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(5 * time.Minute)
				if n := wire.bytes.Load(); n > 3<<20 {
					t.Errorf("it has read %d bytes", n)
				}
				n := 0
				for m, err := range c.Messages(context.Background()) {
					if err != nil || m.Gap != nil {
						t.Fatal(m.Gap, err)
					}
					if n++; n == 500 {
						break
					}
				}
				c.Close()
			})
		})
	}
}

// Last brings recent messages first, and After what came after an earlier client; both also where a connection breaks.
func TestLastAndAfter(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				w.publish("a", 5)
				w.publish("b", 1)
				w.publish("", 2)
				dial := func(o client.Options) *client.Client {
					o.Transports = []client.Transport{transport}
					if o.HTTPClient == nil {
						o.HTTPClient = w.hc
					}
					c, err := client.Dial(context.Background(), "http://gpoll.test/poll", o)
					if err != nil {
						t.Fatal(err)
					}
					return c
				}
				take := func(c *client.Client, n int) (got string) {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					for m, err := range c.Messages(ctx) {
						if err != nil {
							t.Errorf("after %q: %v", got, err)
							break
						}
						if got += string(m.Data) + " "; n == 1 {
							break
						}
						n--
					}
					return got
				}
				c := dial(client.Options{Topics: []string{"a", "b"}, Last: 3})
				w.publish("", 1)
				if got := take(c, 5); got != "m3 m4 m5 m6 m9 " {
					t.Errorf("it got %q", got)
				}
				p := c.Position()
				c.Close()
				w.publish("a", 3)
				c = dial(client.Options{Topics: []string{"a"}, After: p, Last: 100})
				if got := take(c, 2); got != "m10 m11 " {
					t.Errorf("it got %q", got)
				}
				c.Close()
				c = dial(client.Options{Topics: []string{"a"}, After: c.Position()})
				if got := take(c, 1); got != "m12 " {
					t.Errorf("it got %q", got)
				}
				c.Close()

				// Broken after each number of bytes, it is what it would have been, but that a WebSocket which has brought
				// none does not ask again, and that old messages to everybody may come, too.
				for at := 300; ; at += 5 {
					wire := &cable{ln: w.ln}
					wire.breaks.Store(int64(at))
					c := dial(client.Options{Topics: []string{"a"}, Last: 500, HTTPClient: wire.client(t)})
					synctest.Wait()
					w.publish("", 1)
					want, first := "", fmt.Sprintf("m%d ", w.n)
					for i := range 12 {
						if i != 5 && i != 6 && i != 7 && i != 8 {
							want += fmt.Sprintf("m%d ", i+1)
						}
					}
					var got string
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					for m, err := range c.Messages(ctx) {
						if err != nil {
							t.Errorf("cut at %d: %q, %v", at, got, err)
							break
						}
						if string(m.Data)+" " == first {
							break
						}
						if m.Topic != "" {
							got += string(m.Data) + " "
						}
					}
					cancel()
					if got != want && !(transport == client.WebSocket && got == "") {
						t.Errorf("cut at %d: it got %q", at, got)
					}
					c.Close()
					if wire.breaks.Load() >= 0 {
						break
					}
				}
			})
		})
	}
}

// More topics than a query can hold go into a body.
func TestManyTopics(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			var posts atomic.Int32
			inWorld(t, nil, func(w *world) {
				w.stands(func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
					if r.Method == http.MethodPost {
						posts.Add(1)
					}
					mount.ServeHTTP(rw, r)
				})
				var topics []string
				for i := range 100 {
					topics = append(topics, fmt.Sprintf("a/topic/with/a/long/name/%d", i))
				}
				c := w.dial(client.Options{Transports: []client.Transport{transport}, Topics: topics})
				w.publish(topics[0], 1)
				w.publish("another", 1)
				w.await(w.publish(topics[99], 1), c)
				w.ln.Cut()
				w.await(w.publish(topics[50], 1), c)
				synctest.Wait()
				if got := c.payloads(); got != "m1 m3 m4" {
					t.Errorf("it got %q", got)
				}
			})
			if (posts.Load() > 0) != (transport != client.WebSocket) {
				t.Errorf("%d were POST", posts.Load())
			}
		})
	}
}

// Close may be called from everywhere, and leaves nothing running.
func TestClose(t *testing.T) {
	for _, transport := range transports {
		for _, state := range []client.State{client.Connecting, client.Connected, client.Waiting, client.Closed} {
			t.Run(string(transport)+" "+string(state), func(t *testing.T) {
				inWorld(t, nil, func(w *world) {
					var mu sync.Mutex
					var c *client.Client
					closed := make(chan struct{})
					var once sync.Once
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					mu.Lock()
					d, err := client.Dial(ctx, "http://gpoll.test/poll", client.Options{HTTPClient: w.hc,
						Transports: []client.Transport{transport}, OnStatus: func(s client.Status) {
							if s.State != state || state == client.Connecting && s.Err == nil && s.Reasons == nil {
								return
							}
							go once.Do(func() { // the first Connected comes before Dial returns
								mu.Lock()
								defer mu.Unlock()
								c.Close()
								close(closed)
							})
							if mu.TryLock() {
								c.Close() // inside OnStatus
								mu.Unlock()
							}
						}})
					if err != nil {
						t.Fatal(err)
					}
					c = d
					mu.Unlock()
					switch state {
					case client.Waiting, client.Connecting:
						w.stands(refuses(""))
						w.ln.Cut()
					case client.Closed:
						w.b.Reset()
						c.Close()
					}
					for _, err := range c.Messages(ctx) {
						if err == nil {
							continue
						}
						if state != client.Closed && err != client.ErrClosed {
							t.Error(err)
						}
						break
					}
					if state != client.Connecting {
						<-closed
					}
					c.Close()
					c.Close()
				})
			})
		}
	}
}

var raceEnabled bool // by race_test.go
