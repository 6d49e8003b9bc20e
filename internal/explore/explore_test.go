//go:build linux

package explore

import (
	"bytes"
	encoding "encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/needs"
	"github.com/corvuscrypto/gpoll/internal/overlay"
)

// TestExplore builds the scripts with instrumented copies of the package and runs GPOLL_SCHEDULES schedules from
// GPOLL_SEED on. Without GPOLL_SCHEDULES it runs as many as make test has time for. With GPOLL_KEEP_ON it goes on after
// a finding. It tries one schedule alone up to 50 times, because the seed does not decide when Go takes the processor
// from a goroutine, nor what net/http does by chance.
func TestExplore(t *testing.T) {
	binary := build(t)
	schedules := number(t, "GPOLL_SCHEDULES", 2000)
	seed := number(t, "GPOLL_SEED", uint64(time.Now().UnixNano()%1e12))
	keepOn := os.Getenv("GPOLL_KEEP_ON") != ""
	tries := 1
	if schedules == 1 {
		tries = 50
	}
	var sum tally
	found := 0
	for end := seed + schedules; seed < end; {
		out, at, err := run(t, binary, "TestSchedules", seed, end-seed)
		sum.read(out)
		if err == nil {
			if tries--; tries == 0 {
				break
			}
			continue
		}
		found++
		t.Errorf("finding %d: %v\n%s", found, err, out)
		if seed = at + 1; !keepOn {
			break
		}
	}
	t.Logf("%d schedules, %d findings, %v", sum.Schedules, found, sum)
}

// TestPlanted plants the bugs that depend on the order of goroutines, one at a time. The explorer must find each within
// as many schedules as the patch says, from GPOLL_SEED on or from 1, and in a schedule that finds nothing without the
// bug. It is part of make mutants.
func TestPlanted(t *testing.T) {
	if os.Getenv("GPOLL_MUTANTS") == "" {
		t.Skip("it takes minutes: make mutants runs it")
	}
	files, err := filepath.Glob("../../testdata/planted/*.patch")
	if err != nil || len(files) == 0 {
		t.Fatalf("no patches: %v", err)
	}
	clean := build(t)
	for _, file := range files {
		p, err := overlay.ReadPatch(file)
		if err != nil {
			t.Fatal(err)
		}
		within, err := strconv.ParseUint(p.Field["explore"], 10, 64)
		if err != nil {
			continue // others find it
		}
		t.Run(p.Name, func(t *testing.T) {
			first := number(t, "GPOLL_SEED", 1)
			out, at, err := run(t, build(t, p), "TestSchedules", first, within)
			if err == nil {
				t.Fatalf("not found in %d schedules", within)
			}
			if out, _, err := run(t, clean, "TestSchedules", at, 1); err != nil {
				t.Fatalf("schedule %d finds something without the bug too: %s", at-first+1, out)
			}
			t.Logf("found in schedule %d: %.300s", at-first+1, out)
		})
	}
}

// TestReplays runs schedules twice: a seed is a schedule, but where Go itself or net/http leaves something to chance.
func TestReplays(t *testing.T) {
	out, _, err := run(t, build(t), "TestReplay", 1, 60)
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// number returns the number in an environment variable.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// build returns the instrumented binary, with the bugs of some patches.
func build(t *testing.T, patches ...*overlay.Patch) string {
	goTool := needs.Program(t, "go", "the go command is needed to build the instrumented package")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	set := overlay.New(root)
	for _, p := range patches {
		if err := set.Patch(p); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	list, err := instrumented(root, dir, set)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "explore.test")
	cmd := exec.CommandContext(t.Context(), goTool, "test", "-c", "-tags", "explore", "-overlay", list, "-o", binary, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	return binary
}

// run runs a test of the binary on some seeds. It returns what that printed and the last seed that it began.
func run(t *testing.T, binary, test string, seed, schedules uint64) (out []byte, at uint64, err error) {
	file := filepath.Join(t.TempDir(), "at")
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^"+test+"$", "-test.timeout=0",
		"-test.v="+strconv.FormatBool(schedules == 1))
	cmd.Env = append(os.Environ(), "GPOLL_AT="+file, "GPOLL_SEED="+strconv.FormatUint(seed, 10),
		"GPOLL_SCHEDULES="+strconv.FormatUint(schedules, 10),
		"GODEBUG=asyncpreemptoff=1")
	out, err = cmd.CombinedOutput()
	var b [8]byte
	if text, e := os.ReadFile(file); e == nil {
		copy(b[:], text)
	}
	return bytes.TrimSpace(out), encoding.LittleEndian.Uint64(b[:]), err
}
