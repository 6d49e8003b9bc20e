package stacks

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/needs"
)

// nodeClients are the common clients for SSE in JavaScript: see testdata/node/client.mjs.
var nodeClients = []string{"fetch-event-source", "event-source-polyfill", "eventsource", "eventsource-2",
	"eventsource-client", "launchdarkly-eventsource"}

// A heartbeat is an empty message to none of them, and moves the cursor: after a cut each reads on from the Position of
// the last heartbeat, and gets what was published meanwhile, once.
func TestHeartbeatInJavaScript(t *testing.T) {
	if testing.Short() {
		t.Skip("the clients take some seconds to come back: run without -short")
	}
	folder := filepath.Join("testdata", "node")
	if _, err := exec.LookPath("node"); err != nil {
		needs.Lacks(t, "node is not installed, so no client in JavaScript is tried: install Node.js 20 or newer")
	}
	if _, err := os.Stat(filepath.Join(folder, "node_modules")); err != nil {
		needs.Lacks(t, "the clients in JavaScript are not installed: run npm ci in tests/stacks/testdata/node")
	}
	for _, name := range nodeClients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &gpoll.Broadcaster{Heartbeat: 20 * time.Millisecond}
			mux := http.NewServeMux()
			b.ListenAndBroadcast("/poll", mux)
			cursors := make(chan string, 100) // with which the client came
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				cursors <- r.Header.Get("Last-Event-ID") + r.FormValue("lastEventId")
				mux.ServeHTTP(w, r)
			}))
			defer srv.Close()
			defer b.Shutdown(context.Background())
			link := newLink(t, srv.Listener.Addr().String())

			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			node := exec.CommandContext(ctx, "node", "client.mjs", name, "http://"+link.addr()+"/poll/events?topic=mine")
			node.Dir, node.Stderr = folder, os.Stderr
			out, err := node.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := node.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { cancel(); _ = node.Wait() }() // it was killed
			lines := bufio.NewScanner(out)
			// next returns the next event that is not the heartbeat by its name.
			next := func() (ev received) {
				for lines.Scan() {
					var one struct{ Name, ID, Data string }
					if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
						t.Fatalf("%s: %v", lines.Text(), err)
					}
					if one.Name == "position" {
						continue
					}
					if one.Data == "" {
						t.Fatalf("an empty message: %+v", one)
					}
					return received{one.Name, one.ID, one.Data}
				}
				t.Fatalf("the client ended: %v", lines.Err())
				return ev
			}
			publish := func(topic, data string) gpoll.Position {
				p, err := b.Publish(ctx, gpoll.Message{Topic: topic, Data: []byte(data)})
				if err != nil {
					t.Fatal(err)
				}
				return p
			}

			if ev := next(); ev.name != "client-id" {
				t.Fatalf("%+v", ev)
			}
			<-cursors
			publish("mine", "before")
			if ev := next(); ev.data != "before" {
				t.Fatalf("%+v", ev)
			}
			skipped := publish("another", "not for this client")
			link.await(ctx, t, "event: position\nid: "+skipped.String()+"\ndata: \n\n")
			link.cut()
			publish("mine", "during")
			select {
			case at := <-cursors:
				if at != skipped.String() {
					t.Errorf("the client comes back with %q, not with %v of the heartbeat", at, skipped)
				}
			case <-ctx.Done():
				t.Fatal("the client does not come back")
			}
			if ev := next(); ev.name == "client-id" { // a new one
				if ev = next(); ev.data != "during" || !slices.Contains([]string{"", "message"}, ev.name) {
					t.Errorf("after the cut: %+v", ev)
				}
			} else {
				t.Errorf("after the cut: %+v", ev)
			}
			publish("mine", "after")
			if ev := next(); ev.data != "after" {
				t.Errorf("%+v", ev)
			}
		})
	}
}

// A link passes connections on to a server, until they are cut.
type link struct {
	ln net.Listener
	to string

	mu    sync.Mutex // guards what follows
	conns []net.Conn
	sent  []byte        // all that the server has sent, and that has been passed on
	news  chan struct{} // closed when there is more
}

func newLink(t *testing.T, to string) *link {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{ln: ln, to: to, news: make(chan struct{})}
	go l.serve() // ends with ln
	t.Cleanup(func() { ln.Close(); l.cut() })
	return l
}

func (l *link) addr() string { return l.ln.Addr().String() }

func (l *link) serve() {
	for {
		client, err := l.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", l.to)
		if err != nil {
			client.Close()
			continue
		}
		l.mu.Lock()
		l.conns = append(l.conns, client, server)
		l.mu.Unlock()
		go io.Copy(server, client) // both end when a connection ends
		go func() {
			defer client.Close()
			for buf := make([]byte, 4096); ; {
				n, err := server.Read(buf)
				if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
					return
				}
				l.mu.Lock()
				l.sent = append(l.sent, buf[:n]...)
				close(l.news)
				l.news = make(chan struct{})
				l.mu.Unlock()
			}
		}()
	}
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

// await returns when text was passed on.
func (l *link) await(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	for {
		l.mu.Lock()
		there, news := bytes.Contains(l.sent, []byte(text)), l.news
		l.mu.Unlock()
		if there {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			t.Fatalf("%q did not come", text)
		}
	}
}
