//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll/internal/needs"
)

// deadline is for anything that a test waits for.
const deadline = 20 * time.Second

// raceEnabled is set by race_test.go: the program is then built with the race detector too.
var raceEnabled bool

// binary is the program, built once by TestMain.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "gpoll-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "gpoll")
		args := []string{"build", "-o", binary}
		if raceEnabled {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// program is a running gpoll.
type program struct {
	url    string // without a slash at the end
	stdout string // what was printed before it served
	stderr *output
	stdin  io.WriteCloser
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended
}

// start runs gpoll on a free port of 127.0.0.1, unless args say otherwise, and returns when it has printed its lines.
func start(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{stderr: newOutput(), ended: make(chan struct{})}
	p.cmd = exec.Command(binary, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	p.cmd.Stderr = p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if strings.Contains(p.stderr.String(), "DATA RACE") {
			t.Errorf("the program has a data race:\n%s", p.stderr)
		}
	})
	printed := make(chan struct{})
	go func() { // ends with the process
		defer close(p.ended)
		var lines strings.Builder
		for s := bufio.NewScanner(stdout); s.Scan(); {
			fmt.Fprintln(&lines, s.Text())
			if url := regexp.MustCompile(`^ +(https?://\S+)/$`).FindStringSubmatch(s.Text()); url != nil {
				p.url = url[1]
			}
			if strings.Contains(s.Text(), sendPath+"'") { // the last one
				p.stdout = lines.String()
				close(printed)
				break
			}
		}
		io.Copy(io.Discard, stdout)
		p.cmd.Wait()
	}()
	select {
	case <-printed:
	case <-p.ended:
		t.Fatalf("gpoll %q ended with code %d before it served:\n%s", args, p.cmd.ProcessState.ExitCode(), p.stderr)
	case <-time.After(deadline):
		t.Fatalf("gpoll %q did not say where it listens:\n%s", args, p.stderr)
	}
	return p
}

// signal sends s, and exitCode waits for the end.
func (p *program) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (p *program) exitCode(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(deadline):
		t.Fatalf("the program did not end:\n%s", p.stderr)
	}
	return p.cmd.ProcessState.ExitCode()
}

// send publishes through POST /send.
func (p *program) send(t *testing.T, topic, body string) {
	t.Helper()
	url := p.url + sendPath
	if topic != "" {
		url += "?topic=" + topic
	}
	res, err := http.Post(url, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK || !regexp.MustCompile(`^{"position":"[0-9a-f]{16}-[1-9][0-9]*"}\n$`).Match(got) {
		t.Fatalf("POST %s: %s %s", url, res.Status, got)
	}
}

// anyCertificate is a client for the tests that are not about the certificate.
var anyCertificate = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}

// waitStats asks for the figures until ok likes them.
func (p *program) waitStats(t *testing.T, what string, ok func(figures) bool) {
	t.Helper()
	var f figures
	end := time.After(deadline)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+statsPath, nil)
		req.Header.Set("Authorization", "Bearer s3cret")
		res, err := anyCertificate.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(res.Body).Decode(&f)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if ok(f) {
			return
		}
		select {
		case <-end:
			t.Fatalf("%s: not so within %v; the figures are %+v", what, deadline, f)
		case <-tick.C:
		}
	}
}

// output collects what a process writes, and can be waited on.
type output struct {
	mu   sync.Mutex // guards the fields below
	buf  bytes.Buffer
	more chan struct{} // closed at the next Write
}

func newOutput() *output { return &output{more: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.more)
	o.more = make(chan struct{})
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// wait returns when the output contains text.
func (o *output) wait(t *testing.T, text string) {
	t.Helper()
	end := time.After(deadline)
	for {
		o.mu.Lock()
		found, more := strings.Contains(o.buf.String(), text), o.more
		o.mu.Unlock()
		if found {
			return
		}
		select {
		case <-more:
		case <-end:
			t.Fatalf("no %q in the output:\n%s", text, o)
		}
	}
}

// shell runs a line in the background, as if it had been pasted, and returns its output.
func shell(t *testing.T, line string, env ...string) *output {
	t.Helper()
	out := newOutput()
	cmd := exec.Command("sh", "-c", line)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the shell and its curl
		cmd.Wait()
	})
	return out
}

// curls returns the lines that gpoll printed to be pasted.
func (p *program) curls(t *testing.T) (poll, events, send string) {
	t.Helper()
	needs.Program(t, "curl", "curl is not installed, so the printed lines cannot be run: install curl")
	var lines []string
	for line := range strings.Lines(p.stdout) {
		if strings.Contains(line, "curl ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) != 3 {
		t.Fatalf("%d curl lines were printed, want 3:\n%s", len(lines), p.stdout)
	}
	return lines[0], lines[1], lines[2]
}

func TestPrintedCurlLinesWork(t *testing.T) {
	cert, key := certificate(t)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"plain", nil},
		{"another path", []string{"-path", "/live/feed"}},
		{"with a token", []string{"-publish-token", "s3cret"}},
		{"tls", []string{"-tls-cert", cert, "-tls-key", key}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, c.args...)
			poll, events, send := p.curls(t)
			if strings.Contains(p.stdout, "s3cret") {
				t.Errorf("the token is printed:\n%s", p.stdout)
			}
			byPoll, byEvents := shell(t, poll), shell(t, events)
			p.waitStats(t, "both are registered", func(f figures) bool { return f.Clients == 2 })
			shell(t, send, tokenVariable+"=s3cret").wait(t, `{"position":"`)
			byPoll.wait(t, "hello from curl\n")
			byEvents.wait(t, "data: hello from curl\n\n")
			if !regexp.MustCompile(`id: [0-9a-f]{16}-[1-9][0-9]*\ndata: hello from curl\n\n`).MatchString(byEvents.String()) {
				t.Errorf("the event has no position:\n%s", byEvents)
			}
		})
	}
}

func TestStdinIsBroadcast(t *testing.T) {
	p := start(t, "-stdin", "-max-message", "16")
	events := follow(t, p, "/poll/events")
	io.WriteString(p.stdin, "first line\n\nwindows line\r\ngrüße grüße grüße\nno end")
	p.stdin.Close()
	for _, want := range []string{"first line", "", "windows line", "grüße grüße ", "grüße", "no end"} {
		if got := events.message(t); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	p.stderr.wait(t, "gpoll: line 4 of standard input is longer than 16 bytes (-max-message) and is sent in pieces\n")
	p.stderr.wait(t, "standard input has ended; serving goes on")
	p.stderr.wait(t, "lines=5")
	p.send(t, "", "still serving")
	if got := events.message(t); got != "still serving" {
		t.Errorf("got %q after the end of standard input", got)
	}
}

func TestStdinTopic(t *testing.T) {
	p := start(t, "-stdin", "-stdin-topic", "log/access")
	subscriber, other := follow(t, p, "/poll/events?topic=log/access"), follow(t, p, "/poll/events")
	io.WriteString(p.stdin, "a line\n")
	if got := subscriber.message(t); got != "a line" {
		t.Errorf("got %q", got)
	}
	p.send(t, "", "to all")
	if got := other.message(t); got != "to all" {
		t.Errorf("the topic reached somebody who did not ask for it: %q", got)
	}
}

// stream is an open SSE response.
type stream struct {
	body *bufio.Reader
}

// follow opens an event stream and returns when it is registered.
func follow(t *testing.T, p *program, path string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	s := &stream{bufio.NewReader(res.Body)}
	if event, data := s.event(t); event != "client-id" {
		t.Fatalf("the stream begins with %q %q", event, data)
	}
	return s
}

// event returns the next event that has data.
func (s *stream) event(t *testing.T) (event, data string) {
	t.Helper()
	var lines []string
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		line = strings.TrimSuffix(line, "\n")
		switch field, value, _ := strings.Cut(line, ":"); {
		case line == "" && lines != nil:
			return event, strings.Join(lines, "\n")
		case line == "":
			event = ""
		case field == "event":
			event = strings.TrimPrefix(value, " ")
		case field == "data":
			lines = append(lines, strings.TrimPrefix(value, " "))
		}
	}
}

func (s *stream) message(t *testing.T) string {
	t.Helper()
	event, data := s.event(t)
	if event != "" {
		t.Fatalf("got the event %q with %q, want a message", event, data)
	}
	return data
}

// Each mistake is one sentence on standard error and code 2.
func TestMistakes(t *testing.T) {
	cert, key := certificate(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	if err := os.WriteFile(garbage, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"-nonsense", "-nonsense"},
		{"-client-buffer many", "client-buffer"},
		{"-client-buffer 0", "-client-buffer must be at least 1, not 0"},
		{"-max-message -5", "max-message"},
		{"-max-message 12parsecs", "such as 65536, 64KiB or 16MiB"},
		{"-history-age -1s", "-history-age"},
		{"-poll-wait 0", "-poll-wait"},
		{"-shutdown-spread 5ms", "-shutdown-spread must be at least 1s"},
		{"-sync-delay 1500us", "whole milliseconds"},
		{"-stats 1ms", "-stats must be at least 1s"},
		{"-log-level loud", "debug, info, warn or error"},
		{"-log-format xml", "text or json"},
		{"-path poll", "-path"},
		{"-path /", "-path"},
		{"-path /a/../b", "-path"},
		{"-path /{x}", "-path"},
		{"-path /send", "taken by gpoll itself"},
		{"-path /restart", "taken by gpoll itself"},
		{"-path /page/x", "taken by gpoll itself"},
		{"-stdin-topic x", "-stdin-topic needs -stdin"},
		{"-stdin -stdin-topic a*b", "-stdin-topic"},
		{"-allow-origin example.org", "-allow-origin must be an origin"},
		{"-public-origin https://example.org/path", "-public-origin must be an origin"},
		{"-allow-host https://example.org", "-allow-host must be a host name"},
		{"-publish-token a,b", "-publish-token"},
		{"serve", `unexpected argument "serve"`},
		{"-addr 8080", "-addr must be host:port"},
		{"-addr 127.0.0.1:99999", "127.0.0.1:99999"},
		{"-addr " + taken.Addr().String(), "is taken by another program"},
		{"-addr 0.0.0.0:0", "-publish-token"},
		{"-addr :0", "-publish-token"},
		{"-public-origin https://live.example.org", "-publish-token"},
		{"-allow-host live.example.org", "-publish-token"},
		{"-tls-cert " + cert, "-tls-cert and -tls-key must be given together"},
		{"-tls-cert /nowhere/cert.pem -tls-key " + key, "cannot read the file of -tls-cert"},
		{"-tls-cert " + cert + " -tls-key /nowhere/key.pem", "cannot read the file of -tls-key"},
		{"-tls-cert " + garbage + " -tls-key " + key, "cannot use the certificate"},
	} {
		t.Run(c.args, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			args := append([]string{"-addr", "127.0.0.1:0"}, strings.Fields(c.args)...)
			cmd := exec.CommandContext(ctx, binary, args...)
			cmd.Env = append(os.Environ(), tokenVariable+"=")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			cmd.Run()
			got := stderr.String()
			if code := cmd.ProcessState.ExitCode(); code != exitConfig {
				t.Errorf("exit code %d, want %d", code, exitConfig)
			}
			if stdout.Len() > 0 {
				t.Errorf("standard output is not empty: %q", &stdout)
			}
			if !strings.HasPrefix(got, "gpoll: ") || strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") ||
				!strings.Contains(got, c.want) {
				t.Errorf("want one sentence with %q, got %q", c.want, got)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, c := range []struct{ arg, want string }{
		{"-h", "  -publish-token token\n"},
		{"--help", "tail -F access.log | gpoll -stdin"},
		{"-version", "gpoll "},
	} {
		out, err := exec.CommandContext(t.Context(), binary, c.arg).Output()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: error %v, output %q", c.arg, err, out)
		}
	}
}

// A drain answers the waiting poll, ends the streams with their reason, and the program ends with 0.
func TestSignalsDrain(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(s.String(), func(t *testing.T) {
			p := start(t)
			events := follow(t, p, "/poll/events")
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			ws, _, err := websocket.Dial(ctx, strings.Replace(p.url, "http", "ws", 1)+"/poll/ws", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()
			if _, _, err := ws.Read(ctx); err != nil { // the registration
				t.Fatal(err)
			}
			polled := make(chan *http.Response, 1)
			go func() { // ends with the answer
				defer close(polled)
				if res, err := http.Get(p.url + "/poll?client-id=" + register(t, p.url)); err == nil {
					polled <- res
				}
			}()
			p.waitStats(t, "all three are attached", func(f figures) bool {
				return f.Attached["long-poll"] == 1 && f.Attached["sse"] == 1 && f.Attached["websocket"] == 1
			})

			p.signal(t, s)

			res := <-polled
			if res == nil {
				t.Fatal("the waiting poll got no answer")
			}
			defer res.Body.Close()
			var got refusal
			if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != http.StatusServiceUnavailable || got.Error != "shutdown" || got.RetryMS <= 0 {
				t.Errorf("the waiting poll was answered with %s and %+v", res.Status, got)
			}
			if event, data := events.event(t); event != "end" || !strings.Contains(data, `"shutdown"`) {
				t.Errorf("the stream ended with %q and %q", event, data)
			}
			if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway ||
				!strings.Contains(err.Error(), "shutdown;retry_ms=") {
				t.Errorf("the WebSocket ended with %v", err)
			}
			if code := p.exitCode(t); code != exitOK {
				t.Errorf("exit code %d:\n%s", code, p.stderr)
			}
			p.stderr.wait(t, "drained")
		})
	}
}

// A browser opens connections ahead of need. The drain closes those that carried nothing: http.Server alone waits for
// their first request, for longer than this drain may take.
func TestDrainClosesUnusedConnections(t *testing.T) {
	p := start(t, "-drain", "4s")
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Connections are accepted in order: once a later one has its answer, the server has the unused one.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: deadline}
	res, err := client.Get(p.url + statsPath)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	p.signal(t, syscall.SIGTERM)
	if code := p.exitCode(t); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a connection that was to be closed", n)
	}
}

// A second signal ends at once, although a client that reads nothing holds up the drain.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	p := start(t, "-drain", "5m")
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// A POST whose body does not come keeps http.Server.Shutdown waiting, for bodyTimeout.
	fmt.Fprintf(conn, "POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v", line, err)
	}
	p.signal(t, syscall.SIGTERM)
	p.stderr.wait(t, "draining")
	p.signal(t, syscall.SIGTERM)
	if code := p.exitCode(t); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, want %d:\n%s", code, 128+int(syscall.SIGTERM), p.stderr)
	}
}

// register returns the id of a new client, or "" if it gets none.
func register(t *testing.T, url string) string {
	res, err := http.Get(url + "/poll?client-id=0")
	if err != nil {
		t.Error(err)
		return ""
	}
	defer res.Body.Close()
	var registered map[string]string
	if err := json.NewDecoder(res.Body).Decode(&registered); err != nil {
		t.Error(err)
	}
	return registered["client-id"]
}

func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	p := start(t, "-tls-cert", cert, "-tls-key", key)
	if !strings.HasPrefix(p.url, "https://localhost:") {
		t.Fatalf("the address is %s, want a name of the certificate", p.url)
	}
	chain, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(chain)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: deadline}).Post(p.url+sendPath, "text/plain",
		strings.NewReader("over TLS"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Proto != "HTTP/2.0" {
		t.Errorf("%s %s", res.Proto, res.Status)
	}
}

func TestQuietAndJSONLog(t *testing.T) {
	cmd := exec.Command(binary, "-addr", "127.0.0.1:0", "-quiet", "-log-format", "json")
	stdout, stderr := newOutput(), newOutput()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	stderr.wait(t, `"url":"http://127.0.0.1:`)
	if stdout.String() != "" {
		t.Errorf("standard output is not empty: %q", stdout)
	}
}

func TestStatsLine(t *testing.T) {
	p := start(t, "-stats", "1s")
	p.send(t, "", "x")
	p.stderr.wait(t, `msg=stats clients=0 `)
}

// certificate writes a self-signed certificate for localhost and its key, and returns the files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gpoll test"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8)
}
