package gpoll_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/corvuscrypto/gpoll"
)

// A channel that ends while messages wait for room in it brings no message behind one that it left out.
func TestChannelEndsInOrder(t *testing.T) {
	for range 1000 { // which of two things that are ready a select takes is chance
		b := &gpoll.Broadcaster{ClientBufferSize: 1}
		ch, err := b.GetChannel(b.AddClient())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			b.Send(fmt.Sprint(i))
		}
		var down sync.WaitGroup
		down.Go(func() { _ = b.Shutdown(context.Background()) })
		want := 0
		for got := range ch {
			if got != fmt.Sprint(want) {
				t.Fatalf("got %s, want %d", got, want)
			}
			want++
			runtime.Gosched()
		}
		down.Wait()
	}
}
