//go:build unix

package proxies

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
	"github.com/corvuscrypto/gpoll/internal/needs"
)

// serve runs a program behind the proxies until the test ends: gpoll, a page, and a way to publish.
func serve(t *testing.T, b *gpoll.Broadcaster) (addr string) {
	t.Helper()
	app := http.NewServeMux()
	b.ListenAndBroadcast("/poll", app)
	app.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><title>a page of the program</title>`)
	})
	app.HandleFunc("POST /send", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if _, err := b.Publish(r.Context(), gpoll.Message{Topic: q.Get("topic"), Data: []byte(q.Get("text"))}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	app.HandleFunc("GET /seen", func(w http.ResponseWriter, r *http.Request) {
		hops := strings.Split(r.Header.Get("X-Forwarded-For"), ",")
		fmt.Fprintf(w, "%s from %s", r.Host, hops[0])
	})
	mux := http.NewServeMux()
	mux.Handle("/", app)
	mux.Handle("/own/", http.StripPrefix("/own", app))
	ts := httptest.NewUnstartedServer(mux)
	ts.Listener = b.Listener(ts.Listener)
	ts.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		ts.Close()
	})
	return ts.Listener.Addr().String()
}

// client returns an HTTP client that takes any certificate.
func client(t *testing.T) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// A place is a page of the program behind a proxy.
type place struct {
	way
	mount string
	url   string
}

// missing reports whether the machine lacks a proxy; then a subtest says so.
func missing(t *testing.T, p *proxy) bool {
	_, err := p.path()
	if err != nil {
		t.Run(p.name, func(t *testing.T) { p.run(t, "", "") })
	}
	return err != nil
}

// places starts the proxies, each with its block of docs/proxies.md, and returns the pages by proxy.
func places(t *testing.T, backend string) map[string][]place {
	found := map[string][]place{}
	add := func(name, scheme, addr string) {
		for _, m := range mounts {
			found[name] = append(found[name], place{way{name, scheme}, m.path, scheme + "://" + addr + m.path})
		}
	}
	for _, p := range proxies {
		if missing(t, p) {
			continue
		}
		at := p.run(t, block(t, p.language), backend)
		add(p.name, "http", at.plain)
		if p.noTLS {
			front := named("HAProxy")
			if missing(t, front) {
				continue
			}
			at = front.run(t, block(t, front.language), at.plain)
		}
		add(p.name, "https", at.secure)
	}
	return found
}

// Every configuration of docs/proxies.md carries every transport: from Chromium, and from a program.
func TestProxies(t *testing.T) {
	if testing.Short() {
		t.Skip("five proxies and a browser take 20 seconds: run without -short")
	}
	backend := serve(t, &gpoll.Broadcaster{RegisterRate: -1})
	at := places(t, backend)
	note := func(p place, transport, trouble string) {
		if trouble != "" {
			t.Errorf("%s, %s by %s: %s", p.proxy, p.url, transport, trouble)
		}
	}
	var running sync.WaitGroup
	for _, pages := range at {
		running.Go(func() {
			for _, p := range pages {
				for _, transport := range transports {
					if err := exchange(t, p.url, transport); err != nil {
						note(p, transport+" from Go", err.Error())
					}
				}
				checkSeen(t, p)
			}
		})
	}
	running.Wait()
	failed := map[way]map[string][]string{} // from Chromium
	for _, r := range chromium(t, at) {
		p := at[r.Proxy][r.Index]
		note(p, r.Transport, r.Error)
		if failed[p.way] == nil {
			failed[p.way] = map[string][]string{}
		}
		if r.Error != "" {
			failed[p.way][p.mount] = append(failed[p.way][p.mount], r.Transport)
		}
	}
	if len(at) == len(proxies) {
		compareTable(t, failed)
	}
}

// exchange publishes two messages through the proxy and receives them, one after the other, in both forms of a
// transport.
func exchange(t *testing.T, url, transport string) error {
	c := client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	forms := map[string][]gpolltest.Transport{
		"long-poll": {gpolltest.LongPoll, gpolltest.LongPollPlain},
		"SSE":       {gpolltest.SSE, gpolltest.SSEPlain},
		"WebSocket": {gpolltest.WebSocket, gpolltest.WebSocketPlain},
	}
	origin := strings.Join(strings.Split(url, "/")[:3], "/")
	for _, form := range forms[transport] {
		topic := fmt.Sprintf("go:%s:%v", strings.ReplaceAll(url, "/", "."), int(form))
		s := &gpolltest.Session{URL: url + "poll", Client: c, Topics: []string{topic},
			Header: http.Header{"Origin": {origin}}}
		if err := s.Attach(ctx, form); err != nil {
			return fmt.Errorf("%v: %w", form, err)
		}
		for _, text := range []string{"one", "two"} {
			resp, err := c.Post(url+"send?topic="+topic+"&text="+text, "", nil)
			if err != nil {
				return err
			}
			resp.Body.Close()
			got := ""
			for got == "" {
				messages, err := s.Receive(ctx)
				if err != nil {
					return fmt.Errorf("%v: %w", form, err)
				}
				for _, m := range messages {
					got += string(m.Data)
				}
			}
			if got != text {
				return fmt.Errorf("%v: got %q, want %q", form, got, text)
			}
		}
		s.Cut()
	}
	return nil
}

// checkSeen checks what arrives at the program: the Host as it came, and the client's address.
func checkSeen(t *testing.T, p place) {
	resp, err := client(t).Get(p.url + "seen")
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	seen, err := io.ReadAll(resp.Body)
	host := strings.Split(p.url, "/")[2]
	if want := host + " from 127.0.0.1"; err != nil || string(seen) != want {
		t.Errorf("%s, %s: the program sees %q, want %q; %v", p.proxy, p.url, seen, want, err)
	}
}

// A result is what Chromium saw of one transport on the page at[Proxy][Index].
type result struct {
	Proxy, Transport, Error string
	Index                   int
}

// chromium runs testdata/listen.mjs, which opens the pages and listens on each by each transport.
func chromium(t *testing.T, at map[string][]place) (results []result) {
	t.Helper()
	node, browser, modules := needs.Playwright(t, "../..", "a page behind each proxy")
	urls, wanted := map[string][]string{}, 0
	for name, pages := range at {
		for _, p := range pages {
			urls[name] = append(urls[name], p.url)
			wanted += len(transports)
		}
	}
	task, err := json.Marshal(urls)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "testdata/listen.mjs", modules, browser, string(task))
	// An interrupt lets Playwright end its browser; the kill comes only after that.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, out)
	}
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(results) != wanted {
		t.Errorf("%d results, want %d", len(results), wanted)
	}
	return results
}
