// Package needs is for tests that need more than Go: it skips them where the machine lacks something.
package needs

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Lacks ends a test for which the machine lacks something. With GPOLL_REQUIRE=1, as in CI, that is a failure. The
// sentence says what is not tried, and what to install.
func Lacks(t testing.TB, sentence string) {
	t.Helper()
	if os.Getenv("GPOLL_REQUIRE") == "1" {
		t.Fatal(sentence)
	}
	t.Skip(sentence)
}

// Program returns the path of a program, if the machine has it.
func Program(t testing.TB, name, sentence string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Lacks(t, sentence)
	}
	return path
}

// Folder ends a test unless the folder is there.
func Folder(t testing.TB, path, sentence string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		Lacks(t, sentence)
	}
}

// Chromium returns the path of Chromium. what is tried in it stands in the sentence.
func Chromium(t testing.TB, what string) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Lacks(t, "Chromium is not in PATH, so "+what+" is not tried in a browser: install chromium; make setup does")
	return ""
}

// Playwright returns Node.js, Chromium, and the package.json beside which playwright-core is installed. root is the
// folder of the repository.
func Playwright(t testing.TB, root, what string) (node, chromium, modules string) {
	t.Helper()
	chromium = Chromium(t, what)
	node = Program(t, "node", "Node.js is not in PATH, so "+what+" is not tried in a browser: install Node.js 20; "+
		"make setup does")
	modules, err := filepath.Abs(filepath.Join(root, "cmd", "gpoll", "testdata", "browser", "package.json"))
	if err != nil {
		t.Fatal(err)
	}
	playwright := filepath.Join(filepath.Dir(modules), "node_modules", "playwright-core")
	Folder(t, playwright, "playwright-core is not installed, so "+what+" is not tried in a browser: "+
		"run npm ci in cmd/gpoll/testdata/browser; make setup does")
	return node, chromium, modules
}
