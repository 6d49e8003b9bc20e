package js_test

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/js"
)

// The modules as they are served, in Node: they register, hear every message once and in order, and are heard.
func TestInNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("GPOLL_REQUIRE") == "1" {
			t.Fatal("no Node.js: install nodejs")
		}
		t.Skip("no Node.js: install nodejs")
	}
	served := t.TempDir()
	parts := served + "/client/" + js.Version()
	if err := os.MkdirAll(parts, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"gpoll.mjs": js.Core().Text, "package.json": []byte(`{"type":"module"}`)} {
		if err := os.WriteFile(served+"/"+name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range js.Parts() {
		if err := os.WriteFile(parts+"/"+name, js.Part(name).Text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, transport := range []string{"sse", "long-poll"} {
		t.Run(transport, func(t *testing.T) { listen(t, node, served+"/gpoll.mjs", transport) })
	}
}

// listen runs a program that hears so many messages, and answers one command.
func listen(t *testing.T, node, module, transport string) {
	const messages = 200
	b := gpoll.NewBroadcaster()
	heard := make(chan string, 1)
	b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) { heard <- string(m.Data) }
	b.OnRequest = func(_ *gpoll.Client, m gpoll.Message) ([]byte, error) { return append([]byte("re: "), m.Data...), nil }
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	defer func() { _ = b.Shutdown(ctx) }()
	program := exec.CommandContext(ctx, node, "testdata/listen.mjs", module, server.URL+"/poll", transport,
		strconv.Itoa(messages))
	var failed bytes.Buffer
	program.Stderr = &failed
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() string {
		lines.Scan()
		return lines.Text()
	}
	if got := next(); got != "open "+transport {
		t.Errorf("%q %s", got, &failed)
	}
	for i := range messages {
		if _, err := b.Publish(ctx, gpoll.Message{Topic: "news", Data: []byte("n" + strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range messages {
		if got, want := next(), "news n"+strconv.Itoa(i); got != want {
			t.Fatalf("%q, not %q %s", got, want, &failed)
		}
	}
	if got := next(); got != "reply re: what" {
		t.Errorf("%q %s", got, &failed)
	}
	other := map[string]string{"sse": "long-poll", "long-poll": "sse"}[transport]
	if got := next(); got != "open "+other {
		t.Errorf("the client that may use %s alone: %q %s", other, got, &failed)
	}
	if err := program.Wait(); err != nil {
		t.Errorf("%v: %s", err, strings.TrimSpace(failed.String()))
	}
	select {
	case got := <-heard:
		if got != "hi" {
			t.Errorf("heard %q", got)
		}
	default:
		t.Error("the application heard nothing")
	}
}
