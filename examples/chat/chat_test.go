package main

import (
	"bytes"
	"context"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/needs"
)

// A screen is what a terminal shows.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shows waits until the screen shows text. It reports false after 30 s.
func (s *screen) shows(text string) bool {
	for late := time.After(30 * time.Second); !strings.Contains(s.String(), text); {
		select {
		case <-s.more:
		case <-late:
			return false
		}
	}
	return true
}

func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	if !s.shows(text) {
		t.Fatalf("the screen does not show %q:\n%s", text, s)
	}
}

// A sitter is somebody at a terminal.
type sitter struct {
	*screen
	in   *io.PipeWriter
	done chan error
}

func sit(address, name string) *sitter {
	r, w := io.Pipe()
	s := &sitter{&screen{more: make(chan struct{}, 1)}, w, make(chan error, 1)}
	go func() { s.done <- terminal(context.Background(), r, s, address, name) }() // ends with leave
	return s
}

func (s *sitter) say(text string) { _, _ = io.WriteString(s.in, text+"\n") }

func (s *sitter) leave(t *testing.T) {
	t.Helper()
	s.in.Close()
	if err := <-s.done; err != nil {
		t.Error(err)
	}
}

func open(t *testing.T) *httptest.Server {
	r := newRoom()
	r.gpoll.ClientTTL = 5 * time.Second
	srv := httptest.NewServer(r.handler())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.gpoll.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	return srv
}

func TestTerminals(t *testing.T) {
	srv := open(t)
	ann := sit(srv.URL, "Ann")
	ann.say("good morning")
	ann.await(t, "Ann: good morning")
	bob := sit(srv.URL+"/", "Bob")
	bob.await(t, "Ann: good morning") // before he came
	bob.say("hi Ann")
	ann.await(t, "Bob: hi Ann")
	bob.say("/who")
	bob.await(t, "Ann")
	bob.say("")
	bob.await(t, "say something")
	bob.say("/dance")
	bob.await(t, `there is only /who, not "/dance"`)
	ann.leave(t)
	bob.say("and now?")
	bob.await(t, "Bob: and now?")
	bob.leave(t)
	nobody := sit(srv.URL, "  ")
	if err := <-nobody.done; err == nil || !strings.Contains(err.Error(), "unauthorized") {
		t.Errorf("without a name: %v", err)
	}
}

// TestPage runs testdata/chat.mjs, which drives the page in Chromium, while somebody sits at a terminal.
func TestPage(t *testing.T) {
	if testing.Short() {
		t.Skip("the browser takes seconds: run without -short")
	}
	node, browser, modules := needs.Playwright(t, "../..", "the page")
	srv := open(t)
	ann := sit(srv.URL, "Ann")
	ann.say("before she came")
	ann.await(t, "before she came")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	playwright := filepath.Join(filepath.Dir(modules), "node_modules", "playwright-core")
	page := exec.CommandContext(ctx, node, "testdata/chat.mjs", playwright, browser, srv.URL)
	page.Cancel = func() error { return page.Process.Signal(os.Interrupt) }
	page.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	page.Stdout, page.Stderr = &out, &out
	if err := page.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- page.Wait() }() // ends with the process
	if ann.shows("Bea: <b>hello</b> from the page") {
		ann.say("hello from the terminal")
		ann.await(t, "Ann: hello from the terminal")
		ann.leave(t)
	}
	err := <-ended
	t.Logf("%s", &out)
	if err != nil {
		t.Errorf("node chat.mjs: %v\nthe terminal shows:\n%s", err, ann)
	}
}
