package gpolltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/freeport"
	"github.com/corvuscrypto/gpoll/internal/needs"
)

const nginxConfig = `daemon off;
worker_processes 1;
error_log %[1]s/error.log crit;
pid %[1]s/nginx.pid;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	upstream gpoll { server %[2]s; keepalive 16; }
	server {
		listen %[3]s;
		location / { proxy_pass http://gpoll; proxy_http_version 1.1; proxy_set_header Connection ""; }
	}
}
`

// TestListenerBehindProxy has nginx carry many clients' polls over a few connections that it keeps. Each client gets
// its own messages and no others, and gpoll answers repeats on the shared connections.
func TestListenerBehindProxy(t *testing.T) {
	needs.Program(t, "nginx", "nginx is not there, so nothing is tried behind it: make setup installs it")
	b := gpoll.NewBroadcaster()
	b.PollWait = 2 * time.Second
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(b.Listener(ln)) }() // ends with srv.Close
	proxy := startNginx(t, ln.Addr().String())

	const clients, messages = 40, 300
	var h History
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var publics [clients]string
	var running sync.WaitGroup
	for i := range clients {
		s := &Session{URL: "http://" + proxy + "/poll", Client: client, Trace: h.Trace(fmt.Sprint("client ", i)),
			Topics: []string{"topic/" + strconv.Itoa(i%5)}}
		if err := s.Attach(ctx, LongPoll+Transport(i%2)); err != nil {
			t.Fatal(err)
		}
		publics[i] = gpoll.PublicID(s.id)
		running.Go(func() {
			defer s.Drained()
			defer s.Cut()
			for ctx.Err() == nil {
				got, err := s.Receive(ctx)
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				if n := len(got); n > 0 && string(got[n-1].Data) == "the end" {
					return
				}
			}
		})
	}
	for i := range messages {
		m := gpoll.Message{Data: []byte(strconv.Itoa(i))}
		switch i % 3 {
		case 0:
			m.Topic = "topic/" + strconv.Itoa(i%5)
		case 1:
			m.To = gpoll.ToClient(publics[i%clients])
		}
		if _, err := h.Publish(ctx, b, m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Publish(ctx, b, gpoll.Message{Data: []byte("the end")}); err != nil {
		t.Fatal(err)
	}
	running.Wait()
	st := b.Stats()
	t.Logf("%d delivered, %d repeats", st.Delivered, st.Repeats)
	if st.Repeats == 0 {
		t.Error("no poll was answered without net/http: the test shows nothing")
	}
	for _, v := range (Checker{NoGaps: true}).Check(&h) {
		t.Errorf("violation of %v", v)
	}
	if err := b.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	srv.Close()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// startNginx runs nginx in front of a server until the test ends, and returns its address.
func startNginx(t *testing.T, upstream string) (addr string) {
	dir := t.TempDir()
	addr = freeport.Address(t)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxConfig, dir, upstream, addr), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chmod(dir, 0o755); err != nil { // its workers are nobody
			t.Fatal(err)
		}
	}
	cmd := exec.Command("nginx", "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", file)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()
	})
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for range 500 {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return addr
		}
		<-ticker.C
	}
	t.Fatal("nginx did not start")
	return ""
}
