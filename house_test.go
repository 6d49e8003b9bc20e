package gpoll_test

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// docs/architecture.md names every file of the package.
func TestArchitectureNamesEveryFile(t *testing.T) {
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") && !strings.Contains(string(text), "`"+file+"`") {
			t.Errorf("%s is not in docs/architecture.md", file)
		}
	}
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
		case !strings.Contains(path, "/") && !strings.HasSuffix(path, "_test.go"):
			return nil // for now: the root package's own files
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
