package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// inProcess are the figures of the package's own benchmarks, by "benchmark unit": one for each round.
type inProcess map[string][]float64

// testBinary is the file name of the root package's compiled benchmarks.
const testBinary = "gpoll.test"

// buildInProcess compiles the root package's benchmarks.
func (b *bench) buildInProcess(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", filepath.Join(b.bin, testBinary), ".")
	cmd.Dir = filepath.Join(b.module, "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the benchmarks of the package: %w\n%s", err, out)
	}
	return nil
}

// runInProcess runs the benchmarks once, on both processors, and adds what they report.
func (b *bench) runInProcess(f inProcess, stop <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, testBinary),
		"-test.run", "^$", "-test.bench", b.inProcess, "-test.benchtime", b.benchTime.String())
	cmd.Dir = filepath.Join(b.module, "..")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := startOnBoth(cmd, b.serverCPU, b.clientCPU); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // ends with the command
	select {
	case <-stop:
		cancel()
		<-done
		return errInterrupted
	case err := <-done:
		if err != nil {
			err = fmt.Errorf("the benchmarks of the package: %w\n%s", err, out.Bytes())
		}
		return errors.Join(err, f.parse(&out)) // what there is counts
	}
}

// startOnBoth starts a command that may use two processors: this process itself is bound to one.
func startOnBoth(cmd *exec.Cmd, cpus ...int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return err
	}
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("processors %v: %w", cpus, err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &old) }() // it was allowed before
	return cmd.Start()
}

// parse reads lines as "go test -bench" prints them: BenchmarkName/sub=1-2  1000  12.5 ns/op  3 x-bare.
func (f inProcess) parse(r io.Reader) error {
	found := false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i] // without GOMAXPROCS
		}
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return fmt.Errorf("the line %q of the benchmarks: %w", lines.Text(), err)
			}
			key := name + " " + fields[i+1]
			f[key] = append(f[key], v)
			found = true
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if !found {
		return errors.New("no benchmark of the package has that name")
	}
	return nil
}

// inProcessRow is a line of the table.
type inProcessRow struct {
	what   string
	key    string  // of inProcess
	over   string  // another one that key is divided by; empty: none
	times  float64 // unit; 0: 1
	format string
	aim    float64 // 0: none was asked for
	more   bool    // at least aim, not at most
}

func inProcessRows() (rows []inProcessRow) {
	add := func(r inProcessRow) { rows = append(rows, r) }
	each := []string{"1000", "10000", "100000", "1000000"}
	for _, n := range each {
		add(inProcessRow{what: n + " clients with channels, × bare channel sends",
			key: "FanOut/clients=" + n + " x-bare", format: "%.2f", aim: 1.3})
	}
	for _, n := range each {
		add(inProcessRow{what: n + " clients with channels, × bare sends on the same channels",
			key: "FanOut/clients=" + n + " x-bare-same-channels", format: "%.2f"})
	}
	for _, n := range each {
		add(inProcessRow{what: n + " clients with channels, ns per delivery",
			key: "FanOut/clients=" + n + " ns/delivery", format: "%.1f"})
		add(inProcessRow{what: "the same, bare channel sends", key: "FanOut/clients=" + n + " bare-ns/delivery",
			format: "%.1f"})
	}
	for _, n := range each {
		add(inProcessRow{what: n + " cursors visited before the write, ns each",
			key: "Visit/clients=" + n + " ns/client", format: "%.1f", aim: 15})
	}
	add(inProcessRow{what: "heap of a client with a WebSocket, without its connection, bytes",
		key: "Visit/clients=100000 B/client", format: "%.0f"})
	add(inProcessRow{what: "heap of a client with a channel of 100, bytes", key: "FanOut/clients=100000 B/client",
		format: "%.0f"})
	const few, many = "Topic/clients=10000/topics=1000 ns/op", "Topic/clients=100000/topics=10000 ns/op"
	add(inProcessRow{what: "a message to 1 of 10000 topics with 100000 clients, × to 1 of 1000 topics with 10000 (10 " +
		"subscribers each)", key: many, over: few, format: "%.2f", aim: 2})
	for _, s := range []struct{ topics, subscribers string }{{"10000", "10"}, {"1000", "100"}, {"100", "1000"}} {
		add(inProcessRow{what: "100000 clients, a message to " + s.subscribers + " subscribers, µs",
			key: "Topic/clients=100000/topics=" + s.topics + " ns/op", times: 1e-3, format: "%.1f"})
	}
	add(inProcessRow{what: "Send with 10000 clients, 100 of them never reading, p99 × without them", key: "Send x-p99",
		format: "%.2f", aim: 1.2})
	add(inProcessRow{what: "the same, p50", key: "Send x-p50", format: "%.2f", aim: 1.2})
	add(inProcessRow{what: "Send with 10000 clients, p50, ns", key: "Send p50-ns", format: "%.0f"})
	add(inProcessRow{what: "allocations of a Send to 10000 clients more than of one to 100", key: "Send more-allocs",
		format: "%.0f", aim: 0.5})
	add(inProcessRow{what: "100000 clients, two processors × one", key: "TwoCores/clients=100000 x-one-core",
		format: "%.2f", aim: 1.7, more: true})
	add(inProcessRow{what: "the same, bare channel sends", key: "TwoCores/clients=100000 bare-x-one-core", format: "%.2f"})
	add(inProcessRow{what: "10000 clients, two processors × one", key: "TwoCores/clients=10000 x-one-core",
		format: "%.2f"})
	add(inProcessRow{what: "the same, bare channel sends", key: "TwoCores/clients=10000 bare-x-one-core", format: "%.2f"})
	add(inProcessRow{what: "Publish without clients, ns", key: "Publish ns/op", format: "%.0f"})
	add(inProcessRow{what: "append to the log, ns", key: "LogAppend ns/op", format: "%.0f"})
	add(inProcessRow{what: "read of a quiet topic behind 10000 messages of others, ns",
		key: "LogReadQuiet/others=10000 ns/op", format: "%.0f"})
	add(inProcessRow{what: "the same without others", key: "LogReadQuiet/others=0 ns/op", format: "%.0f"})
	return rows
}

// table returns one row for each figure that was measured: what, asked, reached, and whether that is enough.
func (f inProcess) table() (rows [][]string) {
	for _, r := range inProcessRows() {
		values := f[r.key]
		if len(values) == 0 {
			continue
		}
		m, spread := median(values)
		if r.over != "" {
			o, _ := median(f[r.over])
			if o == 0 {
				continue
			}
			m /= o
		}
		if r.times != 0 {
			m *= r.times
		}
		reached := fmt.Sprintf(r.format, m)
		if len(values) > 1 {
			reached += fmt.Sprintf(" ±%.0f%%", spread*100)
		}
		asked, verdict := "–", ""
		if r.aim != 0 {
			asked, verdict = judge(m, r.aim, r.more)
		}
		rows = append(rows, []string{r.what, asked, reached, verdict})
	}
	return rows
}

// judge writes an aim and says whether m keeps it.
func judge(m, aim float64, more bool) (asked, verdict string) {
	verdict = "reached"
	if more {
		asked = fmt.Sprintf("≥ %g", aim)
		if m < aim {
			verdict = fmt.Sprintf("missed by %.0f %%", (1-m/aim)*100)
		}
	} else {
		asked = fmt.Sprintf("≤ %g", aim)
		if m > aim {
			verdict = fmt.Sprintf("missed by %.0f %%", (m/aim-1)*100)
		}
	}
	return asked, verdict
}

// benchTimeDefault is how long each benchmark of the package runs.
const benchTimeDefault = 500 * time.Millisecond
