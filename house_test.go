package gpoll_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// The root module requires two libraries, and what they need themselves: nothing.
func TestRequirements(t *testing.T) {
	out, err := exec.Command("go", "mod", "edit", "-json", "go.mod").Output()
	if err != nil {
		t.Fatalf("go mod edit -json: %v", err)
	}
	var mod struct {
		Module  struct{ Path string }
		Require []struct{ Path string }
		Replace []struct{ Old, New struct{ Path string } }
		Tool    []struct{ Path string }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, r := range mod.Require {
		paths = append(paths, r.Path)
	}
	slices.Sort(paths)
	if want := []string{"github.com/coder/websocket", "github.com/google/uuid"}; !slices.Equal(paths, want) {
		t.Errorf("go.mod requires %v, want %v", paths, want)
	}
	if mod.Module.Path != "github.com/corvuscrypto/gpoll" || len(mod.Replace) > 0 || len(mod.Tool) > 0 {
		t.Errorf("go.mod: module %s, replaces %v, tools %v", mod.Module.Path, mod.Replace, mod.Tool)
	}
}

// Every file of the package has its floor in docs/architecture.md, and refers to no file of a higher one.
func TestFloors(t *testing.T) {
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## The floors\n")
	table, _, _ = strings.Cut(table, "\n## ")
	floors := map[string]int{}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 4 {
			continue
		}
		number, _, _ := strings.Cut(strings.TrimSpace(cells[1]), " ")
		floor, err := strconv.Atoi(number)
		if err != nil {
			continue // the head of the table
		}
		for file := range strings.SplitSeq(cells[3], ",") {
			file = strings.Trim(file, " `")
			if floors[file] != 0 {
				t.Errorf("%s stands on two floors", file)
			}
			floors[file] = floor
		}
	}
	set, info := typed(t)
	seen := map[string]bool{ // the one exception: what the loop over all clients collects for sockets
		"routine_round.go refers to streamConn of stream_conn.go, which stands above it":   true,
		"routine_round.go refers to writeRound of stream_inline.go, which stands above it": true,
	}
	for id, used := range info.Uses {
		if used.Pkg() == nil || used.Pkg().Path() != "github.com/corvuscrypto/gpoll" {
			continue
		}
		from, to := filepath.Base(set.Position(id.Pos()).Filename), filepath.Base(set.Position(used.Pos()).Filename)
		up := fmt.Sprintf("%s refers to %s of %s, which stands above it", from, used.Name(), to)
		if floors[to] > floors[from] && !seen[up] {
			seen[up] = true
			t.Error(up)
		}
	}
	set.Iterate(func(file *token.File) bool {
		if name := filepath.Base(file.Name()); floors[name] == 0 {
			t.Errorf("%s has no floor in docs/architecture.md", name)
		}
		return true
	})
	for name := range floors {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("docs/architecture.md: %v", err)
		}
	}
}

// typed returns the package's files and what each name in them means.
func typed(t *testing.T) (*token.FileSet, *types.Info) {
	out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".").Output()
	if err != nil {
		t.Fatalf("go list -export: %v", err)
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		exports[path] = file
	}
	found, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range found.GoFiles {
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	open := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	conf := types.Config{Importer: importer.ForCompiler(token.NewFileSet(), "gc", open)}
	if _, err := conf.Check("github.com/corvuscrypto/gpoll", set, files, info); err != nil {
		t.Fatal(err)
	}
	return set, info
}

// No line of Go has more than 120 characters, a tab counting as one.
func TestLines(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "testdata" || entry.Name() == "node_modules"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		for n := 1; lines.Scan(); n++ {
			if width := utf8.RuneCountInString(lines.Text()); width > 120 {
				t.Errorf("%s:%d has %d characters", path, n, width)
			}
		}
		return lines.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The packages under internal/ that the package is made of, its rooms, know nothing of it and nothing of one another:
// they import the standard library only. docs/architecture.md names them. The packages that are there for tests import
// the package in their own tests only.
func TestRoomsImportNothing(t *testing.T) {
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/corvuscrypto/gpoll"
	rooms := 0
	ours := imports(t, ".")
	folders, err := filepath.Glob("internal/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			continue // a module of its own
		}
		folder = filepath.ToSlash(folder)
		theirs := imports(t, folder)
		if !ours[module+"/"+folder] {
			if theirs[module] {
				t.Errorf("%s imports the package", folder)
			}
			continue
		}
		rooms++
		for path := range theirs {
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
				t.Errorf("%s imports %s", folder, path)
			}
		}
		if !strings.Contains(string(text), "| `"+folder+"` |") {
			t.Errorf("%s is not among the rooms in docs/architecture.md", folder)
		}
	}
	if rooms < 3 {
		t.Errorf("the package imports %d rooms: %v", rooms, slices.Sorted(maps.Keys(ours)))
	}
}

// imports returns what the files of a folder import on any system, but for tests.
func imports(t *testing.T, folder string) map[string]bool {
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			paths[path] = true
		}
	}
	return paths
}
