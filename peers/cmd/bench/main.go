// Command bench puts the same load on gpoll, on libraries that a user would pick instead, and on bare loops of system
// calls. It writes one table.
//
// Server and generator have a processor each. All systems take their turn in every round, so that other work of the
// machine falls on all of them. The table shows medians and the distance between the rounds. Every delivery is
// verified.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corvuscrypto/gpoll/internal/load"
)

type bench struct {
	size      int
	rounds    int
	paced     time.Duration
	saturated time.Duration
	bursts    time.Duration
	posted    time.Duration
	silent    time.Duration
	rest      time.Duration // after the last thing that clients have said
	several   int           // messages in one write of a client
	settle    time.Duration // after connecting
	wait      time.Duration // for quiet
	window    uint64
	procs     int
	serverCPU int
	clientCPU int
	gpollArgs []string
	inProcess string // which benchmarks of the package; empty: leave them out
	benchTime time.Duration
	profiles  string
	bin       string // folder of the built servers
	module    string // folder of this module
	current   string // name of the system being measured
}

func main() {
	if err := mainErr(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func mainErr() error {
	b := &bench{settle: time.Second}
	cellList := flag.String("cells", "all",
		"`cells` to measure, by comma: ws-1000, ws-10000, sse-1000, …, a transport (ws), or ws-200; none: only -inprocess")
	systemList := flag.String("systems", "all", "`systems` to measure, by comma; -list shows them")
	list := flag.Bool("list", false, "list cells and systems")
	out := flag.String("o", "", "write the table to this `file` in Markdown")
	raw := flag.String("json", "", "write all samples to this `file`")
	gpollFlags := flag.String("gpoll", "", "further `flags` of the gpoll server, for example \"-routine-buffer 400\"")
	flag.IntVar(&b.size, "size", 128, "`bytes` of a message")
	flag.IntVar(&b.rounds, "rounds", 3, "how often each system is measured in each cell")
	flag.DurationVar(&b.paced, "paced", 4*time.Second,
		"`time` for which messages are published at a pace, at least eight; 0 leaves that out")
	flag.DurationVar(&b.saturated, "saturated", 3*time.Second,
		"`time` for which messages are published back to back; 0 leaves that out")
	flag.DurationVar(&b.bursts, "burst", 2*time.Second,
		"`time` for which messages are published back to back by a publisher that does not give way; 0 leaves that out")
	flag.DurationVar(&b.posted, "posted", 3*time.Second,
		fmt.Sprintf("`time` for which %d publishers post over HTTP, each its next message when all clients have the "+
			"one before, to at most 1,000 WebSockets; 0 leaves that out", publishers))
	flag.DurationVar(&b.silent, "silent", 12*time.Second,
		"`time` to measure the call of Send in, half of it with 100 more WebSockets that never read; 0 leaves that out")
	flag.DurationVar(&b.rest, "rest", 60*time.Second,
		"`time` after which the memory of WebSockets is measured that have said a thousand messages; 0 leaves that out")
	flag.IntVar(&b.several, "several", several, "`messages` that a client says back to back in one write")
	flag.Uint64Var(&b.window, "ahead", 16, "`messages` that a publisher without pauses may be ahead of the slowest client")
	flag.DurationVar(&b.wait, "wait", 5*time.Second,
		"`time` to wait at most, before each measurement, for other programs to leave the processors alone")
	flag.IntVar(&b.procs, "procs", 1, "GOMAXPROCS and processors of the server")
	flag.IntVar(&b.serverCPU, "server-cpu", 0, "the `processor` of the server")
	flag.IntVar(&b.clientCPU, "client-cpu", 1, "the `processor` of the generator")
	flag.StringVar(&b.inProcess, "inprocess", ".",
		"`pattern` of the package's own benchmarks to run in every round; none: leave them out")
	flag.DurationVar(&b.benchTime, "benchtime", benchTimeDefault, "`time` for each of them")
	flag.StringVar(&b.profiles, "profile", "", "`folder` for CPU profiles of the servers in Go while saturated")
	flag.StringVar(&b.bin, "bin", "", "`folder` of servers built before; empty: build them now")
	flag.Parse()
	ours := b.bin == "" // the folder of the servers is made, and removed at the end

	if *list {
		return printList()
	}
	chosen, err := chooseCells(*cellList)
	if err != nil {
		return err
	}
	picked, err := chooseSystems(*systemList)
	if err != nil {
		return err
	}
	if b.inProcess == "none" {
		b.inProcess = ""
	}
	switch {
	case b.rounds < 1:
		return fmt.Errorf("%d rounds; there must be at least one", b.rounds)
	case b.several < 1:
		return fmt.Errorf("%d messages in one write; there must be at least one", b.several)
	case b.size < load.MinSize || b.size > maxMessage:
		return fmt.Errorf("a message size of %d bytes; it must be %d to %d", b.size, load.MinSize, maxMessage)
	}
	b.gpollArgs = strings.Fields(*gpollFlags)
	if err := b.prepare(chosen, picked); err != nil {
		return err
	}
	if os.Getenv(pinned) != "" && ours {
		defer os.RemoveAll(b.bin) // made by the process that became this one
	}
	r := newReport(b, chosen, picked, commandLine(slices.Clone(os.Args[1:])))
	for _, name := range []string{*out, *raw} {
		if err := writable(name); err != nil {
			return err
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	failed := b.run(r, stop)
	if err := r.text(os.Stdout); err != nil {
		return err
	}
	if *raw != "" {
		if err := writeJSON(*raw, r); err != nil {
			return err
		}
	}
	if *out != "" {
		if err := r.markdownFile(*out); err != nil {
			return err
		}
	}
	return failed
}

// maxMessage is gpoll's MaxMessage.
const maxMessage = 64 << 10

// writable makes sure, before half an hour is measured, that a file can be written. "" is no file.
func writable(name string) error {
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// commandLine is the command that reproduces the table. It leaves out the flags whose values are files of this machine.
func commandLine(args []string) string {
	var out strings.Builder
	out.WriteString("cd peers && go run ./cmd/bench")
	for i := 0; i < len(args); i++ {
		name, _, joined := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if slices.Contains([]string{"o", "json", "profile", "bin"}, name) {
			if !joined {
				i++ // its value
			}
			continue
		}
		if args[i] == "" || strings.Contains(args[i], " ") {
			args[i] = strconv.Quote(args[i])
		}
		out.WriteString(" " + args[i])
	}
	return out.String()
}

func writeJSON(name string, r *report) error {
	b, err := json.MarshalIndent(r.export(), "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}

func printList() error {
	fmt.Println("cells:")
	for _, c := range cells {
		fmt.Printf("  %-10s paced: one broadcast every %v\n", c, c.every)
	}
	fmt.Println("systems:")
	seen := map[string]bool{}
	for _, s := range systems() {
		if !seen[s.name] {
			fmt.Printf("  %-15s %s\n", s.name, s.about)
		}
		seen[s.name] = true
	}
	return nil
}

func chooseCells(list string) ([]cell, error) {
	switch list {
	case "all":
		return cells, nil
	case "none":
		return nil, nil
	}
	var out []cell
	for name := range strings.SplitSeq(list, ",") {
		found := false
		for _, c := range cells {
			if c.String() == name || string(c.kind) == name {
				out, found = append(out, c), true
			}
		}
		if found {
			continue
		}
		k, number, _ := strings.Cut(name, "-")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || !slices.Contains([]kind{webSocket, events, longPoll, inbound, trips}, kind(k)) {
			return nil, fmt.Errorf("there is no cell %q; -list shows them", name)
		}
		out = append(out, cell{kind(k), n, max(time.Duration(n)*100*time.Microsecond, 20*time.Millisecond)})
	}
	return out, nil
}

func chooseSystems(list string) ([]system, error) {
	all := systems()
	if list == "all" {
		return all, nil
	}
	var out []system
	for name := range strings.SplitSeq(list, ",") {
		n := len(out)
		for _, s := range all {
			if s.name == name {
				out = append(out, s)
			}
		}
		if n == len(out) {
			return nil, fmt.Errorf("there is no system %q; -list shows them", name)
		}
	}
	return out, nil
}

// pinned names the variable that tells a process that it has been bound to its processor.
const pinned = "GPOLL_BENCH_BIN"

// prepare builds the servers, then replaces this process by itself on the generator's processor with GOMAXPROCS 1.
func (b *bench) prepare(chosen []cell, picked []system) error {
	if n := runtime.NumCPU(); os.Getenv(pinned) == "" && n < 2 {
		return errors.New("two processors are needed: one for the server, one for the generator")
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/corvuscrypto/gpoll/peers").Output()
	if err != nil {
		return errors.New("run it inside the module github.com/corvuscrypto/gpoll/peers")
	}
	b.module = strings.TrimSpace(string(dir))
	most := 0
	for _, c := range chosen {
		most = max(most, c.clients)
	}
	if err := load.RaiseDescriptors(most + silentClients + 100); err != nil {
		return err
	}
	if bin := os.Getenv(pinned); bin != "" {
		b.bin = bin
		return nil
	}
	own := b.bin == ""
	if own {
		if b.bin, err = os.MkdirTemp("", "gpoll-bench"); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err := b.build(ctx, picked)
		if err = cmp.Or(context.Cause(ctx), err); err != nil {
			return errors.Join(err, os.RemoveAll(b.bin))
		}
		stop()
	}
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(b.clientCPU)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("processor %d: %w", b.clientCPU, err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), pinned+"="+b.bin, "GOMAXPROCS=1"))
}

func (b *bench) build(ctx context.Context, picked []system) error {
	done := map[string]bool{}
	for _, s := range picked {
		if s.binary == "" || done[s.binary] {
			continue
		}
		done[s.binary] = true
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(b.bin, s.binary), "./"+s.binary)
		cmd.Dir = b.module
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", s.binary, err, out)
		}
	}
	if b.inProcess != "" {
		return b.buildInProcess(ctx)
	}
	return nil
}

// errInterrupted is the error of a run that was stopped.
var errInterrupted = errors.New("interrupted; the table shows what there is")

// run measures round by round; a failure of one system is noted and does not stop the others.
func (b *bench) run(r *report, stop <-chan os.Signal) (failed error) {
	for round := range b.rounds {
		if b.inProcess != "" {
			awaitQuiet(b.wait)
			fmt.Fprintf(os.Stderr, "%d/%d the benchmarks of the package\n", round+1, b.rounds)
			if err := b.runInProcess(r.inProcess, stop); errors.Is(err, errInterrupted) {
				return err
			} else if err != nil {
				failed = errors.Join(failed, err)
			}
		}
		for _, c := range r.cells {
			for i := range r.systems {
				// Every round begins with another system, so that none always follows the same one.
				s := r.systems[(i+round)%len(r.systems)]
				if s.speaks[c.kind] == nil {
					continue
				}
				select {
				case <-stop:
					return errInterrupted
				default:
				}
				b.current = strings.ReplaceAll(s.name, "/", "-")
				awaitQuiet(b.wait)
				out, err := b.measure(s, c)
				r.add(c, s, out, err)
				fmt.Fprintf(os.Stderr, "%d/%d %-9s %-15s ", round+1, b.rounds, c, s.name)
				switch {
				case errors.Is(err, errAbsent):
					fmt.Fprintln(os.Stderr, err)
				case err != nil:
					fmt.Fprintln(os.Stderr, err)
					if s.own {
						failed = errors.Join(failed, fmt.Errorf("%s %s: %w", c, s.name, err))
					}
				case c.kind == inbound:
					fmt.Fprintf(os.Stderr, "%9.0f/s %6.3f µs   idle %5.1f (%5.1f) KB, after %d messages %5.1f (%5.1f) KB%s%s\n",
						out.Heard.Rate, out.Heard.CPU, out.IdleKB, out.AfterKB, spoken, out.RestedKB, out.SpokenKB,
						out.complaint(), out.disturbance())
				case c.kind == trips:
					fmt.Fprintf(os.Stderr, "paced p50 %6.3f ms p99 %6.3f ms %5.2f µs   most %9.0f/s p50 %5.1f ms p99 %5.1f ms "+
						"%5.2f µs%s%s\n", out.Asked.P50, out.Asked.P99, out.Asked.CPU, out.AskedMax.Rate, out.AskedMax.P50,
						out.AskedMax.P99, out.AskedMax.CPU, out.complaint(), out.disturbance())
				default:
					fmt.Fprintf(os.Stderr, "%9.0f/s p99 %5.1f ms %5.2f µs   burst %9.0f/s p99 %5.1f ms   paced %5.2f "+
						"µs p99 %5.1f ms   idle %5.1f (%5.1f) KB",
						out.Steady.Rate, out.Steady.P99, out.Steady.CPU, out.Burst.Rate, out.Burst.P99, out.PacedUS,
						out.PacedMS, out.IdleKB, out.AfterKB)
					if out.Posted.Rate > 0 {
						fmt.Fprintf(os.Stderr, "   posted %9.0f/s p99 %5.1f ms", out.Posted.Rate, out.Posted.P99)
					}
					if out.SendUS > 0 {
						fmt.Fprintf(os.Stderr, "   Send p99 %.0f µs, with %d that never read %.0f µs", out.SendUS,
							silentClients, out.SilentUS)
					}
					fmt.Fprintln(os.Stderr, out.complaint()+out.disturbance())
					if s.own && !out.clean() {
						failed = errors.Join(failed, fmt.Errorf("%s %s:%s", c, s.name, out.complaint()))
					}
				}
			}
		}
	}
	return failed
}

func (s sample) clean() bool { return s.Lost == 0 && s.Wrong == 0 && s.Closed == 0 }

func (s sample) complaint() string {
	if s.clean() {
		return ""
	}
	text := fmt.Sprintf("  lost %d, wrong %d, closed %d", s.Lost, s.Wrong, s.Closed)
	if s.Reason != "" {
		text += " (" + s.Reason + ")"
	}
	return text
}

// longPause is how many milliseconds without the generator make a measurement a disturbed one.
const longPause = 100

func (s sample) disturbed() bool { return s.Others >= disturbed || s.PauseMS >= longPause }

// disturbance says when a measurement is not worth much.
func (s sample) disturbance() string {
	if !s.disturbed() {
		return ""
	}
	return fmt.Sprintf("  disturbed: other programs used %.1f processors, the generator stood still for %.0f ms",
		s.Others, s.PauseMS)
}
