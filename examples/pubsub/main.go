// Pubsub relays what its clients publish, by a protocol of text messages over a plain WebSocket:
//
//	subscribe:<channel>          hear what is published to the channel
//	unsubscribe:<channel>        no more
//	unsubscribe-all              hear nothing any more
//	publish:<channel>:<body>     send the body to everybody who hears the channel
//
// Each of them is answered "OK", and anything else "Invalid message". It listens on as many addresses as it is given:
//
//	go run ./examples/pubsub -listen 127.0.0.1:9000 -listen 127.0.0.1:9001
package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/corvuscrypto/gpoll/eventloop"
	"github.com/corvuscrypto/gpoll/examples/internal/site"
)

func main() {
	var plain, secure []string
	flag.Func("listen", "an `address` for ws:// (repeatable; default 127.0.0.1:9000)", add(&plain))
	flag.Func("listen-tls", "an `address` for wss:// (repeatable)", add(&secure))
	cert := flag.String("cert", "", "the certificate of -listen-tls, a `file`")
	key := flag.String("key", "", "its key, a `file`")
	flag.Parse()
	if len(plain)+len(secure) == 0 {
		plain = []string{"127.0.0.1:9000"}
	}
	site.Run("pubsub", func(ctx context.Context) error { return serve(ctx, plain, secure, *cert, *key) })
}

func add(to *[]string) func(string) error {
	return func(addr string) error {
		*to = append(*to, addr)
		return nil
	}
}

// serve relays until ctx ends.
func serve(ctx context.Context, plain, secure []string, cert, key string) error {
	loop := eventloop.New(newRelay())
	for _, addr := range plain {
		if err := loop.ListenAndServe(addr); err != nil {
			return err
		}
		fmt.Println("listening on ws://" + addr)
	}
	for _, addr := range secure {
		if err := loop.ListenAndServeTLS(addr, cert, key); err != nil {
			return err
		}
		fmt.Println("listening on wss://" + addr)
	}
	ended := make(chan error, 1)
	go func() { // ends with the loop
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		ended <- loop.Shutdown(late)
	}()
	if err := loop.Run(context.Background()); err != nil {
		return err
	}
	return <-ended
}
