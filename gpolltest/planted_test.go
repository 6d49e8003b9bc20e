package gpolltest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"
)

// TestPlantedBugs builds gpoll with its planted bugs and runs TestPlantedWorkload once with each: the checker must name an
// invariant that the bug breaks. Without a bug the same binary must pass.
func TestPlantedBugs(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		if os.Getenv("GPOLL_REQUIRE") == "1" {
			t.Fatal("the go command is needed to build the planted bugs: ", err)
		}
		t.Skip("the go command is needed to build the planted bugs: ", err)
	}
	binary := filepath.Join(t.TempDir(), "planted.test")
	if out, err := exec.CommandContext(t.Context(), goTool, "test", "-c", "-tags", "plantbugs", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	run := func(t *testing.T, bug string) (out []byte, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, "-test.run=^TestPlantedWorkload$", "-test.timeout=50s")
		cmd.Env = append(os.Environ(), "GPOLL_PLANT="+bug)
		return cmd.CombinedOutput()
	}
	named := regexp.MustCompile(`violation of (I\d+):`)

	t.Run("none", func(t *testing.T) {
		if out, err := run(t, ""); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	for _, planted := range []struct {
		bug string
		any []string // one of them must be named
	}{
		{"no-epoch-notice", []string{"I8"}},
		{"no-eviction-notice", []string{"I5"}},
		{"gap-too-long", []string{"I7"}},
		{"gap-too-short", []string{"I5", "I7"}},
		{"cursor-off-by-one", []string{"I2"}},
		{"wrong-topic", []string{"I6"}},
		{"removal-on-write", []string{"I5"}},
		{"swap", []string{"I2", "I5"}},
		{"drop-from-batch", []string{"I5"}},
		{"duplicate", []string{"I1", "I2", "I3"}},
		{"altered-payload", []string{"I4"}},
		{"accepted-not-stored", []string{"I5"}},
		{"subscribe-race", []string{"I5"}},
		{"epoch-reused", []string{"I1"}},
	} {
		t.Run(planted.bug, func(t *testing.T) {
			out, err := run(t, planted.bug)
			if err == nil {
				t.Fatal("the checker found nothing")
			}
			found := map[string]int{}
			for _, m := range named.FindAllSubmatch(out, -1) {
				found[string(m[1])]++
			}
			t.Logf("violations: %v", found)
			if !slices.ContainsFunc(planted.any, func(i string) bool { return found[i] > 0 }) {
				t.Errorf("none of %v was reported:\n%s", planted.any, bytes.TrimSpace(out))
			}
		})
	}
}
