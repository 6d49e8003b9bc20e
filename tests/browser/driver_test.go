package browser

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/needs"
)

// A browser is Chromium, driven by testdata/driver.mjs.
type browser struct {
	version string
	cmd     *exec.Cmd
	stdin   io.Closer
	in      *json.Encoder // of stdin
	stderr  bytes.Buffer

	mu      sync.Mutex // guards the fields below
	last    int
	waiting map[int]chan answer
	dead    bool
}

type answer struct {
	ID    int
	Value json.RawMessage
	Error string
}

var chromium struct {
	once sync.Once
	*browser
	err error
}

// patience bounds every wait. Nothing is asserted with it.
const patience = 60 * time.Second

// start returns the one browser of this process.
func start(t *testing.T) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("the browser takes a minute: run without -short")
	}
	node, program, modules := needs.Playwright(t, filepath.Join("..", ".."), "the browser client")
	chromium.once.Do(func() { chromium.browser, chromium.err = launch(node, program, modules) })
	if chromium.err != nil {
		t.Fatal(chromium.err)
	}
	return chromium.browser
}

func launch(node, program, modules string) (*browser, error) {
	b := &browser{cmd: exec.Command(node, filepath.Join("testdata", "driver.mjs"), modules, program),
		waiting: map[int]chan answer{}}
	b.cmd.Stderr = &b.stderr
	in, err := b.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	b.stdin, b.in = in, json.NewEncoder(in)
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	hello := make(chan answer, 1)
	b.waiting[0] = hello
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	go b.read(bufio.NewReader(out)) // ends with the process
	select {
	case a, ok := <-hello:
		if !ok {
			return nil, fmt.Errorf("Chromium did not start: %s", &b.stderr)
		}
		return b, json.Unmarshal(a.Value, &b.version)
	case <-time.After(patience):
		_ = b.cmd.Process.Kill()
		return nil, fmt.Errorf("Chromium did not start in %v: %s", patience, &b.stderr)
	}
}

func (b *browser) read(out *bufio.Reader) {
	for {
		line, err := out.ReadBytes('\n')
		b.mu.Lock()
		if err != nil {
			b.dead = true
			for _, waiting := range b.waiting {
				close(waiting)
			}
			clear(b.waiting)
			b.mu.Unlock()
			return
		}
		var a answer
		if json.Unmarshal(line, &a) == nil && b.waiting[a.ID] != nil {
			b.waiting[a.ID] <- a
			delete(b.waiting, a.ID)
		}
		b.mu.Unlock()
	}
}

// do implements driver.
func (b *browser) do(value any, op string, args map[string]any) error {
	done := make(chan answer, 1)
	command := map[string]any{"op": op}
	maps.Copy(command, args)
	b.mu.Lock()
	if b.dead {
		b.mu.Unlock()
		return fmt.Errorf("the browser has ended: %s", &b.stderr)
	}
	b.last++
	command["id"] = b.last
	b.waiting[b.last] = done
	err := b.in.Encode(command)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case a, ok := <-done:
		switch {
		case !ok:
			return fmt.Errorf("the browser has ended: %s", &b.stderr)
		case a.Error != "":
			return fmt.Errorf("%s: %s", op, a.Error)
		case value == nil:
			return nil
		}
		return json.Unmarshal(a.Value, value)
	case <-time.After(2 * patience):
		return fmt.Errorf("%s has no end", op)
	}
}

func (b *browser) end() {
	_ = b.stdin.Close()
	_ = b.cmd.Wait() // what it says is of no interest any more
}

// A driver has a browser do something, and decodes what comes of it into value unless that is nil.
type driver interface {
	do(value any, op string, args map[string]any) error
}

// A profile is a browser to its pages: they share storage and cookies.
type profile struct {
	t    *testing.T
	b    driver
	name string
}

var profiles atomic.Int64

// newProfile begins a profile in Chromium that ends with the test.
func newProfile(t *testing.T) *profile {
	t.Helper()
	return newProfileIn(t, start(t))
}

func newProfileIn(t *testing.T, b driver) *profile {
	p := &profile{t, b, fmt.Sprint(profiles.Add(1))}
	t.Cleanup(func() {
		if err := p.b.do(nil, "end", map[string]any{"context": p.name}); err != nil {
			t.Error(err)
		}
	})
	return p
}

// A page is one tab.
type page struct {
	*profile
	id int
}

// open opens a page. What the page or the browser complains of at the end of the test is a fault.
func (p *profile) open(url string) *page {
	p.t.Helper()
	return p.openBy("open", url)
}

// openHideable opens a page that knows eval, cdp and hide. It shares nothing with those of open.
func (p *profile) openHideable(url string) *page {
	p.t.Helper()
	return p.openBy("raw", url)
}

func (p *profile) openBy(op, url string) *page {
	p.t.Helper()
	tab := &page{profile: p}
	if err := p.b.do(&tab.id, op, map[string]any{"context": p.name, "url": url}); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		var complaints []string
		if err := p.b.do(&complaints, "complaints", map[string]any{"page": tab.id}); err != nil {
			p.t.Error(err)
		}
		if len(complaints) > 0 {
			p.t.Errorf("the page complains: %s", strings.Join(complaints, "\n"))
		}
	})
	return tab
}

// eval evaluates an expression, with args in the places of ARG, and waits for it if it is a promise. It decodes what
// comes of it into value unless that is nil.
func (p *page) eval(value any, js string, args ...any) {
	p.t.Helper()
	if err := p.try(value, js, args...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *page) try(value any, js string, args ...any) error {
	for _, arg := range args {
		text, err := json.Marshal(arg)
		if err != nil {
			return err
		}
		js = strings.Replace(js, "ARG", string(text), 1)
	}
	return p.b.do(value, "eval", map[string]any{"page": p.id, "js": js})
}

// cdp speaks the DevTools protocol with the page.
func (p *page) cdp(method string, params map[string]any) {
	p.t.Helper()
	if err := p.b.do(nil, "cdp", map[string]any{"page": p.id, "method": method, "params": params}); err != nil {
		p.t.Fatal(err)
	}
}

// does has something happen to the page: "goto", "back", "close", or "hide".
func (p *page) does(op string, url ...string) {
	p.t.Helper()
	if err := p.b.do(nil, op, map[string]any{"page": p.id, "url": strings.Join(url, "")}); err != nil {
		p.t.Fatal(err)
	}
}

// offline takes the network away from the profile's pages, or gives it back.
func (p *profile) offline(is bool) {
	p.t.Helper()
	if err := p.b.do(nil, "offline", map[string]any{"context": p.name, "offline": is}); err != nil {
		p.t.Fatal(err)
	}
}
