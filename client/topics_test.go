package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
)

// Topics that are subscribed to later are owed from then on, by each transport, and not after they are left.
func TestSubscribe(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				c := w.dial(client.Options{Transports: []client.Transport{transport}})
				w.publish("late", 1)
				w.await(w.publish("", 1), c) // the cursor is past both
				if err := c.Subscribe(context.Background(), "late"); err != nil {
					t.Fatal(err)
				}
				c.trace.Subscribed("late", c.Position())
				w.await(w.publish("late", 2), c)
				if err := c.Unsubscribe(context.Background(), "late"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				c.trace.Unsubscribed("late", c.Position())
				w.publish("late", 1)
				w.await(w.publish("", 1), c)
				synctest.Wait()
				if got, want := c.payloads(), "m2 m3 m4 m6"; got != want {
					t.Errorf("it got %q, want %q", got, want)
				}
			})
		})
	}
}

// Patterns are for the server to allow, by each transport, from the beginning and later. Names that no server takes are
// refused before anything is sent.
func TestPatterns(t *testing.T) {
	for _, transport := range transports {
		only := []client.Transport{transport}
		t.Run(string(transport), func(t *testing.T) {
			inWorld(t, func(b *gpoll.Broadcaster) { b.Wildcards = true }, func(w *world) {
				c := w.dial(client.Options{Transports: only, Topics: []string{"a.*"}})
				w.await(w.publish("a.b", 1), c)
				if err := c.Subscribe(context.Background(), "b.>"); err != nil {
					t.Fatal(err)
				}
				c.trace.Subscribed("b.>", c.Position())
				w.publish("c.d", 1)
				w.publish("b.c.d", 1)
				w.await(w.publish("", 1), c)
				if err := c.Unsubscribe(context.Background(), "a.*"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				c.trace.Unsubscribed("a.*", c.Position())
				w.publish("a.b", 1)
				w.await(w.publish("", 1), c)
				synctest.Wait()
				if got, want := c.payloads(), "m1 m3 m4 m6"; got != want {
					t.Errorf("it got %q, want %q", got, want)
				}
				for _, bad := range []string{"", "a b", "é", "a.>.b", "**", strings.Repeat("x", 256)} {
					if err := c.Subscribe(context.Background(), bad); err == nil || !strings.Contains(err.Error(), "is") {
						t.Errorf("Subscribe of %.20q: %v", bad, err)
					}
					if _, err := client.Dial(context.Background(), "http://x/", client.Options{Topics: []string{bad}}); err == nil {
						t.Errorf("Dial with %.20q: no error", bad)
					}
				}
				if _, err := c.Publish(context.Background(), "a.*", nil); err == nil {
					t.Error("Publish to a pattern: no error")
				}
			})
		})
		t.Run(string(transport)+" without", func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				o := client.Options{Transports: only, HTTPClient: w.hc, Topics: []string{"a.*"}}
				if _, err := client.Dial(context.Background(), "http://gpoll.test/poll", o); !isBadTopic(err) {
					t.Errorf("Dial: %v", err)
				}
				c := w.dial(client.Options{Transports: only})
				if err := c.Subscribe(context.Background(), "a.*"); !isBadTopic(err) {
					t.Errorf("Subscribe: %v", err)
				}
				w.await(w.publish("", 1), c)
			})
		})
	}
}

func isBadTopic(err error) bool {
	e, ok := errors.AsType[*client.EndError](err)
	return ok && e.Code == "bad-topic"
}
