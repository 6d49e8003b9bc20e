package stacks

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

const page = "../../docs/frameworks.md"

// A table is what docs/frameworks.md says of routers or of middleware: a line for each, a column for each transport.
type table struct {
	name string

	mu    sync.Mutex
	lines map[string]map[string]bool // whether a transport is refused
}

var columns = []string{"poll", "json", "sse", "websocket"}

// newTable compares what the test has found with the page when all of its subtests have run. With GPOLL_UPDATE=1 it
// writes the page instead.
func newTable(t *testing.T, name string, many int) *table {
	found := &table{name: name, lines: map[string]map[string]bool{}}
	t.Cleanup(func() {
		if len(found.lines) < many || t.Failed() {
			return // some of it alone
		}
		found.compare(t)
	})
	return found
}

func (f *table) note(what, transport string, refused bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lines[what] == nil {
		f.lines[what] = map[string]bool{}
	}
	f.lines[what][transport] = f.lines[what][transport] || refused
}

func (f *table) compare(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Appendf(nil, "<!-- %s -->\n", f.name), fmt.Appendf(nil, "<!-- end of %s -->", f.name)
	before, rest, ok := bytes.Cut(text, begin)
	was, after, ok2 := bytes.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for %s", page, f.name)
	}
	if now := f.String(); string(was) != now {
		if os.Getenv("GPOLL_UPDATE") == "" {
			t.Fatalf("%s is not what was found; GPOLL_UPDATE=1 go test ./tests/stacks writes it:\n%s", page, now)
		}
		text = bytes.Join([][]byte{before, begin, []byte(now), end, after}, nil)
		if err := os.WriteFile(page, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *table) String() string {
	var b strings.Builder
	b.WriteString("| | long-poll | JSON poll | SSE | WebSocket |\n|---|---|---|---|---|\n")
	line := func(name string) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, transport := range columns {
			said := "works"
			if f.lines[name][transport] {
				said = "501"
			}
			fmt.Fprintf(&b, " %s |", said)
		}
		b.WriteByte('\n')
	}
	if f.name == "routers" {
		for _, r := range routers {
			line(r.name)
		}
	} else {
		for _, m := range wrappers {
			line(m.name)
		}
	}
	return b.String()
}
