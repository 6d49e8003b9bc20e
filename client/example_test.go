package client_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
)

// A session is two-way: the program asks and publishes, and hears what is published.
func Example() {
	b := gpoll.NewBroadcaster()
	b.Authorize = func(*http.Request) (gpoll.Grant, error) {
		return gpoll.Grant{Publish: func(topic string) bool { return topic == "chat" }}, nil
	}
	b.OnRequest = func(_ *gpoll.Client, m gpoll.Message) ([]byte, error) {
		return []byte(strings.ToUpper(string(m.Data))), nil
	}
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	defer b.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, server.URL+"/poll", client.Options{Topics: []string{"chat"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	reply, err := c.Request(ctx, []byte("what?"))
	fmt.Printf("%s %v\n", reply, err)
	if _, err := c.Publish(ctx, "chat", []byte("hello")); err != nil {
		fmt.Println(err)
	}
	for m, err := range c.Messages(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %s\n", m.Topic, m.Data)
		break
	}
	fmt.Println(c.Status().Transport)
	// Output:
	// WHAT? <nil>
	// chat: hello
	// websocket
}

// The server asks its clients.
func ExampleOptions_onRequest() {
	asked := make(chan string, 1)
	b := gpoll.NewBroadcaster()
	b.OnConnect = func(c *gpoll.Client) error {
		go func() { // ends with the reply
			reply, err := c.Request(context.Background(), []byte("your name?"))
			asked <- fmt.Sprintf("%s %v", reply, err)
		}()
		return nil
	}
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	defer b.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, server.URL+"/poll", client.Options{
		OnRequest: func(_ context.Context, data []byte) ([]byte, error) { return []byte("Ada"), nil },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Println(<-asked)
	// Output: Ada <nil>
}
