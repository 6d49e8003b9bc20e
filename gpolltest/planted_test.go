package gpolltest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/needs"
	"github.com/corvuscrypto/gpoll/internal/overlay"
)

// TestPlantedBugs plants the bugs of testdata/planted, one at a time. Each is a patch, and the go command builds the
// patched files with -overlay. If a patch names invariants, TestPlantedWorkload runs and must report one of them. With
// GPOLL_MUTANTS=1, which make mutants sets, if a patch names tests of the package, these run and one must fail. The
// explorer finds the bugs that depend on order (internal/explore). Without a bug every test passes.
func TestPlantedBugs(t *testing.T) {
	goTool := needs.Program(t, "go", "the go command is needed to build the planted bugs")
	b := &planter{goTool: goTool, slots: make(chan struct{}, 2)}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		if out, err := b.run(t, nil, ".", "^TestPlantedWorkload$"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	mutants := os.Getenv("GPOLL_MUTANTS") != ""
	for _, p := range plantedBugs(t) {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			if want := strings.Fields(p.Field["workload"]); len(want) > 0 {
				out, err := b.run(t, p, ".", "^TestPlantedWorkload$")
				if err == nil {
					t.Fatal("the checker found nothing")
				}
				found := violated(out)
				t.Logf("violations: %v", found)
				if !slices.ContainsFunc(want, func(i string) bool { return found[i] > 0 }) {
					t.Errorf("none of %v was reported:\n%s", want, out)
				}
			}
			if tests := p.Field["test"]; tests != "" && mutants {
				out, err := b.run(t, p, "..", tests)
				if err == nil {
					t.Fatalf("no test of %q failed", tests)
				}
				t.Logf("%.500s", out)
			}
		})
	}
}

// TestPlantedBugsFit applies every patch, even those that only make mutants runs, and names those that no longer fit.
func TestPlantedBugsFit(t *testing.T) {
	for _, p := range plantedBugs(t) {
		if err := overlay.New("..").Patch(p); err != nil {
			t.Error(err)
		}
		if p.Field["workload"] == "" && p.Field["test"] == "" && p.Field["explore"] == "" {
			t.Errorf("%s does not say what finds it: workload, test or explore", p.Name)
		}
		if strings.TrimSpace(p.About) == "" {
			t.Errorf("%s does not say what the bug is", p.Name)
		}
	}
}

func plantedBugs(t *testing.T) (all []*overlay.Patch) {
	files, err := filepath.Glob("../testdata/planted/*.patch")
	if err != nil || len(files) == 0 {
		t.Fatalf("no patches in testdata/planted: %v", err)
	}
	for _, file := range files {
		p, err := overlay.ReadPatch(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// violated counts the invariants that a checker names.
func violated(out []byte) map[string]int {
	found := map[string]int{}
	for _, m := range regexp.MustCompile(`violation of (I\d+):`).FindAllSubmatch(out, -1) {
		found[string(m[1])]++
	}
	return found
}

// A planter builds and runs tests of the package with a bug.
type planter struct {
	goTool string
	slots  chan struct{} // as many builds as run at a time
}

// run runs tests of the package in dir with the bug of p, if it is not nil.
func (b *planter) run(t *testing.T, p *overlay.Patch, dir, tests string) (out []byte, err error) {
	b.slots <- struct{}{}
	defer func() { <-b.slots }()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	set := overlay.New(root)
	if p != nil {
		if err := set.Patch(p); err != nil {
			t.Fatal(err)
		}
	}
	list, err := set.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "planted.test")
	build := exec.CommandContext(t.Context(), b.goTool, "test", "-c", "-overlay", list, "-o", binary, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run="+tests, "-test.timeout=100s")
	cmd.Dir = dir
	return cmd.CombinedOutput()
}
