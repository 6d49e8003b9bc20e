package gpoll_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
