package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newBench(t *testing.T, picked []system) *bench {
	t.Helper()
	b := &bench{size: 128, rounds: 1, paced: 20 * time.Millisecond, saturated: 50 * time.Millisecond,
		bursts: 50 * time.Millisecond, window: 16, settle: 50 * time.Millisecond, procs: 1, several: several,
		serverCPU: -1, clientCPU: -1, bin: t.TempDir(), module: filepath.Join("..", "..")}
	if err := b.build(t.Context(), picked); err != nil {
		t.Fatal(err)
	}
	return b
}

// Every system that is installed here starts, takes clients of each of its transports, and delivers to them.
func TestEverySystem(t *testing.T) {
	picked := systems()
	b := newBench(t, picked)
	for _, s := range picked {
		for k := range s.speaks {
			t.Run(s.name+"/"+string(k), func(t *testing.T) {
				b.current = strings.ReplaceAll(s.name, "/", "-")
				out, err := b.measure(s, cell{k, 10, 5 * time.Millisecond})
				if errors.Is(err, errAbsent) {
					if os.Getenv("GPOLL_REQUIRE") == "1" && !s.own {
						t.Fatalf("%s is required and is not installed", s.name)
					}
					t.Skipf("%s: %v", s.name, err)
				}
				if err != nil {
					t.Fatal(err)
				}
				switch k {
				case inbound:
					if out.Heard.Rate <= 0 || !out.clean() {
						t.Errorf("%+v", out)
					}
					return
				case trips:
					if out.Asked.P50 <= 0 || out.AskedMax.Rate <= 0 || !out.clean() {
						t.Errorf("%+v", out)
					}
					return
				}
				if out.Steady.Rate <= 0 || out.PacedUS <= 0 || k != longPoll && out.Burst.Rate <= 0 {
					t.Errorf("%+v", out)
				}
				if s.own && !out.clean() {
					t.Errorf("gpoll:%s", out.complaint())
				}
			})
		}
	}
}

// Clients that do not read are blocked when Send is measured among them, and stay connected.
func TestSilent(t *testing.T) {
	picked, err := chooseSystems("gpoll")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, picked)
	b.paced, b.saturated, b.bursts, b.silent = 0, 0, 0, 2*silentTurns*50*time.Millisecond
	out, err := b.measure(picked[0], cell{webSocket, 10 * silentClients, 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if out.SendUS <= 0 || out.SilentUS <= 0 || !out.clean() {
		t.Errorf("%+v", out)
	}
}

func TestPercentile(t *testing.T) {
	var d []time.Duration
	for i := range 200 {
		d = append(d, time.Duration(200-i)*time.Microsecond)
	}
	if got := percentile99(d); got != 198 {
		t.Errorf("p99 of 1 to 200 µs is %v", got)
	}
	if got := percentile99(d[:3]); got != 3 {
		t.Errorf("p99 of the three fastest is %v", got)
	}
}

func TestChoose(t *testing.T) {
	for list, want := range map[string]int{"all": len(cells), "none": 0, "ws": 2, "ws-1000,lp-5000": 2, "ws-77": 1} {
		got, err := chooseCells(list)
		if err != nil || len(got) != want {
			t.Errorf("cells %q: %v, %v", list, got, err)
		}
	}
	for _, list := range []string{"", "xx", "xx-1", "ws-0", "ws-x"} {
		if got, err := chooseCells(list); err == nil {
			t.Errorf("cells %q: %v", list, got)
		}
	}
	if got, err := chooseSystems("bare,gpoll"); err != nil || len(got) != 4 {
		t.Errorf("bare,gpoll: %d systems, %v", len(got), err)
	}
	if _, err := chooseSystems("bare,fastest"); err == nil {
		t.Error("there is no system fastest")
	}
}

// The report takes medians, leaves systems that lost messages out of the comparison, says so, and tells nothing of the
// machine's folders.
func TestReport(t *testing.T) {
	picked, err := chooseSystems("gpoll,bare,batch,gws,melody,ws")
	if err != nil {
		t.Fatal(err)
	}
	chosen := cells[:1]
	b := &bench{size: 128, rounds: 3, saturated: 1, paced: 1, window: 16, procs: 1, bin: "/secret/folder"}
	r := newReport(b, chosen, picked, "cd peers && go run ./cmd/bench")
	for _, s := range picked {
		for i, rate := range []float64{300, 100, 200} {
			out := sample{Steady: saturation{Rate: rate}, PacedUS: 10}
			switch s.name {
			case "gpoll":
				out.Steady.Rate *= 3
			case "melody":
				out.Steady.Rate *= 5
				if i == 1 {
					out.Lost, out.Closed, out.Reason = 7, 1, "slow"
				}
			}
			if s.name == "ws" {
				r.add(chosen[0], s, sample{}, errAbsent)
			} else {
				r.add(chosen[0], s, out, nil)
			}
		}
	}
	lines := `goos: linux
BenchmarkFanOut/clients=1000-2   100  20000 ns/op  16.00 bare-ns/delivery  20.00 ns/delivery  1.250 x-bare
BenchmarkTwoCores/clients=100000-2   1  2000000 ns/op  1.36 x-one-core
BenchmarkTopic/clients=10000/topics=1000-2   9  2000 ns/op
BenchmarkTopic/clients=100000/topics=10000-2   9  70000 ns/op
PASS
`
	for range 2 {
		if err := r.inProcess.parse(strings.NewReader(lines)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "docs", "benchmarks.md")
	if err := r.markdownFile(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, want := range []string{
		"| saturated, deliveries/s | 600 ±50% | 200 ±50% | 200 ±50% | 200 ±50% | 1000 ±50% ! | absent | 3.00 | 3.00 " +
			"| 3.00 (gws) |\n",
		"| paced, CPU µs | 10.00 ±0% |",
		"- melody, ws-1000, round 2:  lost 7, wrong 0, closed 1 (slow)",
		"cd peers && go run ./cmd/bench",
		"GOMAXPROCS=1",
		"| 1000 clients with channels, × bare channel sends | ≤ 1.3 | 1.25 ±0% | reached |\n",
		"| 100000 clients, two processors × one | ≥ 1.7 | 1.36 ±0% | missed by 20 % |\n",
		"(10 subscribers each) | ≤ 2 | 35.00 ±0% | missed by 1650 % |\n",
		"| ws-1000 | deliveries/s × the best peer (gws) | ≥ 1 | 3.00 | reached |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, b.bin) {
		t.Errorf("the report names the folder %q", b.bin)
	}
}

func TestInProcess(t *testing.T) {
	b := newBench(t, nil)
	b.inProcess, b.benchTime, b.serverCPU, b.clientCPU = "LogReadQuiet", time.Millisecond, 0, 1
	if err := b.buildInProcess(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := inProcess{}
	for range 2 {
		if err := b.runInProcess(f, nil); err != nil {
			t.Fatal(err)
		}
	}
	if rows := f.table(); len(rows) != 2 || len(f["LogReadQuiet/others=10000 ns/op"]) != 2 {
		t.Errorf("%v from %v", rows, f)
	}
	b.inProcess = "NoSuchBenchmark"
	if err := b.runInProcess(f, nil); err == nil {
		t.Error("no benchmark ran, and there is no error")
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		in        []float64
		m, spread float64
	}{{[]float64{3}, 3, 0}, {[]float64{3, 1, 2}, 2, 0.5}, {[]float64{4, 1, 2, 3}, 2.5, 0.6}} {
		if m, spread := median(tt.in); m != tt.m || spread != tt.spread {
			t.Errorf("median of %v: %v ± %v, want %v ± %v", tt.in, m, spread, tt.m, tt.spread)
		}
	}
}

func TestCommandLine(t *testing.T) {
	got := commandLine([]string{"-cells", "ws", "-o", "/x/y", "--json=/x/z", "-gpoll", "-sync-delay-ms 1", "-rounds=2",
		"-profile", "/p", "-systems", ""})
	if want := `cd peers && go run ./cmd/bench -cells ws -gpoll "-sync-delay-ms 1" -rounds=2 -systems ""`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
