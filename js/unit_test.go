package js_test

import (
	"path/filepath"
	"testing"

	"github.com/corvuscrypto/gpoll/internal/needs"
)

// The tests of testdata/unit: the client on a network that the tests make, with time of their own.
func TestUnits(t *testing.T) {
	node := needs.Program(t, "node", noNode)
	files, err := filepath.Glob("testdata/unit/*.test.mjs")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			run(t, ".", node, "--test-reporter=spec", "--test", file)
		})
	}
}
