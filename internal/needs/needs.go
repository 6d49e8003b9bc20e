// Package needs is for tests that need more than Go: it skips them where the machine lacks something.
package needs

import (
	"os"
	"os/exec"
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
