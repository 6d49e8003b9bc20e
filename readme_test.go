package gpoll_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/freeport"
	"github.com/corvuscrypto/gpoll/internal/needs"
)

// The documents whose code these tests run.
const (
	readmeFile = "README.md"
	guideFile  = "docs/guide.md"
)

// documentAddress is the address in their programs and lines.
const documentAddress = "127.0.0.1:8080"

// document returns the text of a document.
func document(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fenced returns the fenced blocks of that language in a document, in order. It fails unless there are n of them.
func fenced(t *testing.T, file, language string, n int) []string {
	t.Helper()
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(document(t, file), -1) {
		if m[1] == language {
			blocks = append(blocks, m[2])
		}
	}
	if len(blocks) != n {
		t.Fatalf("%s has %d blocks of %s; this test knows %d", file, len(blocks), language, n)
	}
	return blocks
}

// curlLines returns the blocks of shell lines in a document that call curl. It fails unless there are n of them.
func curlLines(t *testing.T, file string, blocks, n int) []string {
	t.Helper()
	needs.Program(t, "curl", "curl is not installed: the lines of "+file+" are not run")
	var lines []string
	for _, block := range fenced(t, file, "sh", blocks) {
		if strings.Contains(block, "curl ") {
			lines = append(lines, block)
		}
	}
	if len(lines) != n {
		t.Fatalf("%s has %d blocks of curl lines; this test knows %d", file, len(lines), n)
	}
	return lines
}

// The shell lines of the README work against its own program, which serves its page.
func TestREADMELines(t *testing.T) {
	lines := curlLines(t, readmeFile, 4, 2)
	address := startREADMEProgram(t)
	at := func(block string) string { return strings.ReplaceAll(block, documentAddress, address) }
	stream := followLine(t, at(lines[0]))
	stream.await(t, "event: client-id")
	runLines(t, at(lines[1]))
	stream.await(t, "data: hello")
}

// The shell lines of the guide work against cmd/gpoll.
func TestGuideLines(t *testing.T) {
	lines := curlLines(t, guideFile, 3, 3)
	address := startCommand(t)
	at := func(block string) string { return strings.ReplaceAll(block, documentAddress, address) }
	if out := runLines(t, at(lines[0])); !strings.HasSuffix(out, "hello") {
		t.Errorf("the plain lines print %q, not hello at the end", out)
	}
	if out := runLines(t, at(lines[1])); strings.Count(out, `"data":"first"`) != 2 {
		t.Errorf("the JSON lines print %q; both polls should have the message", out)
	}
	stream := followLine(t, at(lines[2]))
	stream.await(t, "event: client-id")
	stream.await(t, "data: first") // by last=5
	post(t, "http://"+address+"/send?topic=news", "text/plain", "second")
	stream.await(t, "data: second")
}

// startREADMEProgram builds the README's program, runs it beside its page on a free port, and returns the address.
func startREADMEProgram(t *testing.T) string {
	t.Helper()
	program, page := fenced(t, readmeFile, "go", 1)[0], fenced(t, readmeFile, "html", 1)[0]
	if n := strings.Count(program, `"`+documentAddress+`"`); n != 1 {
		t.Fatalf("the README's program names %s %d times", documentAddress, n)
	}
	dir, address := t.TempDir(), freeport.Address(t)
	source, exe := filepath.Join(dir, "main.go"), filepath.Join(dir, "readme")
	for file, text := range map[string]string{
		source:                          strings.ReplaceAll(program, documentAddress, address),
		filepath.Join(dir, "page.html"): page,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command(t, "go", "build", "-o", exe, source)
	cmd := exec.Command(exe)
	cmd.Dir = dir
	serve(t, address, cmd)
	return address
}

// startCommand builds and runs cmd/gpoll on a free port and returns its address.
func startCommand(t *testing.T) string {
	t.Helper()
	exe, address := filepath.Join(t.TempDir(), "gpoll"), freeport.Address(t)
	t.Setenv("GOWORK", "") // without the workspace it would need a release of this package
	command(t, "go", "build", "-C", "cmd", "-o", exe, "./gpoll")
	serve(t, address, exec.Command(exe, "-addr", address))
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
func serve(t *testing.T, address string, cmd *exec.Cmd) {
	t.Helper()
	p := run(t, cmd)
	await(t, "the server listens", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("%s ended:\n%s", cmd, p.output())
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

func post(t *testing.T, url, contentType, body string) {
	t.Helper()
	resp, err := http.Post(url, contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s %v\n%s", url, resp.Status, err, answer)
	}
}

// Two browser windows with the README's page talk to each other: a message that is typed into the form is in the page.
func TestREADMEPage(t *testing.T) {
	chromium := needs.Chromium(t, "the README's page")
	page := fenced(t, readmeFile, "html", 1)[0]
	said := make(chan string, 100)
	browse(t, chromium, startREADMEProgram(t), said, `<script>
const dispatch = EventTarget.prototype.dispatchEvent
EventTarget.prototype.dispatchEvent = function (e) {
	dispatch.call(this, e)
	if (e.type === "open") { // of the GpollSource
		document.querySelector("input").value = "typed"
		document.querySelector("form").requestSubmit()
	}
}
</script>`+page+`<script>
new MutationObserver(() => fetch("/said", {method: "POST", body: out.textContent})).observe(out, {childList: true})
</script>`)
	timeout := time.NewTimer(3 * patience)
	defer timeout.Stop()
	for words := ""; words != "typed\n"; {
		select {
		case words = <-said:
		case <-timeout.C:
			t.Fatalf("the page shows %q", words)
		}
	}
}

// The JavaScript lines of the guide work in a browser, in a page of the origin of cmd/gpoll.
func TestGuidePage(t *testing.T) {
	chromium := needs.Chromium(t, "the guide's JavaScript")
	blocks := fenced(t, guideFile, "js", 2) // EventSource, WebSocket
	address := startCommand(t)
	said := make(chan string, 100)
	browse(t, chromium, address, said, `<!doctype html><script type="module">
console.log = (...words) => fetch("/said", {method: "POST", body: words.join(" ")})
`+strings.Join(blocks, "\n")+`</script>`)

	// The EventSource says a position and the data. The WebSocket says the registration and then the data. The test
	// cannot know when both are there, so it sends the message until both have said it.
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
			post(t, "http://"+address+"/send?topic=news", "text/plain", "to the page")
		case <-timeout.C:
			t.Fatalf("the page did not say what is expected of: %v", wanted)
		}
	}
}

// browse opens a page in Chromium, until the test ends. A proxy adds the page to the origin of the program at address,
// and receives whatever the page posts to /said.
func browse(t *testing.T, chromium, address string, said chan<- string, page string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/", &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: address})
		r.Out.Host = r.In.Host
	}})
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.ReplaceAll(page, documentAddress, r.Host))
	})
	mux.HandleFunc("GET /favicon.ico", http.NotFound)
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
	browser := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--no-proxy-server", "--disable-background-networking", "--disable-component-update",
		"--user-data-dir="+profile, proxy.URL+"/page")
	browser.Env = append(os.Environ(), "TMPDIR="+profile)
	run(t, browser)
}
