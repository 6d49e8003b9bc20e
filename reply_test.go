package gpoll_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// flood sends commands until the connection takes no more, or all have been taken, and counts the bytes that were.
type flood struct {
	taken atomic.Int64
	sent  sync.WaitGroup
}

func (f *flood) begin(c *reader, frames [][]byte) {
	f.sent.Go(func() {
		for _, p := range frames {
			n, err := c.Write(p)
			f.taken.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
}

// repeated returns n times the same frame.
func repeated(p []byte, n int) [][]byte {
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = p
	}
	return frames
}

// A client that gives commands and reads no answer is not read any further, and ends as slow. Nobody else notices.
func TestCommandFlood(t *testing.T) {
	topics := make([]string, 100)
	for i := range topics {
		topics[i] = fmt.Sprintf("%q", strings.Repeat("x", 250)+fmt.Sprint(i))
	}
	for name, command := range map[string]string{
		"refused":   `{"what":1}`,
		"subscribe": `{"subscribe":["a"]}`,
		"large":     `{"subscribe":[` + strings.Join(topics, ",") + `]}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, setup{memory: true, buffer: 8 << 10})
				c := s.stream(t, "gpoll.v1", "0", "")
				other := s.stream(t, "gpoll.v1", "0", "")
				var f flood
				frames := repeated(clientFrame(t, "text "+command), (2<<20)/len(command))
				f.begin(c, frames)
				begun := time.Now()
				synctest.Wait()
				// What the connection holds, the command that came last, and those that wait.
				if most := int64(8<<10 + 2*len(frames[0]) + 48<<10); f.taken.Load() > most {
					t.Errorf("%d bytes of commands were taken, want at most %d", f.taken.Load(), most)
				}
				s.Send("hello")
				if data, end, err := other.next(); !strings.Contains(data, "hello") || err != nil {
					t.Errorf("another client: %q %q %v", data, end, err)
				}
				for s.Stats().Attached["websocket"] == 2 {
					time.Sleep(100 * time.Millisecond)
				}
				within(t, "the end", time.Since(begun), 10*time.Second, 11*time.Second)
				for {
					data, end, err := c.next()
					if err != nil {
						t.Fatal(err)
					}
					if end != "" {
						if end != "4008 slow" {
							t.Errorf("the end: %q", end)
						}
						break
					}
					if !strings.HasPrefix(data, `{"error"`) && !strings.HasPrefix(data, `{"subscribed"`) {
						t.Fatalf("%q", data)
					}
				}
				c.Close()
				f.sent.Wait()
			})
		})
	}
}

// A client that gave more commands than it had read answers for reads on, and gets every answer in its order.
func TestCommandFloodAnswered(t *testing.T) {
	const n = 3000
	play := func(t *testing.T, s *server, settle func()) {
		c := s.stream(t, "gpoll.v1", "0", "")
		var f flood
		var frames [][]byte
		for i := range n {
			frames = append(frames, clientFrame(t, "text "+[]string{
				fmt.Sprintf(`{"subscribe":["t%d"]}`, i), fmt.Sprintf(`{"unsubscribe":["t%d"]}`, i-1), `{"what":1}`,
			}[i%3]))
		}
		f.begin(c, frames)
		settle()
		for i := range n {
			want := []string{
				fmt.Sprintf(`{"subscribed":{"topics":["t%d"]`, i), fmt.Sprintf(`{"unsubscribed":{"topics":["t%d"]`, i-1),
				`{"error":{"code":"bad-request"`,
			}[i%3]
			if data, end, err := c.next(); !strings.HasPrefix(data, want) || err != nil {
				t.Fatalf("answer %d: %q %q %v, want %s", i, data, end, err, want)
			}
		}
		f.sent.Wait()
		s.Send("after all")
		if data, end, err := c.next(); !strings.Contains(data, "after all") || err != nil {
			t.Errorf("%q %q %v", data, end, err)
		}
	}
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			play(t, start(t, setup{memory: true, buffer: 8 << 10}), func() { advance(5 * time.Second) })
		})
	})
	t.Run("loopback", func(t *testing.T) {
		play(t, start(t, setup{server: sendBuffers(8 << 10)}), func() {})
	})
}

// While the application thinks about a subscribe, the messages go on.
func TestMessagesWhileAsked(t *testing.T) {
	for _, memory := range []bool{true, false} {
		t.Run(fmt.Sprintf("memory=%v", memory), func(t *testing.T) {
			asked, hold := make(chan struct{}), make(chan struct{})
			s := start(t, setup{memory: memory, broadcaster: func(b *gpoll.Broadcaster) {
				b.Authorize = func(*http.Request) (gpoll.Grant, error) {
					return gpoll.Grant{Subscribe: func(string) bool {
						close(asked)
						<-hold
						return true
					}}, nil
				}
			}})
			c := s.stream(t, "gpoll.v1", "0", "")
			c.Write(clientFrame(t, `text {"subscribe":["a"]}`))
			<-asked
			s.Send("meanwhile")
			if data, end, err := c.next(); !strings.Contains(data, "meanwhile") {
				t.Errorf("%q %q %v", data, end, err)
			}
			close(hold)
			if data, end, err := c.next(); !strings.HasPrefix(data, `{"subscribed":`) {
				t.Errorf("%q %q %v", data, end, err)
			}
		})
	}
}
