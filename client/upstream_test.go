package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
)

// A ledger is what an application has heard.
type ledger struct {
	mu    sync.Mutex // guards the fields below
	heard []string
	ids   map[string]int // how often
}

func (l *ledger) hear(m gpoll.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids == nil {
		l.ids = map[string]int{}
	}
	l.heard = append(l.heard, string(m.Data))
	l.ids[m.ID]++
}

func (l *ledger) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heard)
}

// once reports whether n commands have taken effect, each once.
func (l *ledger) once(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.heard) != n || len(l.ids) != n {
		return fmt.Errorf("%d effects of %d ids, want %d", len(l.heard), len(l.ids), n)
	}
	return nil
}

// hears sets a Broadcaster up whose application hears everything.
func (l *ledger) hears(b *gpoll.Broadcaster) {
	b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) { l.hear(m) }
	b.OnRequest = func(_ *gpoll.Client, m gpoll.Message) ([]byte, error) {
		l.hear(m)
		if string(m.Data) == "no" {
			return nil, errors.New("not today")
		}
		return append([]byte("re: "), m.Data...), nil
	}
	b.Authorize = func(*http.Request) (gpoll.Grant, error) {
		return gpoll.Grant{Publish: func(topic string) bool { return topic != "closed" }}, nil
	}
}

// Each command takes effect by each transport, and has its answer.
func TestCommands(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			var l ledger
			inWorld(t, l.hears, func(w *world) {
				ctx := context.Background()
				c := w.dial(client.Options{Transports: []client.Transport{transport}, Topics: []string{"news"}})
				if err := c.Send(ctx, []byte("hi <&> \u2028 there")); err != nil {
					t.Error(err)
				}
				if err := c.Send(ctx, []byte{0xff, 0}); err != nil {
					t.Error(err)
				}
				if err := c.Send(ctx, nil); err != nil {
					t.Error(err)
				}
				if reply, err := c.Request(ctx, []byte("what?")); err != nil || string(reply) != "re: what?" {
					t.Errorf("%q, %v", reply, err)
				}
				if reply, err := c.Request(ctx, []byte{0xff}); err != nil || string(reply) != "re: \xff" {
					t.Errorf("%q, %v", reply, err)
				}
				_, err := c.Request(ctx, []byte("no"))
				if e, ok := errors.AsType[*client.EndError](err); !ok || e.Code != "refused" || e.Message != "not today" {
					t.Error(err)
				}
				want := []string{"hi <&> \u2028 there", "\xff\x00", "", "what?", "\xff", "no"}
				if got := l.all(); !slices.Equal(got, want) {
					t.Errorf("the application heard %q", got)
				}
				if err := l.once(len(want)); err != nil {
					t.Error(err)
				}
				_, err = c.Publish(ctx, "closed", []byte("x"))
				if codeOf(err) != "topic-forbidden" {
					t.Error(err)
				}
				if _, err := c.Publish(ctx, "no spaces", nil); err == nil || !strings.Contains(err.Error(), "a topic is") {
					t.Error(err)
				}
				if err := c.Send(ctx, make([]byte, 1<<16+1)); codeOf(err) != "too-large" {
					t.Error(err)
				}
				p, err := w.Publish(ctx, by{c}, gpoll.Message{Topic: "news", Data: []byte("m1")})
				if err != nil {
					t.Fatal(err)
				}
				w.n++
				w.await(p, c)
				synctest.Wait()
				if got := c.payloads(); got != "m1" {
					t.Errorf("it got %q", got)
				}
				if s := c.Status(); s.State != client.Connected || s.Transport != transport {
					t.Errorf("it is %v", s)
				}
			})
		})
	}
}

// by publishes as a client does.
type by struct{ *watcher }

func (b by) Publish(ctx context.Context, m gpoll.Message) (gpoll.Position, error) {
	return b.Client.Publish(ctx, m.Topic, m.Data)
}

// Many commands at once, and more than the rate lets through, are all done once; one after the other they keep their
// order.
func TestCommandRate(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			var l ledger
			inWorld(t, func(b *gpoll.Broadcaster) { l.hears(b); b.UpstreamRate, b.UpstreamBurst = 20, 30 }, func(w *world) {
				c := w.dial(client.Options{Transports: []client.Transport{transport}})
				begun := time.Now()
				var group sync.WaitGroup
				for i := range 300 {
					group.Go(func() {
						if err := c.Send(context.Background(), fmt.Append(nil, i)); err != nil {
							t.Error(err)
						}
					})
				}
				group.Wait()
				if d := time.Since(begun); d > 20*time.Second {
					t.Errorf("they took %v", d)
				}
				if err := l.once(300); err != nil {
					t.Error(err)
				}
				l.heard, l.ids = nil, nil
				var want []string
				for i := range 100 {
					if err := c.Send(context.Background(), fmt.Append(nil, i)); err != nil {
						t.Error(err)
					}
					want = append(want, fmt.Sprint(i))
				}
				if got := l.all(); !slices.Equal(got, want) {
					t.Errorf("the application heard %q", got)
				}
				if n := w.b.Stats().Refused["rate"]; n > 1000 {
					t.Errorf("the server refused %d times", n)
				} else {
					t.Log(n, "refusals")
				}
			})
		})
	}
}

// What broken connections leave without an answer comes again, and takes effect once.
func TestCommandsCut(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			var l ledger
			inWorld(t, func(b *gpoll.Broadcaster) { l.hears(b); b.UpstreamRate = -1 }, func(w *world) {
				c := w.dial(client.Options{Transports: []client.Transport{transport}})
				var group sync.WaitGroup
				for i := range 4 {
					group.Go(func() {
						for j := range 200 {
							if err := c.Send(context.Background(), fmt.Append(nil, i, " ", j)); err != nil {
								t.Error(err)
							}
							time.Sleep(time.Millisecond) // of the bubble's time
						}
					})
				}
				done := make(chan struct{})
				go func() { group.Wait(); close(done) }()
				for cutting := true; cutting; {
					select {
					case <-done:
						cutting = false
					case <-time.After(7 * time.Millisecond):
						w.ln.Cut()
					}
				}
				if err := l.once(800); err != nil {
					t.Error(err)
				}
				last := map[string]int{}
				for _, text := range l.all() {
					var i string
					var j int
					fmt.Sscan(text, &i, &j)
					if j != last[i] {
						t.Errorf("%s came, not %d", text, last[i])
					}
					last[i]++
				}
			})
		})
	}
}

// Commands go on while the transport changes.
func TestCommandsSwitch(t *testing.T) {
	for _, from := range transports {
		for _, to := range transports {
			t.Run(string(from)+" to "+string(to), func(t *testing.T) {
				var l ledger
				inWorld(t, func(b *gpoll.Broadcaster) { l.hears(b); b.UpstreamRate = -1 }, func(w *world) {
					w.only(from)
					c := w.dial(client.Options{})
					send := func(n int) {
						for i := range n {
							if err := c.Send(context.Background(), fmt.Append(nil, i)); err != nil {
								t.Error(err)
							}
						}
					}
					send(20)
					w.only(to)
					w.ln.Cut()
					send(20)
					w.until(c, connectedBy(to))
					send(20)
					if err := l.once(60); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

// A command ends with its context, with the Client, and with the server's word.
func TestCommandEnds(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			var busy chan struct{} // of the bubble
			inWorld(t, func(b *gpoll.Broadcaster) {
				busy = make(chan struct{})
				b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) {
					if string(m.Data) == "wait" {
						<-busy
					}
				}
			}, func(w *world) {
				c := w.dial(client.Options{Transports: []client.Transport{transport}})
				ctx, cancel := context.WithTimeoutCause(context.Background(), time.Minute, errors.New("enough"))
				defer cancel()
				if err := c.Send(ctx, []byte("wait")); err == nil || err.Error() != "enough" {
					t.Error(err)
				}
				if err := c.Send(ctx, []byte("late")); err == nil || err.Error() != "enough" {
					t.Error(err)
				}
				sent := make(chan error)
				go func() { sent <- c.Send(context.Background(), []byte("behind")) }()
				synctest.Wait()
				c.close()
				if err := <-sent; err != client.ErrClosed {
					t.Error(err)
				}
				if err := c.Send(context.Background(), []byte("closed")); err != client.ErrClosed {
					t.Error(err)
				}
				close(busy)
			})
		})
	}
}

// A panic of the application is the end of one command, and not of those behind it.
func TestCommandPanics(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			var l ledger
			inWorld(t, func(b *gpoll.Broadcaster) {
				l.hears(b)
				b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) {
					l.hear(m)
					if strings.HasPrefix(string(m.Data), "fail") {
						panic("as asked")
					}
				}
			}, func(w *world) {
				c := w.dial(client.Options{Transports: []client.Transport{transport}})
				var group sync.WaitGroup
				for i := range 20 {
					group.Go(func() {
						text, want := fmt.Sprint(i), "<nil>"
						if i%5 == 3 {
							text, want = "fail "+text, "internal"
						}
						if err := c.Send(context.Background(), []byte(text)); codeOf(err) != want {
							t.Errorf("%s: %v", text, err)
						}
					})
				}
				group.Wait()
				if err := l.once(20); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A program may send in its loop, however many messages come.
func TestSendInLoop(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			var l ledger
			inWorld(t, func(b *gpoll.Broadcaster) { l.hears(b); b.UpstreamRate = -1 }, func(w *world) {
				d, err := client.Dial(context.Background(), "http://gpoll.test/poll", client.Options{HTTPClient: w.hc,
					Transports: []client.Transport{transport}, Topics: []string{"news"}})
				if err != nil {
					t.Fatal(err)
				}
				w.publish("news", 600)
				n := 0
				for m, err := range d.Messages(context.Background()) {
					if err != nil {
						t.Fatal(err)
					}
					if err := d.Send(context.Background(), m.Data); err != nil {
						t.Fatal(err)
					}
					if n++; n == 600 {
						break
					}
				}
				if err := l.once(600); err != nil {
					t.Error(err)
				}
				d.Close()
			})
		})
	}
}

// A server that has forgotten the client is told again, and a token that it refuses is renewed.
func TestCommandsForgotten(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			var l ledger
			good := "Bearer t1"
			inWorld(t, func(b *gpoll.Broadcaster) {
				l.hears(b)
				b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
					if r.Header.Get("Authorization") < good {
						return gpoll.Grant{}, errors.New("no")
					}
					return gpoll.Grant{}, nil
				}
			}, func(w *world) {
				asked := 0
				c := w.dial(client.Options{Transports: []client.Transport{transport}, Token: func(context.Context) (string, error) {
					asked++
					return fmt.Sprint("t", asked), nil
				}})
				if err := c.Send(context.Background(), []byte("1")); err != nil {
					t.Error(err)
				}
				good = "Bearer t2"
				if err := c.Send(context.Background(), []byte("2")); err != nil {
					t.Error(err)
				}
				old := w.b
				w.start()
				w.ln.Cut()
				if err := c.Send(context.Background(), []byte("3")); err != nil {
					t.Error(err)
				}
				w.stop(old)
				w.await(w.publish("", 1), c)
				if err := l.once(3); err != nil || asked > 3 {
					t.Error(err, asked)
				}
			})
		})
	}
}

// A path to the commands that swallows them, or answers in the server's name, says so and does no harm.
func TestCommandsAstray(t *testing.T) {
	for _, transport := range transports[1:] {
		t.Run(string(transport), func(t *testing.T) {
			var l ledger
			inWorld(t, l.hears, func(w *world) {
				posts := func(how http.HandlerFunc) {
					w.stands(func(rw http.ResponseWriter, r *http.Request, mount http.Handler) {
						if strings.HasSuffix(r.URL.Path, "/commands") {
							how(rw, r)
							return
						}
						mount.ServeHTTP(rw, r)
					})
				}
				c := w.dial(client.Options{Transports: []client.Transport{transport}})
				var swallowed atomic.Int32
				posts(func(rw http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					swallowed.Add(1)
					<-r.Context().Done()
				})
				begun := time.Now()
				sent := make(chan error)
				go func() { sent <- c.Send(context.Background(), []byte("1")) }()
				time.Sleep(25 * time.Second) // of the bubble's time
				if n := swallowed.Load(); n != 2 {
					t.Errorf("it came %d times", n)
				}
				w.stands(nil)
				if err := <-sent; err != nil || time.Since(begun) > time.Minute {
					t.Error(err, time.Since(begun))
				}
				for i, how := range []http.HandlerFunc{
					func(rw http.ResponseWriter, r *http.Request) { rw.Write([]byte("<html>")) },
					func(rw http.ResponseWriter, r *http.Request) { http.Error(rw, "<html>", http.StatusBadGateway) },
					func(rw http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
				} {
					posts(how)
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					if err := c.Send(ctx, []byte("x")); err != context.DeadlineExceeded {
						t.Errorf("%d: %v", i, err)
					}
					cancel()
				}
				posts(func(rw http.ResponseWriter, r *http.Request) { http.Error(rw, "<html>", http.StatusForbidden) })
				err := c.Send(context.Background(), []byte("x"))
				if err == nil || !strings.Contains(err.Error(), "no answer of gpoll") {
					t.Error(err)
				}
				w.stands(nil)
				if err := c.Send(context.Background(), []byte("2")); err != nil {
					t.Error(err)
				}
				if err := l.once(2); err != nil {
					t.Error(err)
				}
				if s := c.Status(); s.State != client.Connected || s.Transport != transport {
					t.Errorf("it is %v", s)
				}
			})
		})
	}
}
