//go:build unix

package proxies

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

const page = "../../docs/proxies.md"

func readPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// block returns the one block of a language in the page.
func block(t *testing.T, language string) string {
	t.Helper()
	found := regexp.MustCompile("(?s)\n```"+language+"\n(.*?\n)```\n").FindAllStringSubmatch(readPage(t), -1)
	if len(found) != 1 {
		t.Fatalf("%s has %d blocks of %s", page, len(found), language)
	}
	return found[0][1]
}

// A way is one line of the table: a proxy, and how it is reached.
type way struct{ proxy, scheme string }

var transports = []string{"long-poll", "SSE", "WebSocket"}

// A mount is where pages find the program.
type mount struct{ path, title string }

var mounts = []mount{
	{"/", "at `/`"},
	{"/app/", "at `/app/`, which the proxy takes off"},
	{"/own/", "at `/own/`, which the program has"},
}

// compareTable compares the page with what was found: the transports that fail, by way and path. With GPOLL_UPDATE=1 it
// writes the page instead.
func compareTable(t *testing.T, failed map[way]map[string][]string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("| |")
	for _, m := range mounts {
		fmt.Fprintf(&b, " %s |", m.title)
	}
	b.WriteString("\n|---" + strings.Repeat("|---", len(mounts)) + "|\n")
	for _, p := range proxies {
		for _, scheme := range []string{"http", "https"} {
			fmt.Fprintf(&b, "| %s, %s |", p.name, strings.ToUpper(scheme))
			for _, m := range mounts {
				said := "works"
				if list := failed[way{p.name, scheme}][m.path]; len(list) > 0 {
					said = "no " + strings.Join(list, ", ")
				}
				fmt.Fprintf(&b, " %s |", said)
			}
			b.WriteByte('\n')
		}
	}
	const begin, end = "<!-- table -->\n", "<!-- end of table -->"
	text := readPage(t)
	before, rest, ok := strings.Cut(text, begin)
	was, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	now := b.String()
	switch {
	case was == now:
	case os.Getenv("GPOLL_UPDATE") == "":
		t.Errorf("%s is not what was found; GPOLL_UPDATE=1 go test ./tests/proxies writes it:\n%s", page, now)
	default:
		if err := os.WriteFile(page, []byte(before+begin+now+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
