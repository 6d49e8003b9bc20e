// Queue passes on what is posted to a topic, to everybody who listens to that topic. A listener that loses its
// connection misses nothing that the server's window still has.
//
//	go run ./examples/queue                                             # the server, at http://127.0.0.1:8083
//	go run ./examples/queue -listen news                                # prints what comes
//	go run ./examples/queue -send news hello
//	curl -H 'Content-Type: application/json' -d '{"topic":"news","content":"hello"}' http://127.0.0.1:8083/send
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/examples/internal/site"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8083", "where the server listens")
	listen := flag.String("listen", "", "a topic to listen to")
	send := flag.String("send", "", "a topic to send the rest of the command line to")
	flag.Parse()
	site.Run("queue", func(ctx context.Context) error {
		switch {
		case *listen != "":
			return hear(ctx, os.Stdout, "http://"+*addr, *listen)
		case *send != "":
			return post(ctx, "http://"+*addr, item{*send, strings.Join(flag.Args(), " ")})
		}
		return serve(ctx, *addr)
	})
}

// An item is what is posted.
type item struct {
	Topic   string `json:"topic"`
	Content string `json:"content"`
}

// newQueue returns the server: listeners at /poll, and POST /send.
func newQueue(b *gpoll.Broadcaster) http.Handler {
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	mux.HandleFunc("POST /send", func(w http.ResponseWriter, r *http.Request) {
		var it item
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 128<<10)).Decode(&it); err != nil || it.Topic == "" {
			http.Error(w, `send {"topic":"…","content":"…"} as JSON`, http.StatusBadRequest)
			return
		}
		at, err := b.Publish(r.Context(), gpoll.Message{Topic: it.Topic, Data: []byte(it.Content)})
		switch {
		case errors.Is(err, gpoll.ErrBadMessage), errors.Is(err, gpoll.ErrTooLarge):
			http.Error(w, err.Error(), http.StatusBadRequest)
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			fmt.Fprintln(w, at)
		}
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

func serve(ctx context.Context, addr string) error {
	b := gpoll.NewBroadcaster()
	return site.Serve(ctx, "the queue", addr, b, newQueue(b))
}

// hear prints what comes to a topic until ctx ends.
func hear(ctx context.Context, out io.Writer, url, topic string) error {
	c, err := client.Dial(ctx, url+"/poll", client.Options{Topics: []string{topic}})
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintln(out, "listening to", topic)
	for m, err := range c.Messages(ctx) {
		switch {
		case err != nil:
			return err
		case m.Gap != nil:
			fmt.Fprintln(out, "messages are missing:", m.Gap.Reason)
		default:
			fmt.Fprintln(out, string(m.Data))
		}
	}
	return nil
}

func post(ctx context.Context, url string, it item) error {
	body, err := json.Marshal(it)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/send", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		return fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(said)))
	}
	return nil
}
