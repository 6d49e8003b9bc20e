package gpolltest_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// A client listens by Server-Sent Events, loses its connection and goes on by WebSocket.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	b := gpoll.NewBroadcaster()
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	ln := gpolltest.NewListener()
	srv := &http.Server{Handler: mux}
	go srv.Serve(ln) // ends with srv.Close
	defer srv.Close()
	defer b.Shutdown(ctx)

	var h gpolltest.History
	alice := &gpolltest.Session{
		URL:    "http://gpoll.test/poll",
		Client: ln.Client(),
		Trace:  h.Trace("alice"),
		Topics: []string{"news"},
	}
	if err := alice.Attach(ctx, gpolltest.SSE); err != nil {
		log.Fatal(err)
	}
	h.Publish(ctx, b, gpoll.Message{Topic: "news", Data: []byte("first")})
	messages, err := alice.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", messages[0].Data)

	alice.Cut()
	h.Publish(ctx, b, gpoll.Message{Topic: "sports", Data: []byte("not for alice")})
	last, _ := h.Publish(ctx, b, gpoll.Message{Topic: "news", Data: []byte("second")})
	if err := alice.Attach(ctx, gpolltest.WebSocket); err != nil {
		log.Fatal(err)
	}
	if err := alice.Await(ctx, last); err != nil {
		log.Fatal(err)
	}
	alice.Drained()
	alice.Cut()
	fmt.Println("violations:", gpolltest.Checker{NoGaps: true}.Check(&h))
	// Output:
	// first
	// violations: []
}
