// Command nchan measures nginx with Nchan, as Debian's package libnginx-mod-nchan ships it. It writes a configuration
// into a folder of its own, starts nginx with one worker, and publishes over HTTP on one connection.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
)

const config = `load_module %[1]s;
user root;
daemon off;
worker_processes 1;
worker_rlimit_nofile 19000;
error_log %[2]s/error.log crit;
pid %[2]s/nginx.pid;
events { worker_connections 15000; }
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	keepalive_requests 1000000000;
	keepalive_timeout 3600s;
	nchan_shared_memory_size 128M;
	server {
		listen %[3]s backlog=4096;
		location = /pub {
			nchan_publisher; nchan_channel_id bench;
			nchan_message_buffer_length 1000; nchan_message_timeout 1m;
		}
		location = /ws { nchan_subscriber websocket; nchan_channel_id bench; nchan_subscriber_first_message newest; }
		location = /sse { nchan_subscriber eventsource; nchan_channel_id bench; nchan_subscriber_first_message newest; }
		location = /lp { nchan_subscriber longpoll; nchan_channel_id bench; nchan_subscriber_first_message newest; }
		location = /lp-multipart {
			nchan_subscriber longpoll; nchan_longpoll_multipart_response on;
			nchan_channel_id bench; nchan_subscriber_first_message newest;
		}
	}
}
`

type nginx struct {
	cpu    int
	module string

	dir    string
	cmd    *exec.Cmd
	worker int
	conn   net.Conn
	answer *bufio.Reader
	host   string
	buf    []byte
	owed   int // answers not read yet
}

func main() {
	n := &nginx{}
	flags := func(f *flag.FlagSet) {
		f.IntVar(&n.cpu, "cpu", -1, "the `processor` that nginx runs on")
		f.StringVar(&n.module, "module", "/usr/lib/nginx/modules/ngx_nchan_module.so", "the `file` of the module")
	}
	serve.Main(serve.Peer{Flags: flags, Start: n.start, Stats: n.stats, Stop: n.stop})
}

func (n *nginx) start(ln net.Listener) (func([]byte) error, error) {
	n.host = ln.Addr().String()
	if err := ln.Close(); err != nil { // nginx opens the same port
		return nil, err
	}
	var err error
	if n.dir, err = os.MkdirTemp("", "nchan"); err != nil {
		return nil, err
	}
	file := filepath.Join(n.dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, n.module, n.dir, n.host), 0o600); err != nil {
		return nil, err
	}
	args := []string{"nginx", "-p", n.dir, "-e", n.dir + "/error.log", "-c", file}
	if n.cpu >= 0 {
		args = append([]string{"taskset", "-c", strconv.Itoa(n.cpu)}, args...)
	}
	n.cmd = exec.Command(args[0], args[1:]...)
	n.cmd.Stderr = os.Stderr
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	if err := n.connect(); err != nil {
		n.stop()
		return nil, err
	}
	return n.publish, nil
}

// connect waits until nginx answers: then its worker is there.
func (n *nginx) connect() (err error) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n.conn, err = net.Dial("tcp", n.host); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nginx did not start: %w", err)
		}
	}
	n.answer = bufio.NewReader(n.conn)
	if _, err := fmt.Fprintf(n.conn, "GET /nothing HTTP/1.1\r\nHost: %s\r\n\r\n", n.host); err != nil {
		return err
	}
	resp, err := http.ReadResponse(n.answer, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	n.worker, err = child(n.cmd.Process.Pid)
	return err
}

// child is the only child of a process: nginx's worker.
func child(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// depth is how many publishes may be without an answer: one more than none, so that nginx need not wait for the next.
const depth = 2

func (n *nginx) publish(p []byte) error {
	n.buf = fmt.Appendf(n.buf[:0],
		"POST /pub HTTP/1.1\r\nHost: %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", n.host, len(p), p)
	if _, err := n.conn.Write(n.buf); err != nil {
		return err
	}
	for n.owed++; n.owed >= depth; n.owed-- {
		resp, err := http.ReadResponse(n.answer, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		if resp.StatusCode/100 != 2 {
			return fmt.Errorf("nchan answered a publish with %s", resp.Status)
		}
	}
	return nil
}

// stats reads what the kernel says of the worker.
func (n *nginx) stats(bool) (s serve.Stats, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", n.worker))
	if err != nil {
		return s, err
	}
	var ns int64
	if _, err := fmt.Sscan(string(b), &ns); err != nil {
		return s, err
	}
	s.CPU = time.Duration(ns)
	s.RSS, err = serve.RSS(n.worker)
	return s, err
}

func (n *nginx) stop() {
	_ = unix.Kill(n.cmd.Process.Pid, unix.SIGTERM)
	_ = n.cmd.Wait()
	_ = os.RemoveAll(n.dir)
}
