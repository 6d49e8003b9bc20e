package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/sealed"
)

func boxOf(t *testing.T, text string) *sealed.Box {
	t.Helper()
	box, err := sealed.New(bytes.Repeat([]byte(text), 32)[:sealed.KeySize])
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// Two who have the key hear each other; the relay and one with another key do not, nor does one without the password.
func TestPrivate(t *testing.T) {
	b, mux := newRelay("open-sesame"), http.NewServeMux()
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
	type talker struct {
		say   io.Writer
		lines *bufio.Scanner
	}
	sit := func(box *sealed.Box) talker {
		in, say := io.Pipe()
		out, print := io.Pipe()
		ctx, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { // ends with the test
			defer close(done)
			_ = talk(ctx, in, print, srv.URL+"/poll", "open-sesame", box)
			_ = print.Close()
		}()
		t.Cleanup(func() {
			stop()
			_, _ = say.Close(), out.Close()
			<-done
		})
		return talker{say, bufio.NewScanner(out)}
	}
	ann, bea, eve := sit(boxOf(t, "ours")), sit(boxOf(t, "ours")), sit(boxOf(t, "another"))
	for b.Stats().Clients < 3 {
		<-time.After(time.Millisecond)
	}
	fmt.Fprintln(ann.say, "hello")
	for who, talks := range map[string]talker{"hello": bea, "sealed with a key that is not": eve} {
		talks.lines.Scan()
		if !strings.Contains(talks.lines.Text(), who) {
			t.Errorf("%q, and not %q", talks.lines.Text(), who)
		}
	}
	if said := carried(t, srv.URL); len(said) == 0 || bytes.Contains(said, []byte("hello")) {
		t.Errorf("the relay carries %q", said)
	}
	err := talk(ctx, strings.NewReader(""), io.Discard, srv.URL+"/poll", "wrong", boxOf(t, "ours"))
	if err == nil || !strings.Contains(err.Error(), "unauthorized") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// carried returns what the relay has of the last message.
func carried(t *testing.T, url string) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/poll?format=json&last=1&topic="+room, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer open-sesame")
	r.Header.Set("Gpoll-Client-Id", "0")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var batch struct {
		Messages []struct{ Data64 []byte }
	}
	if err := json.NewDecoder(res.Body).Decode(&batch); err != nil || len(batch.Messages) != 1 {
		t.Fatal(batch, err)
	}
	return batch.Messages[0].Data64
}

func TestMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		"$PASSWORD":    run(t.Context(), "127.0.0.1:0", "", "", ""),
		"no such file": run(t.Context(), "", "http://127.0.0.1:1/poll", file+"s", "x"),
		"it has 5":     run(t.Context(), "", "http://127.0.0.1:1/poll", file, "x"),
		"listen tcp":   run(t.Context(), "127.0.0.1:99999", "", "", "x"),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, and not %q", err, want)
		}
	}
}
