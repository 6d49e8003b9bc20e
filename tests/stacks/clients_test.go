package stacks

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/launchdarkly/eventsource"
	r3labs "github.com/r3labs/sse/v2"
	gosse "github.com/tmaxmax/go-sse"

	"github.com/corvuscrypto/gpoll"
)

// A received event is one that a client of somebody else's handed to its program.
type received struct{ name, id, data string }

// sseClients are the common clients for SSE in Go. Each hands all events to got until ctx ends.
var sseClients = map[string]func(ctx context.Context, url string, got chan<- received) error{
	"launchdarkly/eventsource": func(ctx context.Context, url string, got chan<- received) error {
		s, err := eventsource.SubscribeWithURL(url)
		if err != nil {
			return err
		}
		defer s.Close()
		for {
			select {
			case ev := <-s.Events:
				got <- received{ev.Event(), ev.Id(), ev.Data()}
			case <-ctx.Done():
				return nil
			}
		}
	},
	"r3labs/sse": func(ctx context.Context, url string, got chan<- received) error {
		return r3labs.NewClient(url).SubscribeRawWithContext(ctx, func(ev *r3labs.Event) {
			got <- received{string(ev.Event), string(ev.ID), string(ev.Data)}
		})
	},
	"tmaxmax/go-sse": func(ctx context.Context, url string, got chan<- received) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		c := gosse.DefaultClient.NewConnection(r)
		c.SubscribeToAll(func(ev gosse.Event) { got <- received{ev.Type, ev.LastEventID, ev.Data} })
		if err = c.Connect(); ctx.Err() != nil {
			return nil
		}
		return err
	},
}

// A heartbeat is an empty message to none of them.
func TestHeartbeatIsNoMessage(t *testing.T) {
	for name, read := range sseClients {
		t.Run(name, func(t *testing.T) {
			b := &gpoll.Broadcaster{Heartbeat: 20 * time.Millisecond}
			mux := http.NewServeMux()
			b.ListenAndBroadcast("/poll", mux)
			srv := httptest.NewServer(mux)
			defer srv.Close()
			defer b.Shutdown(context.Background())
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			got := make(chan received, 1000)
			over := make(chan error, 1)
			go func() { over <- read(ctx, srv.URL+"/poll/events", got) }() // ends with cancel
			defer func() {
				cancel()
				if err := <-over; err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}()
			beats, sent := 0, false
			for {
				select {
				case ev := <-got:
					switch {
					case ev.name == "position":
						beats++
					case ev.data == "m":
						return
					case slices.Contains([]string{"", "message"}, ev.name):
						t.Fatalf("an empty message: %+v", ev)
					}
					if beats == 3 && !sent {
						sent = true
						b.Send("m")
					}
				case <-ctx.Done():
					t.Fatalf("the message did not come after %d heartbeats", beats)
				}
			}
		})
	}
}
