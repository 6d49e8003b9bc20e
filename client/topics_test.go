package client_test

import (
	"context"
	"testing"
	"testing/synctest"

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
