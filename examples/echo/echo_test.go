package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Each of many clients gets its own answers, in order.
func TestOrdered(t *testing.T) {
	b, mux := newEcho(), http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	srv := httptest.NewServer(mux)
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	defer func() {
		if err := b.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}()
	var want strings.Builder
	for i := range 11 {
		fmt.Fprintf(&want, "recv: %d\n", i)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			var out strings.Builder
			if err := talk(ctx, &out, srv.URL+"/poll"); err != nil || out.String() != want.String() {
				t.Errorf("%q %v", out.String(), err)
			}
		})
	}
	all.Wait()
}

func TestServe(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := serve(ctx, "127.0.0.1:0"); err != nil {
		t.Error(err)
	}
	if err := serve(t.Context(), "127.0.0.1:99999"); err == nil {
		t.Error("it listens on a port that there is not")
	}
}
