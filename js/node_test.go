package js_test

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/needs"
	"github.com/corvuscrypto/gpoll/js"
)

// The modules as they are served, in Node: they register, hear every message once and in order, and are heard.
func TestInNode(t *testing.T) {
	node := needs.Program(t, "node", noNode)
	served := serve(t)
	for _, transport := range []string{"sse", "long-poll"} {
		t.Run(transport, func(t *testing.T) { listen(t, node, served+"/gpoll.js", transport) })
	}
}

const noNode = "node is not installed, so the browser client is not run: install Node.js 20 or newer"

// serve returns a folder with the modules as they are served.
func serve(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	write(t, folder+"/package.json", `{"type":"module"}`)
	write(t, folder+"/gpoll.js", string(js.Core().Text))
	write(t, folder+"/global.js", string(js.Global().Text))
	for _, name := range js.Parts() {
		write(t, folder+"/client/"+js.Version()+"/"+name, string(js.Part(name).Text))
	}
	return folder
}

// write makes a file, and the folders that it is in.
func write(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
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
