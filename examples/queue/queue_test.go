package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

func TestGroups(t *testing.T) {
	b := gpoll.NewBroadcaster()
	srv := httptest.NewServer(newQueue(b))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	defer func() {
		if err := b.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}()
	// listener returns what hears the next line of a listener.
	listener := func(topic string) func() string {
		out, in := io.Pipe()
		ctx, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { // ends with the test
			defer close(done)
			_ = hear(ctx, in, srv.URL, topic)
			_ = in.Close()
		}()
		t.Cleanup(func() {
			stop()
			_ = out.Close()
			<-done
		})
		lines := bufio.NewScanner(out)
		return func() string {
			lines.Scan()
			return lines.Text()
		}
	}
	first, second, other := listener("news"), listener("news"), listener("sport")
	for _, hears := range []func() string{first, second, other} {
		if got := hears(); !strings.HasPrefix(got, "listening to ") {
			t.Fatal(got)
		}
	}
	for i := range 50 {
		if err := post(ctx, srv.URL, item{"news", fmt.Sprint("news ", i)}); err != nil {
			t.Fatal(err)
		}
		if err := post(ctx, srv.URL, item{"sport", fmt.Sprint("sport ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		for topic, hears := range map[string]func() string{"news": first, "sport": other} {
			if got := hears(); got != fmt.Sprint(topic, " ", i) {
				t.Errorf("a listener to %s hears %q", topic, got)
			}
		}
		if got := second(); got != fmt.Sprint("news ", i) {
			t.Errorf("the second listener hears %q", got)
		}
	}
	for _, bad := range []item{{"", "no topic"}, {"bad topic", ""}, {"news", strings.Repeat("x", 100_000)}} {
		if err := post(ctx, srv.URL, bad); err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("%.20v: %v", bad, err)
		}
	}
}
