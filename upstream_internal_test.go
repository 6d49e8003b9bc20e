package gpoll

import (
	"testing"
	"testing/synctest"
	"time"
)

// A client that has given commands with ids and gives no more costs no memory for them after a while.
func TestCommandsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBroadcaster()
		b.ClientTTL, b.AttachTimeout = time.Hour, time.Hour
		b.OnMessage = func(*Client, Message) {}
		defer b.Shutdown(t.Context())
		cid, _ := b.AddClient()
		c, ok := b.Client(cid)
		if !ok {
			t.Fatal("no client")
		}
		for i := range 3 {
			if answer, no, err := c.hear(t.Context(), nil, &command{id: string(rune('a' + i))}); no != nil || err != nil {
				t.Fatalf("%s, %v, %v", answer, no, err)
			}
			time.Sleep(time.Minute)
		}
		u := c.up.Load()
		remembered := func(want int) {
			t.Helper()
			if !u.turn.try() {
				t.Fatal("the turn is taken")
			}
			defer u.turn.pass()
			if u.past.done.len != want || u.aging != (want > 0) {
				t.Errorf("%d commands are remembered, aging %v; want %d", u.past.done.len, u.aging, want)
			}
		}
		remembered(2) // the first is three minutes old
		time.Sleep(5 * time.Minute)
		remembered(0)
	})
}
