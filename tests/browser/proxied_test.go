//go:build unix

package browser

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/gpolltest"
	"github.com/corvuscrypto/gpoll/internal/freeport"
	"github.com/corvuscrypto/gpoll/internal/needs"
)

const nginx = `daemon off;
pid DIR/pid;
error_log DIR/log warn;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	server {
		listen FRONT;
		location / {
			proxy_pass http://BACK;
			proxy_set_header Host $http_host;
			proxy_buffering on;
			gzip on;
			gzip_proxied any;
			gzip_types *;
			gzip_min_length 1;
			MORE
		}
	}
}
`

const haproxy = `defaults
	mode http
	timeout connect 5s
	timeout client 10s
	timeout server 60s
frontend front
	bind FRONT
	default_backend back
backend back
	server one BACK
`

// behind starts a proxy in front of the world until the test ends, and returns the page's address there.
func (w *world) behind(program, config, more string) string {
	w.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path = needs.Program(w, filepath.Join("/usr/sbin", program),
			program+" is not there, so nothing is tried behind it: install it; make setup does")
	}
	dir, front := w.TempDir(), freeport.Address(w.T)
	if err := os.Chmod(dir, 0o777); err != nil { // its workers may be nobody
		w.Fatal(err)
	}
	file := filepath.Join(dir, "config")
	text := strings.NewReplacer("DIR", dir, "FRONT", front, "BACK", w.addr, "MORE", more).Replace(config)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
	args := []string{"-p", dir, "-e", dir + "/log", "-c", file}
	if program == "haproxy" {
		args = []string{"-db", "-f", file}
	}
	cmd := exec.Command(path, args...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the proxy
	w.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	for deadline := time.Now().Add(patience); ; <-time.After(10 * time.Millisecond) {
		c, err := net.Dial("tcp", front)
		if err == nil {
			_ = c.Close()
			return "http://" + front + "/"
		}
		select {
		case err := <-ended:
			ended <- err
			w.Fatalf("%s ends: %v %s", program, err, &said)
		default:
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s does not listen: %s", program, &said)
		}
	}
}

// Behind proxies that keep events back, drop Upgrade, or end what is idle, the first message comes within 8 s, and none
// is lost.
func TestProxied(t *testing.T) {
	for _, tt := range []struct {
		name, program, config, more string
		by                          string // the transport in the end
	}{
		{"nginx with buffering and gzip", "nginx", nginx, "", "sse"},
		{"nginx that keeps every stream back", "nginx", nginx,
			"proxy_http_version 1.1; proxy_ignore_headers X-Accel-Buffering;", "long-poll"},
		{"nginx that drops Upgrade", "nginx", nginx, `proxy_http_version 1.1; proxy_set_header Connection "";`, "sse"},
		{"nginx that passes Upgrade on", "nginx", nginx,
			`proxy_http_version 1.1; proxy_set_header Connection "upgrade"; proxy_set_header Upgrade $http_upgrade;`,
			"websocket"},
		{"HAProxy with 10 s for the client", "haproxy", haproxy, "", "websocket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			url := w.behind(tt.program, tt.config, tt.more)
			ways := map[string][]string{tt.by: nil}
			if tt.program == "haproxy" {
				ways = map[string][]string{"websocket": {"websocket"}, "sse": {"sse"}, "long-poll": {"long-poll"}}
			}
			tabs := map[string]*page{}
			for by, only := range ways {
				options := map[string]any{}
				if only != nil {
					options["transports"] = only
				}
				tabs[by] = newProfile(t).open(url)
				tabs[by].eval(nil, "(window.begun = performance.now(), 1)")
				w.listenOn(tabs[by], options)
			}
			w.publish(500, 1000)
			if tt.program == "haproxy" {
				for range 2 {
					<-time.After(12 * time.Second) // idle: that is what the test is about
					w.publish(300, 1000)
				}
			}
			w.publish(1200, 1000)
			for by, tab := range tabs {
				tab.eval(nil, "by(ARG)", by)
				var took float64
				tab.eval(&took, "until(() => events > 0).then(() => firstAt - begun)")
				if took > 8000 {
					t.Errorf("by %s the first message came after %.0f ms", by, took)
				}
				seen := w.judge(tab, gpolltest.Checker{NoGaps: true})
				t.Logf("by %s the first message came after %.0f ms:\n%s", by, took, states(seen))
			}
		})
	}
}
