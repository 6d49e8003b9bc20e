package client_test

import (
	"testing"
	"testing/synctest"

	"github.com/corvuscrypto/gpoll/client"
)

// Messages come by each transport, to everybody and to topics, from where the client began.
func TestEachTransport(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				w.publish("news", 3)
				c := w.dial(client.Options{Transports: []client.Transport{transport}, Topics: []string{"news"}})
				w.publish("news", 2)
				w.publish("other", 2)
				w.await(w.publish("", 1), c)
				synctest.Wait()
				if got, want := c.payloads(), "m4 m5 m8"; got != want {
					t.Errorf("it got %q, want %q", got, want)
				}
				if s := c.Status(); s.State != client.Connected || s.Transport != transport || s.Reasons != nil || s.Err != nil {
					t.Errorf("it is %v", s)
				}
				c.Close()
				<-c.done
				if c.err != client.ErrClosed {
					t.Errorf("Messages ended with %v", c.err)
				}
			})
		})
	}
}
