// Echo answers each message of a client, in the client's order, although many clients are served at once.
//
//	go run ./examples/echo                                        # the server, at http://127.0.0.1:8082/poll
//	go run ./examples/echo -dial http://127.0.0.1:8082/poll       # a client, which says 0 to 10
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/examples/internal/site"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8082", "where the server listens")
	dial := flag.String("dial", "", "the address of a server, to be its client")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *dial != "" {
		err = talk(ctx, os.Stdout, *dial)
	} else {
		err = serve(ctx, *addr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// newEcho returns a Broadcaster that answers. A client's messages come to OnMessage one at a time and in its order.
func newEcho() *gpoll.Broadcaster {
	b := gpoll.NewBroadcaster()
	b.OnMessage = func(c *gpoll.Client, m gpoll.Message) { c.Send("recv: " + string(m.Data)) }
	return b
}

func serve(ctx context.Context, addr string) error {
	b, mux := newEcho(), http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	return site.Serve(ctx, "the echo", addr, b, mux)
}

// talk says 0 to 10, and prints the answers.
func talk(ctx context.Context, out io.Writer, url string) error {
	c, err := client.Dial(ctx, url, client.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	const last = 10
	for i := range last + 1 {
		if err := c.Send(ctx, fmt.Append(nil, i)); err != nil {
			return err
		}
	}
	left := last + 1
	for m, err := range c.Messages(ctx) {
		if err != nil {
			return err
		}
		fmt.Fprintln(out, string(m.Data))
		if left--; left == 0 {
			return nil
		}
	}
	return nil
}
