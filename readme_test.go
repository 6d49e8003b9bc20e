package gpoll_test

import (
	"bytes"
	"context"
	"fmt"
	"go/format"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/freeport"
)

// The address in the README's program and lines.
const readmeAddress = "127.0.0.1:8080"

// readme returns the README.
func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fenced returns the fenced blocks of that language in the README, in order.
func fenced(t *testing.T, language string) []string {
	t.Helper()
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(readme(t), -1) {
		if m[1] == language {
			blocks = append(blocks, m[2])
		}
	}
	return blocks
}

// readmeProgram returns the program of the README, which is its first block of Go, and the other blocks.
func readmeProgram(t *testing.T) (program string, fragments []string) {
	t.Helper()
	blocks := fenced(t, "go")
	if len(blocks) == 0 || !strings.HasPrefix(blocks[0], "package main\n") {
		t.Fatal("the first block of Go in README.md is not a program")
	}
	return blocks[0], blocks[1:]
}

// The shell lines of the README work against its own program and against cmd/gpoll.
func TestREADMELines(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		skip(t, "curl is not installed: the README's lines are not run")
	}
	var lines []string
	for _, block := range fenced(t, "sh") {
		if strings.Contains(block, "curl ") {
			lines = append(lines, block)
		}
	}
	if len(lines) != 3 {
		t.Fatalf("README.md has %d blocks of curl lines; this test knows 3: plain, JSON, SSE", len(lines))
	}
	for _, how := range []struct {
		name  string
		start func(*testing.T) string
	}{
		{"program", startREADMEProgram},
		{"cmd", startCommand},
	} {
		t.Run(how.name, func(t *testing.T) {
			address := how.start(t)
			at := func(block string) string { return strings.ReplaceAll(block, readmeAddress, address) }
			if out := runLines(t, at(lines[0])); !strings.HasSuffix(out, "hello") {
				t.Errorf("the plain lines print %q, not hello at the end", out)
			}
			if out := runLines(t, at(lines[1])); strings.Count(out, `"data":"first"`) != 2 {
				t.Errorf("the JSON lines print %q; both polls should have the message", out)
			}
			stream := followLine(t, at(lines[2]))
			stream.await(t, "event: client-id")
			stream.await(t, "data: first") // by last=5
			post(t, "http://"+address+"/send?topic=news", "second")
			stream.await(t, "data: second")
		})
	}
}

// startREADMEProgram builds and runs the README's program on a free port and returns its address.
func startREADMEProgram(t *testing.T) string {
	t.Helper()
	program, _ := readmeProgram(t)
	if n := strings.Count(program, `"`+readmeAddress+`"`); n != 1 {
		t.Fatalf("the README's program names %s %d times", readmeAddress, n)
	}
	dir, address := t.TempDir(), freeport.Address(t)
	source, exe := filepath.Join(dir, "main.go"), filepath.Join(dir, "readme")
	if err := os.WriteFile(source, []byte(strings.ReplaceAll(program, readmeAddress, address)), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "go", "build", "-o", exe, source)
	serve(t, address, exe)
	return address
}

// startCommand builds and runs cmd/gpoll on a free port and returns its address.
func startCommand(t *testing.T) string {
	t.Helper()
	exe, address := filepath.Join(t.TempDir(), "gpoll"), freeport.Address(t)
	t.Setenv("GOWORK", "") // without the workspace it would need a release of this package
	command(t, "go", "build", "-C", "cmd", "-o", exe, "./gpoll")
	serve(t, address, exe, "-addr", address)
	return address
}

// command runs a program that ends by itself.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// serve runs a server until the test ends. It returns when the server listens.
func serve(t *testing.T, address, exe string, args ...string) {
	t.Helper()
	p := run(t, exec.Command(exe, args...))
	await(t, "the server listens", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("%s ended:\n%s", exe, p.output())
		default:
		}
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// runLines runs a block of shell lines and returns what it prints.
func runLines(t *testing.T, block string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-e", "-c", block).CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s\nprinted: %s", err, block, out)
	}
	return string(out)
}

// followLine runs one shell line that does not end by itself.
func followLine(t *testing.T, line string) *process {
	t.Helper()
	return run(t, exec.Command("sh", "-c", "exec "+line)) // exec: so that killing the shell is killing the program
}

// A process runs until the test ends.
type process struct {
	exited chan struct{}

	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func run(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	cmd.WaitDelay = time.Second // for children that hold the output open
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		defer close(p.exited)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // Chromium then ends its own processes too
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		<-p.exited
		kill.Stop()
		if t.Failed() {
			t.Logf("%s printed:\n%s", cmd, p.output())
		}
	})
	return p
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.String()
}

// await waits until the process has printed a line.
func (p *process) await(t *testing.T, line string) {
	t.Helper()
	await(t, "the line "+line, func() bool { return slices.Contains(strings.Split(p.output(), "\n"), line) })
}

func post(t *testing.T, url, body string) {
	t.Helper()
	resp, err := http.Post(url, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s %v\n%s", url, resp.Status, err, answer)
	}
}

// The JavaScript lines of the README work in a browser, in a page of the origin of the README's program.
func TestREADMEPage(t *testing.T) {
	chromium := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" {
		skip(t, "Chromium is not installed: the README's JavaScript is not run")
	}
	blocks := fenced(t, "js")
	if len(blocks) != 2 {
		t.Fatalf("README.md has %d blocks of JavaScript; this test knows 2: EventSource, WebSocket", len(blocks))
	}
	address := startREADMEProgram(t)

	// A proxy adds a page to the program's origin, and hears what the page says to its console.
	said := make(chan string, 100)
	mux := http.NewServeMux()
	mux.Handle("/", &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: address})
		r.Out.Host = r.In.Host
	}})
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `<!doctype html><link rel="icon" href="data:,"><script type="module">
console.log = (...words) => fetch("/said", {method: "POST", body: words.join(" ")})
%s</script>`, strings.ReplaceAll(strings.Join(blocks, "\n"), readmeAddress, r.Host))
	})
	mux.HandleFunc("POST /said", func(_ http.ResponseWriter, r *http.Request) {
		words, _ := io.ReadAll(r.Body)
		said <- string(words)
	})
	proxy := httptest.NewServer(mux)
	t.Cleanup(proxy.Close)
	t.Cleanup(proxy.CloseClientConnections)
	profile, err := os.MkdirTemp("", "gpoll-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(profile) }) // unlike TempDir it is no failure when Chromium still writes
	browser := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--no-proxy-server", "--disable-background-networking", "--disable-component-update",
		"--user-data-dir="+profile, proxy.URL+"/page")
	browser.Env = append(os.Environ(), "TMPDIR="+profile)
	run(t, browser)

	// The EventSource says position and data, the WebSocket the registration and then data. When they are there nobody
	// knows, so the message is sent until both have said it.
	wanted := map[string]*regexp.Regexp{
		"EventSource":  regexp.MustCompile(`^[0-9a-f]{16}-[0-9]+ to the page$`),
		"WebSocket":    regexp.MustCompile(`^to the page$`),
		"registration": regexp.MustCompile(`^\{"client-id":"[0-9]+\$[0-9a-f-]{36}"\}$`),
	}
	timeout := time.NewTimer(3 * patience)
	defer timeout.Stop()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for len(wanted) > 0 {
		select {
		case words := <-said:
			for name, form := range wanted {
				if form.MatchString(words) {
					delete(wanted, name)
				}
			}
		case <-again.C:
			post(t, "http://"+address+"/send?topic=news", "to the page")
		case <-timeout.C:
			t.Fatalf("the page did not say what is expected of: %v", wanted)
		}
	}
}

// The fragments of Go in the README compile, and all of its Go is formatted.
func TestREADMEFragments(t *testing.T) {
	program, fragments := readmeProgram(t)
	var source strings.Builder
	source.WriteString(`package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll"
)

var (
	_ net.Conn
	_ = errors.Join
	_ = fmt.Println
	_ = strings.HasPrefix
	_ time.Duration
)

func main() {}
`)
	declared := regexp.MustCompile(`(?m)^((?:\w+, )*\w+) := `)
	for _, fragment := range append([]string{program}, fragments...) {
		formatted, err := format.Source([]byte(fragment))
		if err != nil {
			t.Errorf("%v:\n%s", err, fragment)
		} else if string(formatted) != fragment {
			t.Errorf("gofmt would change\n%s\nto\n%s", fragment, formatted)
		}
	}
	for i, fragment := range fragments {
		fmt.Fprintf(&source, `
func fragment%d(ctx context.Context, b *gpoll.Broadcaster, srv *http.Server, data []byte, id, sender string,
	signedIn func(*http.Request) (string, error)) error {
%s`, i, fragment)
		for _, m := range declared.FindAllStringSubmatch(fragment, -1) {
			for name := range strings.SplitSeq(m[1], ", ") {
				fmt.Fprintf(&source, "_ = %s\n", name)
			}
		}
		source.WriteString("return nil\n}\n")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	if err := os.WriteFile(file, []byte(source.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "go", "build", "-o", filepath.Join(dir, "fragments"), file)
}

// The README's table has every field of Broadcaster, with the default that the Broadcaster has.
func TestREADMESettings(t *testing.T) {
	_, table, found := strings.Cut(readme(t), "\n| field | default |")
	if !found {
		t.Fatal("README.md has no table of settings")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	said := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Za-z.]+)` \\| ([^|]+) \\| [^|]+ \\|$").FindAllStringSubmatch(table, -1) {
		if _, twice := said[m[1]]; twice {
			t.Errorf("%s is there twice", m[1])
		}
		said[m[1]] = m[2]
	}

	check := func(name string, field func(*gpoll.Broadcaster) reflect.Value) {
		cell, ok := said[name]
		if !ok {
			t.Errorf("README.md does not name %s", name)
			return
		}
		delete(said, name)
		b := new(gpoll.Broadcaster)
		v := field(b)
		if v.Kind() != reflect.Int && v.Kind() != reflect.Int64 || name == "History.Age" {
			return // the default is in words
		}
		// A bad value is refused with a sentence that ends with the default.
		v.SetInt(-5)
		_, err := b.Publish(t.Context(), gpoll.Message{})
		_, is, ok := strings.Cut(fmt.Sprint(err), ", or 0 for ")
		if !ok || !strings.Contains(err.Error(), "Broadcaster."+name+" ") {
			t.Errorf("%s = -5: %v", name, err)
			return
		}
		if !sameQuantity(cell, is) {
			t.Errorf("README.md says that the default of %s is %q; it is %s", name, cell, is)
		}
	}
	for f := range reflect.TypeFor[gpoll.Broadcaster]().Fields() {
		switch {
		case !f.IsExported():
		case f.Type == reflect.TypeFor[gpoll.Limits]():
			for part := range f.Type.Fields() {
				check(f.Name+"."+part.Name, func(b *gpoll.Broadcaster) reflect.Value {
					return reflect.ValueOf(b).Elem().FieldByIndex(f.Index).FieldByIndex(part.Index)
				})
			}
		default:
			check(f.Name, func(b *gpoll.Broadcaster) reflect.Value { return reflect.ValueOf(b).Elem().FieldByIndex(f.Index) })
		}
	}
	for name := range said {
		t.Errorf("README.md names %s, which is no field", name)
	}
}

// sameQuantity reports whether a cell such as "64 KiB", "25 s" or "1,000" is what Go prints as is.
func sameQuantity(cell, is string) bool {
	compact := strings.NewReplacer(",", "", " ", "").Replace(cell)
	if want, err := time.ParseDuration(compact); err == nil && compact != "0" {
		got, err := time.ParseDuration(is)
		return err == nil && got == want
	}
	unit := 1
	for suffix, bytes := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20} {
		if number, ok := strings.CutSuffix(compact, suffix); ok {
			compact, unit = number, bytes
		}
	}
	n, err := strconv.Atoi(compact)
	return err == nil && strconv.Itoa(n*unit) == is
}

// What the README points at is there: files, sections, targets of the Makefile and programs.
func TestREADMEPointers(t *testing.T) {
	text := readme(t)
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		sections[strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")] = true
	}
	for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
		switch target := m[1]; {
		case strings.HasPrefix(target, "https://"):
		case strings.HasPrefix(target, "#"):
			if !sections[target[1:]] {
				t.Errorf("there is no section %s", target)
			}
		default:
			if _, err := os.Stat(target); err != nil {
				t.Errorf("link: %v", err)
			}
		}
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)").FindAllStringSubmatch(text, -1) {
		if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
			t.Errorf("the Makefile has no target %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`go run \./([a-z/]+)`).FindAllStringSubmatch(text, -1) {
		_, inRoot := os.Stat(m[1])
		_, inPeers := os.Stat(filepath.Join("peers", m[1]))
		if inRoot != nil && inPeers != nil {
			t.Errorf("go run ./%s: %v", m[1], inRoot)
		}
	}
	protocol, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "section 16") && !bytes.Contains(protocol, []byte("\n## 16. What a client should do\n")) {
		t.Error("docs/protocol.md has no section 16, What a client should do")
	}
}
