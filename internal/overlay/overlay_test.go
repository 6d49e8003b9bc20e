package overlay

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const source = `package p

func a() int {
	return 1
}

func b() int {
	return 2
}
`

func repository(t *testing.T) string {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "p.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

func parse(t *testing.T, text string) *Patch {
	p, err := ParsePatch("name", text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const good = `What it does.
caught: by something

--- a/p.go
+++ b/p.go
@@ -100,3 +7,3 @@ numbers do not count
 func a() int {
-	return 1
+	return 10
 }
`

func TestPatch(t *testing.T) {
	p := parse(t, good)
	if p.Field["caught"] != "by something" || strings.TrimSpace(p.About) != "What it does." {
		t.Errorf("%+v", p)
	}
	root := repository(t)
	s := New(root)
	if err := s.Patch(p); err != nil {
		t.Fatal(err)
	}
	another := strings.NewReplacer("func a", "func b", "return 10", "return 20", "return 1\n", "return 2\n").Replace(good)
	if err := s.Patch(parse(t, another)); err != nil {
		t.Fatal(err)
	}
	text, err := s.Source("p.go")
	if want := strings.NewReplacer("1", "10", "2", "20").Replace(source); err != nil || string(text) != want {
		t.Errorf("%v\n%s", err, text)
	}
	s.Put("sub/new.go", []byte("package sub\n"))
	list, err := s.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Replace map[string]string }
	written, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(written, &got); err != nil || len(got.Replace) != 2 {
		t.Fatalf("%v in %s", err, written)
	}
	if copied, err := os.ReadFile(got.Replace[filepath.Join(root, "p.go")]); err != nil || string(copied) != string(text) {
		t.Errorf("%v\n%s", err, copied)
	}
}

// A patch that does not fit says so, and changes nothing.
func TestPatchDoesNotFit(t *testing.T) {
	for what, text := range map[string]string{
		"what it takes out is not there": strings.Replace(good, "return 1\n", "return 7\n", 1),
		"it is there twice":              "--- a/p.go\n+++ b/p.go\n@@ @@\n }\n \n-func x() {}\n",
		"the file is not there":          strings.ReplaceAll(good, "p.go", "q.go"),
		"its second hunk":                good + "@@ @@\n-nowhere\n",
	} {
		s := New(repository(t))
		p, err := ParsePatch("name", text)
		if err == nil {
			err = s.Patch(p)
		}
		if err == nil || !strings.Contains(err.Error(), "name") || len(s.Files()) != 0 {
			t.Errorf("%s: %v, %v", what, err, s.Files())
		}
	}
	twice := New(repository(t))
	if err := twice.Patch(parse(t, "--- a/p.go\n+++ b/p.go\n@@ @@\n-func \n+func\n")); err == nil {
		t.Error("a text that stands there several times, or in part of a line, fits")
	}
}

func TestParsePatchRefuses(t *testing.T) {
	for _, text := range []string{"", "no diff", "--- a/p.go\n+++ b/p.go\n", "--- a/p.go\n+++ b/p.go\n@@ @@\n same\n",
		"--- a/p.go\n+++ b/p.go\nstray\n", "--- a/p.go\n+++ b/p.go\n@@ @@\n?\n"} {
		if _, err := ParsePatch("name", text); err == nil {
			t.Errorf("%q is a patch", text)
		}
	}
}
