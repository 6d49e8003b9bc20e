package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// An asker is a server that asks: at each attach, what has no answer yet.
type asker struct {
	mu      sync.Mutex // guards the fields below
	n       int
	open    map[string]string
	replies []string
	more    chan struct{} // closed when there is another request, and replaced
}

func (s *asker) ask(data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	s.open[fmt.Sprint(s.n)] = data
	close(s.more)
	s.more = make(chan struct{})
}

// asks returns the requests without an answer, and what is closed when there are others.
func (s *asker) asks() (all []string, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, data := range s.open {
		b, _ := json.Marshal(map[string]any{"id": id, "data": data})
		if data == "" {
			b = fmt.Appendf(nil, `{"id":%q,"data64":"/w=="}`, id)
		}
		all = append(all, string(b))
	}
	slices.SortFunc(all, func(a, b string) int { return number(a) - number(b) })
	return all, s.more
}

func number(request string) (n int) {
	var q struct {
		ID int `json:"id,string"`
	}
	_ = json.Unmarshal([]byte(request), &q)
	return q.ID
}

// replied answers a command.
func (s *asker) replied(frame []byte) string {
	var f struct {
		Reply *struct {
			Data   *string `json:"data"`
			Data64 *[]byte `json:"data64"`
			Error  string  `json:"error"`
		} `json:"reply"`
		ID string `json:"id"`
	}
	if json.Unmarshal(frame, &f) != nil || f.Reply == nil {
		return `{"error":{"code":"bad-request","message":""}}`
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[f.ID]; !ok {
		return fmt.Sprintf(`{"error":{"code":"no-request","message":"","id":%q}}`, f.ID)
	}
	text := s.open[f.ID] + ": "
	switch {
	case f.Reply.Error != "":
		text += "error " + f.Reply.Error
	case f.Reply.Data64 != nil:
		text += string(*f.Reply.Data64)
	default:
		text += *f.Reply.Data
	}
	if len(text) > 1000 {
		return fmt.Sprintf(`{"error":{"code":"too-large","message":"","id":%q}}`, f.ID)
	}
	delete(s.open, f.ID)
	s.replies = append(s.replies, text)
	return fmt.Sprintf(`{"replied":{"id":%q}}`, f.ID)
}

func (s *asker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const id, position = "0$6ba7b811-9dad-41d1-80b4-00c04fd430c8", "9f86d081884c7d65-1"
	switch r.URL.Path {
	case "/poll/ws":
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"gpoll.v1"}})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		if _, _, err := conn.Read(r.Context()); err != nil {
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		say := func(text string) { _ = conn.Write(ctx, websocket.MessageText, []byte(text)) }
		say(`{"welcome":{"client-id":"` + id + `","position":"` + position + `","heartbeat_ms":15000,"spread_ms":100}}`)
		go func() {
			defer cancel()
			for {
				_, frame, err := conn.Read(ctx)
				if err != nil {
					return
				}
				say(s.replied(frame))
			}
		}()
		for {
			all, more := s.asks()
			for _, one := range all {
				say(`{"request":` + one + `}`)
			}
			select {
			case <-more:
			case <-time.After(10 * time.Second):
				say(`{"position":"` + position + `"}`)
			case <-ctx.Done():
				return
			}
		}
	case "/poll/events":
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "event: client-id\nid: %s\ndata: {\"client-id\":%q}\n\n", position, id)
		for {
			all, more := s.asks()
			for _, one := range all {
				fmt.Fprintf(w, "event: request\ndata: %s\n\n", one)
			}
			w.(http.Flusher).Flush()
			select {
			case <-more:
			case <-time.After(10 * time.Second):
				fmt.Fprintf(w, "event: position\nid: %s\ndata:\n\n", position)
			case <-r.Context().Done():
				return
			}
		}
	case "/poll/commands":
		var frames []json.RawMessage
		body, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(body, &frames)
		var answers []string
		for _, frame := range frames {
			answers = append(answers, s.replied(frame))
		}
		fmt.Fprintf(w, "[%s]", strings.Join(answers, ","))
	default:
		all, more := s.asks()
		if len(all) == 0 && r.Header.Get("Gpoll-Client-Id") != "0" {
			select {
			case <-more:
				all, _ = s.asks()
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Second):
			}
		}
		fmt.Fprintf(w, `{"client-id":%q,"position":%q,"messages":[],"requests":[%s]}`, id, position, strings.Join(all, ","))
	}
}

// The client answers what the server asks, once, by each transport, also when it is asked again.
func TestAsked(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &asker{open: map[string]string{}, more: make(chan struct{})}
				ln := gpolltest.NewListener()
				srv := &http.Server{Handler: s}
				go srv.Serve(ln) // ends with srv.Close
				defer srv.Close()
				hc := ln.Client()
				defer hc.CloseIdleConnections()
				var mu sync.Mutex
				calls := map[string]int{}
				atOnce, most := 0, 0
				s.ask("early")
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				c, err := client.Dial(ctx, "http://gpoll.test/poll", client.Options{HTTPClient: hc,
					Transports: []client.Transport{transport},
					OnRequest: func(ctx context.Context, data []byte) ([]byte, error) {
						mu.Lock()
						calls[string(data)]++
						atOnce++
						most = max(most, atOnce)
						mu.Unlock()
						defer func() {
							mu.Lock()
							defer mu.Unlock()
							atOnce--
						}()
						time.Sleep(3 * time.Second) // of the bubble's time
						switch string(data) {
						case "no":
							return nil, errors.New("not today")
						case "exit":
							runtime.Goexit()
						case "large":
							return make([]byte, 2000), nil
						case "\xff":
							return data, nil
						}
						return []byte("re: " + string(data)), ctx.Err()
					}})
				if err != nil {
					t.Fatal(err)
				}
				for i := range 20 {
					s.ask(fmt.Sprint(i))
				}
				s.ask("no")
				s.ask("exit")
				s.ask("")
				s.ask("large")
				time.Sleep(time.Second)
				ln.Cut()
				time.Sleep(time.Minute)
				mu.Lock()
				for what, n := range calls {
					if n != 1 {
						t.Errorf("%q was handled %d times", what, n)
					}
				}
				if most != 8 {
					t.Errorf("%d at once", most)
				}
				mu.Unlock()
				c.HandleRequest(nil)
				s.ask("x")
				time.Sleep(time.Second)
				want := []string{": \xff", "early: re: early", "exit: error the handler of this client has ended its goroutine",
					"large: error client: the server says too-large", "no: error not today",
					"x: error this client answers no requests"}
				for i := range 20 {
					want = append(want, fmt.Sprintf("%d: re: %d", i, i))
				}
				s.mu.Lock()
				slices.Sort(want)
				if slices.Sort(s.replies); !slices.Equal(s.replies, want) {
					t.Errorf("the server got %q, want %q", s.replies, want)
				}
				s.mu.Unlock()
				c.Close()
			})
		})
	}
}

// A gpoll server asks, and has each answer once, whatever breaks.
func TestServerAsks(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			var met *gpoll.Client
			inWorld(t, func(b *gpoll.Broadcaster) {
				b.UpstreamRate = -1
				b.OnConnect = func(c *gpoll.Client) error { met = c; return nil }
			}, func(w *world) {
				var mu sync.Mutex
				calls := map[string]int{}
				c := w.dial(client.Options{Transports: []client.Transport{transport},
					OnRequest: func(_ context.Context, data []byte) ([]byte, error) {
						mu.Lock()
						calls[string(data)]++
						mu.Unlock()
						time.Sleep(5 * time.Millisecond) // of the bubble's time
						if string(data) == "no" {
							return nil, errors.New("not today")
						}
						return append([]byte("re: "), data...), nil
					}})
				time.Sleep(time.Second) // of the bubble: by long-poll it is met at its first poll after the registration
				synctest.Wait()
				var group sync.WaitGroup
				for i := range 5 {
					group.Go(func() {
						for j := range 40 {
							text := fmt.Sprint(i, " ", j)
							reply, err := met.Request(context.Background(), []byte(text))
							if err != nil || string(reply) != "re: "+text {
								t.Errorf("%s: %q, %v", text, reply, err)
							}
							time.Sleep(3 * time.Millisecond)
						}
					})
				}
				group.Go(func() {
					for range 20 {
						time.Sleep(17 * time.Millisecond)
						w.ln.Cut()
					}
				})
				group.Wait()
				_, err := met.Request(context.Background(), []byte("no"))
				if err == nil || !strings.Contains(err.Error(), "not today") {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for text, n := range calls {
					if n != 1 {
						t.Errorf("%q was asked %d times", text, n)
					}
				}
				if len(calls) != 201 {
					t.Errorf("%d were asked", len(calls))
				}
				w.await(w.publish("", 1), c)
			})
		})
	}
}
