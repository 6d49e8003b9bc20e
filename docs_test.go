package gpoll_test

import (
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// The guide's fragments of Go compile. They and the README's program are formatted.
func TestFragments(t *testing.T) {
	program, fragments := fenced(t, readmeFile, "go", 1), fenced(t, guideFile, "go", 12)
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
	for _, fragment := range slices.Concat(program, fragments) {
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
	signedIn func(*http.Request) (string, error), answerTo func(string, []byte) ([]byte, error)) error {
	{ // a fragment may declare b anew
%s`, i, fragment)
		for _, m := range declared.FindAllStringSubmatch(fragment, -1) {
			for name := range strings.SplitSeq(m[1], ", ") {
				fmt.Fprintf(&source, "_ = %s\n", name)
			}
		}
		source.WriteString("}\nreturn nil\n}\n")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	if err := os.WriteFile(file, []byte(source.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "go", "build", "-o", filepath.Join(dir, "fragments"), file)
}

// The tables of docs/settings.md have every field of Broadcaster, with the default that the Broadcaster has.
func TestSettingsDocument(t *testing.T) {
	const file = "docs/settings.md"
	said := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `([A-Za-z.]+)` \\| ([^|]+) \\| [^|]+ \\|$")
	for _, m := range row.FindAllStringSubmatch(document(t, file), -1) {
		if _, twice := said[m[1]]; twice {
			t.Errorf("%s is there twice", m[1])
		}
		said[m[1]] = m[2]
	}

	check := func(name string, field func(*gpoll.Broadcaster) reflect.Value) {
		cell, ok := said[name]
		if !ok {
			t.Errorf("%s does not name %s", file, name)
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
			t.Errorf("%s says that the default of %s is %q; it is %s", file, name, cell, is)
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
			check(f.Name, func(b *gpoll.Broadcaster) reflect.Value {
				return reflect.ValueOf(b).Elem().FieldByIndex(f.Index)
			})
		}
	}
	for name := range said {
		t.Errorf("%s names %s, which is no field", file, name)
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

// Whatever the documents point at is there: files, sections, targets of the Makefile and programs.
func TestPointers(t *testing.T) {
	files, err := filepath.Glob("docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	makefile := document(t, "Makefile")
	for _, file := range append(files, readmeFile, "CONTRIBUTING.md", "CHANGELOG.md") {
		text := document(t, file)
		for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(m[1], "https://") {
				continue
			}
			target, section, inside := strings.Cut(m[1], "#")
			path := file
			if target != "" {
				path = filepath.Join(filepath.Dir(file), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: link: %v", file, err)
			} else if inside && !sectionsOf(document(t, path))[section] {
				t.Errorf("%s: %s has no section %s", file, path, section)
			}
		}
		for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)").FindAllStringSubmatch(text, -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `( [a-z]+)*:`).MatchString(makefile) {
				t.Errorf("%s: the Makefile has no target %s", file, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`go run \./([a-z/]+)`).FindAllStringSubmatch(text, -1) {
			_, inRoot := os.Stat(m[1])
			_, inPeers := os.Stat(filepath.Join("peers", m[1]))
			if inRoot != nil && inPeers != nil {
				t.Errorf("%s: go run ./%s: %v", file, m[1], inRoot)
			}
		}
	}
}

// sectionsOf returns the anchors of the sections of a document, as GitHub makes them.
func sectionsOf(text string) map[string]bool {
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		plain := regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors[strings.ReplaceAll(plain, " ", "-")] = true
	}
	return anchors
}
