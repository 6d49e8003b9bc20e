package main

import (
	"os"
	"strings"
	"testing"
)

// A mistake in the code or the tests for one system is found, and is said for that system alone.
func TestCross(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"go.mod":            "module example.test/m\n\ngo 1.26\n",
		"m.go":              "package m\n\nimport \"net/http\"\n\nvar Client http.Client\n",
		"m_plan9.go":        "package m\n\nimport \"syscall\"\n\nvar err = syscall.ECONNRESET\n",
		"m_windows_test.go": "package m\n\nfunc test() { Client.Nothing() }\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run([]string{"linux/amd64", "js/wasm"}); err != nil {
		t.Error(err)
	}
	for target, want := range map[string]string{
		"plan9/386": "ECONNRESET", "windows/arm64": "Nothing", "nowhere": "is no target",
	} {
		if err := run([]string{target}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", target, err, want)
		}
	}
}
