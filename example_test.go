package gpoll_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// exampleGet returns the answer of a GET and its body, as a client of the examples sees them.
func exampleGet(url string, header ...string) (*http.Response, string) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	return resp, string(body)
}

// exampleID reads the answer to a registration.
func exampleID(body string) string {
	var registered struct {
		ID string `json:"client-id"`
	}
	if err := json.Unmarshal([]byte(body), &registered); err != nil {
		log.Fatal(err)
	}
	return registered.ID
}

// A client registers, a message is broadcast, and the client's poll is answered with it.
func ExampleBroadcaster_ListenAndBroadcast() {
	b := gpoll.NewBroadcaster()
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	defer b.Shutdown(context.Background())

	_, body := exampleGet(server.URL + "/poll?client-id=0")
	id := exampleID(body)

	b.Send("hello")

	_, body = exampleGet(server.URL + "/poll?client-id=" + url.QueryEscape(id))
	fmt.Println(body)
	// Output: hello
}

// A message to a topic, and the Position that it was given. A message with an ID is added once.
func ExampleBroadcaster_Publish() {
	b := gpoll.NewBroadcaster()
	defer b.Shutdown(context.Background())
	ctx := context.Background()

	first, err := b.Publish(ctx, gpoll.Message{Topic: "news", Data: []byte("rain"), ID: "order-17"})
	if err != nil {
		log.Fatal(err)
	}
	again, _ := b.Publish(ctx, gpoll.Message{Topic: "news", Data: []byte("rain"), ID: "order-17"})
	second, _ := b.Publish(ctx, gpoll.Message{Topic: "sport", Data: []byte("0:0")})
	fmt.Println(first.Seq, again == first, second.Seq, second.Epoch == first.Epoch)

	_, err = b.Publish(ctx, gpoll.Message{Topic: "news", To: gpoll.ToUser("alice")})
	fmt.Println(errors.Is(err, gpoll.ErrBadMessage))
	_, err = b.Publish(ctx, gpoll.Message{Topic: "news.*"}) // a pattern is for subscribers
	fmt.Println(errors.Is(err, gpoll.ErrBadMessage))
	// Output:
	// 1 true 2 true
	// true
	// true
}

// A client brings its position and gets what came after it, as often as it asks.
func ExampleBroadcaster_HandleRequests() {
	b := gpoll.NewBroadcaster()
	server := httptest.NewServer(http.HandlerFunc(b.HandleRequests))
	defer server.Close()
	defer b.Shutdown(context.Background())

	_, body := exampleGet(server.URL + "/?topic=news&format=json")
	var registered struct {
		ID       string `json:"client-id"`
		Position string `json:"position"`
	}
	if err := json.Unmarshal([]byte(body), &registered); err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	for _, m := range []gpoll.Message{
		{Topic: "news", Data: []byte("rain")},
		{Topic: "sport", Data: []byte("0:0")},
		{Data: []byte("to all")},
	} {
		if _, err := b.Publish(ctx, m); err != nil {
			log.Fatal(err)
		}
	}

	for range 2 {
		_, body = exampleGet(server.URL+"/?topic=news&format=json&after="+registered.Position,
			"Gpoll-Client-Id", registered.ID)
		var batch struct {
			Messages []struct{ Topic, Data string }
		}
		if err := json.Unmarshal([]byte(body), &batch); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%q\n", batch.Messages)
	}
	// Output:
	// [{"news" "rain"} {"" "to all"}]
	// [{"news" "rain"} {"" "to all"}]
}

// A client inside the process is a channel.
func ExampleBroadcaster_GetChannel() {
	b := gpoll.NewBroadcaster()
	id, routine := b.AddClient()
	messages, err := b.GetChannel(id, routine)
	if err != nil {
		log.Fatal(err)
	}
	client, _ := b.Client(id)

	b.Send("one")
	b.Send("two")
	fmt.Println(<-messages)
	fmt.Println(<-messages)

	b.RemoveClient(id)
	_, open := <-messages
	fmt.Println(open, client.Err())
	// Output:
	// one
	// two
	// false gpoll: the client's channel was closed: removed
}

// Authorize says who makes a request and what they may read.
func ExampleBroadcaster_Authorize() {
	b := gpoll.NewBroadcaster()
	b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
		user, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer token-of-") // a real one is checked
		if !ok {
			return gpoll.Grant{}, errors.New("no token")
		}
		return gpoll.Grant{
			User:      user,
			Topics:    []string{"inbox." + user},
			Subscribe: func(topic string) bool { return strings.HasPrefix(topic, "public.") },
			Expires:   time.Now().Add(time.Hour),
		}, nil
	}
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	defer b.Shutdown(context.Background())

	resp, _ := exampleGet(server.URL + "/poll?topic=public.news")
	fmt.Println(resp.StatusCode, resp.Header.Get("Gpoll-Error"))
	resp, _ = exampleGet(server.URL+"/poll?topic=secret", "Authorization", "Bearer token-of-alice")
	fmt.Println(resp.StatusCode, resp.Header.Get("Gpoll-Error"))
	resp, body := exampleGet(server.URL+"/poll?topic=public.news", "Authorization", "Bearer token-of-alice")
	fmt.Println(resp.StatusCode)

	id := exampleID(body)
	client, _ := b.Client(id)
	fmt.Println(client.User(), client.Topics())

	// The id alone is of no use to somebody else.
	resp, _ = exampleGet(server.URL+"/poll", "Authorization", "Bearer token-of-bob", "Gpoll-Client-Id", id)
	fmt.Println(resp.StatusCode, resp.Header.Get("Gpoll-Error"))
	fmt.Println(b.Revoke("alice"))
	// Output:
	// 401 unauthorized
	// 403 topic-forbidden
	// 200
	// alice [inbox.alice public.news]
	// 404 unknown-client
	// 1
}

// A client's session begins once and ends once, and what it says in between comes by any transport.
func ExampleBroadcaster_OnMessage() {
	b := gpoll.NewBroadcaster()
	said := make(chan string)
	b.OnConnect = func(c *gpoll.Client) error {
		c.Values().Store("greeting", "welcome")
		return nil
	}
	b.OnMessage = func(c *gpoll.Client, m gpoll.Message) {
		greeting, _ := c.Values().Load("greeting")
		c.Send(fmt.Sprint(greeting, ", you said: ", string(m.Data)))
	}
	b.OnClose = func(_ *gpoll.Client, reason string) { said <- reason }
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	defer b.Shutdown(context.Background())

	_, body := exampleGet(server.URL + "/poll?client-id=0")
	id := exampleID(body)
	tell := func(command string) string {
		r, err := http.NewRequest(http.MethodPost, server.URL+"/poll/commands", strings.NewReader(command))
		if err != nil {
			log.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Gpoll-Client-Id", id)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			log.Fatal(err)
		}
		return string(answer)
	}
	fmt.Println(tell(`{"send":{"data":"hi"},"id":"1"}`))
	fmt.Println(tell(`{"send":{"data":"hi"},"id":"1"}`)) // again, for the answer may have been lost
	_, body = exampleGet(server.URL+"/poll", "Gpoll-Client-Id", id)
	fmt.Println(body)
	tell(`{"leave":true}`)
	fmt.Println(<-said)
	// Output:
	// {"sent":{"id":"1"}}
	// {"sent":{"id":"1"}}
	// welcome, you said: hi
	// left
}

func ExampleParsePosition() {
	position, err := gpoll.ParsePosition("9f86d081884c7d65-41")
	fmt.Println(position.Seq, position, err)
	_, err = gpoll.ParsePosition("9F86D081884C7D65-041")
	fmt.Println(err != nil)
	// Output:
	// 41 9f86d081884c7d65-41 <nil>
	// true
}

// Shutdown comes before the http.Server's: it ends what waits here.
func ExampleBroadcaster_Shutdown() {
	b := gpoll.NewBroadcaster()
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	server := httptest.NewServer(mux)
	defer server.Close()

	messages, err := b.GetChannel(b.AddClient())
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(b.Shutdown(ctx), server.Config.Shutdown(ctx)); err != nil {
		log.Fatal(err)
	}
	_, open := <-messages
	_, err = b.Publish(ctx, gpoll.Message{Data: []byte("too late")})
	fmt.Println(open, errors.Is(err, gpoll.ErrClosed), b.Stats().Clients)
	// Output: false true 0
}
