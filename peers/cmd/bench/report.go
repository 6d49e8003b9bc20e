package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// report collects the samples and prints them.
type report struct {
	bench   *bench
	cells   []cell
	systems []system
	names   []string // columns
	samples map[string]map[string][]sample
	errs    map[string]map[string]error
	command string

	inProcess inProcess
}

func newReport(b *bench, cells []cell, systems []system, command string) *report {
	r := &report{bench: b, cells: cells, systems: systems, command: command, samples: map[string]map[string][]sample{},
		errs: map[string]map[string]error{}, inProcess: inProcess{}}
	for _, s := range systems {
		if !slices.Contains(r.names, s.name) {
			r.names = append(r.names, s.name)
		}
	}
	for _, c := range cells {
		r.samples[c.String()] = map[string][]sample{}
		r.errs[c.String()] = map[string]error{}
	}
	return r
}

func (r *report) add(c cell, s system, out sample, err error) {
	if err != nil {
		r.errs[c.String()][s.name] = err
		return
	}
	r.samples[c.String()][s.name] = append(r.samples[c.String()][s.name], out)
}

func (r *report) export() any {
	return map[string]any{"command": r.command, "machine": machine(), "samples": r.samples, "in_process": r.inProcess}
}

// figure is a line of the table within a cell.
type figure struct {
	name   string
	of     func(sample) float64
	format string
	more   bool // more is better
	own    bool // measured of gpoll only
	only   kind // of cells in which clients speak; "": of the others
}

// belongs reports whether cells like c have the figure.
func (f *figure) belongs(c cell) bool { return f.only == c.kind || f.only == "" && !c.kind.upstream() }

func (r *report) figures() []figure {
	var out []figure
	if r.bench.saturated > 0 {
		out = append(out,
			figure{"saturated, deliveries/s", func(s sample) float64 { return s.Steady.Rate }, "%.0f", true, false, ""},
			figure{"saturated, p99 ms", func(s sample) float64 { return s.Steady.P99 }, "%.1f", false, false, ""},
			figure{"saturated, CPU µs", func(s sample) float64 { return s.Steady.CPU }, "%.2f", false, false, ""})
	}
	if r.bench.bursts > 0 {
		out = append(out,
			figure{"burst, deliveries/s", func(s sample) float64 { return s.Burst.Rate }, "%.0f", true, false, ""},
			figure{"burst, p99 ms", func(s sample) float64 { return s.Burst.P99 }, "%.1f", false, false, ""})
	}
	if r.bench.posted > 0 {
		out = append(out,
			figure{postedRate, func(s sample) float64 { return s.Posted.Rate }, "%.0f", true, false, ""},
			figure{postedP99, func(s sample) float64 { return s.Posted.P99 }, "%.1f", false, false, ""})
	}
	if r.bench.paced > 0 {
		out = append(out, figure{"paced, CPU µs", func(s sample) float64 { return s.PacedUS }, "%.2f", false, false, ""})
	}
	out = append(out,
		figure{"idle, KB", func(s sample) float64 { return s.IdleKB }, "%.1f", false, false, ""},
		figure{"idle after GC, KB", func(s sample) float64 { return s.AfterKB }, "%.1f", false, false, ""},
		figure{"idle after messages and GC, KB", func(s sample) float64 { return s.LaterKB }, "%.1f", false, false, ""})
	if r.bench.silent > 0 {
		out = append(out,
			figure{"Send, p99 µs", func(s sample) float64 { return s.SendUS }, "%.0f", false, true, ""},
			figure{fmt.Sprintf("Send with %d that never read, p99 µs", silentClients),
				func(s sample) float64 { return s.SilentUS }, "%.0f", false, true, ""},
			figure{silentRatio, func(s sample) float64 { return s.SilentUS / max(s.SendUS, 1e-3) }, "%.2f", false, true, ""})
	}
	return append(out, upstreamFigures...)
}

// What several publishers reach who post over HTTP.
const (
	postedRate = "posted, deliveries/s"
	postedP99  = "posted, p99 ms"
)

// silentRatio is the figure that says whether those who do not read hold up those who send.
const silentRatio = "Send p99, with them × without"

// median and half the distance between the extremes, relative to it.
func median(v []float64) (m, spread float64) {
	v = slices.Sorted(slices.Values(v))
	if m = v[len(v)/2]; len(v)%2 == 0 {
		m = (m + v[len(v)/2-1]) / 2
	}
	if m != 0 {
		spread = (v[len(v)-1] - v[0]) / 2 / m
	}
	return m, spread
}

// value returns what a system showed in a cell.
func (r *report) value(c cell, name string, f figure) (m, spread float64, ok bool) {
	samples := r.samples[c.String()][name]
	if len(samples) == 0 {
		return 0, 0, false
	}
	var v []float64
	for _, s := range samples {
		v = append(v, f.of(s))
	}
	m, spread = median(v)
	return m, spread, true
}

// ratios are the last columns of the table.
var ratios = []string{"gpoll / bare", "gpoll / batch", "gpoll / best peer", "gpoll-listener / best peer"}

// rows of the table: the figure of a cell, then the median and spread of each system, then gpoll's ratios to the limits
// and to the best peer.
func (r *report) rows() (head []string, rows [][]string) {
	head = append(head, "cell", "figure")
	head = append(head, r.names...)
	head = append(head, ratios...)
	for _, c := range r.cells {
		for _, f := range r.figures() {
			if !f.belongs(c) || c.kind.upstream() &&
				!slices.ContainsFunc(r.names, func(name string) bool { return r.measured(c, name, f) }) {
				continue
			}
			if f.own && !r.measured(c, "gpoll", f) || strings.HasPrefix(f.name, "posted") &&
				!slices.ContainsFunc(r.names, func(name string) bool { return r.measured(c, name, f) }) {
				continue
			}
			row := []string{c.String(), f.name}
			for _, name := range r.names {
				row = append(row, r.field(c, name, f))
			}
			if c.kind.upstream() {
				ratio := r.ratio(c, f, "gpoll-v1", "gws")
				if ratio != "–" {
					ratio = "gpoll-v1: " + ratio
				}
				row = append(row, "–", "–", ratio, "–")
				rows = append(rows, row)
				continue
			}
			row = append(row, r.ratio(c, f, "gpoll", "bare"), r.ratio(c, f, "gpoll", "batch"),
				r.ratio(c, f, "gpoll", r.best(c, f)), r.ratio(c, f, "gpoll-listener", r.best(c, f)))
			rows = append(rows, row)
		}
	}
	return head, rows
}

// measured reports whether a system has that figure in a cell.
func (r *report) measured(c cell, name string, f figure) bool {
	return slices.ContainsFunc(r.samples[c.String()][name], func(s sample) bool { return f.of(s) > 0 })
}

func (r *report) field(c cell, name string, f figure) string {
	m, spread, ok := r.value(c, name, f)
	if !ok || m == 0 && (f.more || f.own) {
		if err := r.errs[c.String()][name]; errors.Is(err, errAbsent) {
			return "absent"
		} else if err != nil {
			return "failed"
		}
		return "–"
	}
	text := fmt.Sprintf(f.format, m)
	if len(r.samples[c.String()][name]) > 1 {
		text += fmt.Sprintf(" ±%.0f%%", spread*100)
	}
	for _, s := range r.samples[c.String()][name] {
		if !s.clean() && f.more {
			return text + " !"
		}
	}
	return text
}

func (r *report) ratio(c cell, f figure, name, other string) string {
	a, _, ok1 := r.value(c, name, f)
	o, _, ok2 := r.value(c, other, f)
	if !ok1 || !ok2 || o == 0 {
		return "–"
	}
	if other != "bare" && other != "batch" {
		return fmt.Sprintf("%.2f (%s)", a/o, other)
	}
	return fmt.Sprintf("%.2f", a/o)
}

// best is the peer with the best figure. Peers that lost messages do not count.
func (r *report) best(c cell, f figure) (best string) {
	var score float64
	for _, s := range r.systems {
		m, _, ok := r.value(c, s.name, f)
		if !ok || f.own || s.own || s.limit || m == 0 {
			continue
		}
		if slices.ContainsFunc(r.samples[c.String()][s.name], func(x sample) bool { return !x.clean() }) {
			continue
		}
		if best == "" || f.more && m > score || !f.more && m < score {
			best, score = s.name, m
		}
	}
	return best
}

// losses says plainly who lost what.
func (r *report) losses() (lines []string) {
	for _, c := range r.cells {
		for _, name := range r.names {
			for i, s := range r.samples[c.String()][name] {
				if !s.clean() {
					lines = append(lines, fmt.Sprintf("%s, %s, round %d:%s", name, c, i+1, s.complaint()))
				}
			}
			if err := r.errs[c.String()][name]; err != nil {
				lines = append(lines, fmt.Sprintf("%s, %s: %v", name, c, err))
			}
		}
	}
	return lines
}

// disturbed counts the measurements during which other programs ran.
func (r *report) disturbed() (n, all int) {
	for _, systems := range r.samples {
		for _, samples := range systems {
			for _, s := range samples {
				all++
				if s.disturbed() {
					n++
				}
			}
		}
	}
	return n, all
}

func (r *report) text(w io.Writer) error {
	head, rows := r.rows()
	tables := [][][]string{append([][]string{head}, rows...)}
	if len(rows) == 0 {
		tables = nil
	}
	if rows := r.inProcess.table(); len(rows) > 0 {
		tables = append(tables, append([][]string{inProcessHead}, rows...))
	}
	if rows := r.aimRows(); len(rows) > 0 {
		tables = append(tables, append([][]string{aimHead}, rows...))
	}
	for i, table := range tables {
		if i > 0 {
			fmt.Fprintln(w)
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, row := range table {
			fmt.Fprintln(t, strings.Join(row, "\t"))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, l := range r.losses() {
		fmt.Fprintln(w, "!", l)
	}
	if n, all := r.disturbed(); n > 0 {
		fmt.Fprintf(w, "! other programs disturbed %d of %d measurements\n", n, all)
	}
	return nil
}

const introduction = `# Measured side by side

Written by the command below; do not edit it by hand.

The server runs on one processor, the load generator on another. Messages have %d bytes and go over real loopback
connections. Every delivery is verified for loss, repetition, order and content.

- *Paced*: one broadcast every 100 ms to 1,000 clients, every second to 10,000, every 500 ms to 5,000 polls.
- *Saturated*: the server's process publishes back to back, and gives way after each message.
- *Burst*: the same, but it does not give way. In both it is at most %d messages ahead of the slowest client.
- *Posted*: %d publishers post over HTTP to the server's process. Each posts its next message when all clients have the
  one before.
- *Inbound*: each client says messages back to back, %d in one write whenever its socket takes them, to a handler that
  counts them. All systems get the same payload. The clients of gpoll-v1 wrap it: {"send":{"data":"…"}}. CPU is per
  message. Of gpoll-v1, memory is measured once more %v after each client has said %d messages.
- *Round trips*: each client asks, and is answered with the same payload: *paced* every 100 ms, whether or not the
  answer before has come, and *most* as soon as it has. The clients of gpoll-v1 ask
  {"request":{"data":"…"},"id":"…"}; the messages of the others are echoed.
- *Send*: the time of the publishing call while the messages are published as in *saturated*, in turns without and with
  %d more WebSockets that never read.

The figures are medians of %d interleaved rounds; ± is half the distance between the best and the worst round. CPU is
the server's processor time per delivery. Memory is the resident memory of the server per idle connection, before the
first message and after some, without the memory of the kernel. An exclamation mark means that not all messages arrived.

`

func (r *report) markdownFile(name string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, introduction, r.bench.size, r.bench.window, publishers, r.bench.several, r.bench.rest, spoken,
		silentClients, r.bench.rounds)
	m := machine()
	fmt.Fprintf(&b, "Machine: %s, %d processors, Linux %s, %s, GOMAXPROCS=%d for the server.\n\n", m.CPU, m.Cores,
		m.Kernel, m.Go, r.bench.procs)
	fmt.Fprintf(&b, "```\n%s\n```\n\n", r.command)
	seen := map[string]bool{}
	for _, s := range r.systems {
		if !seen[s.name] && len(r.cells) > 0 {
			fmt.Fprintf(&b, "- **%s**: %s\n", s.name, s.about)
		}
		seen[s.name] = true
	}
	if rows := r.aimRows(); len(rows) > 0 {
		b.WriteString("\n## Asked and reached\n\n")
		markdownTable(&b, aimHead, rows)
	}
	if rows := r.inProcess.table(); len(rows) > 0 {
		fmt.Fprintf(&b, inProcessIntroduction, "`", r.bench.inProcess, r.bench.benchTime)
		markdownTable(&b, inProcessHead, rows)
	}
	head, rows := r.rows()
	for _, c := range r.cells {
		// Systems that do not speak the transport have no column.
		var keep []int
		for i, h := range head {
			if i < 2 || r.took(c, h) {
				keep = append(keep, i)
			} else if i >= len(head)-len(ratios) && slices.ContainsFunc(rows, func(row []string) bool {
				return row[0] == c.String() && row[i] != "–"
			}) {
				keep = append(keep, i)
			}
		}
		fmt.Fprintf(&b, "\n## %s\n\n", title(c))
		line := func(fields []string) {
			b.WriteString("|")
			for _, i := range keep[1:] {
				fmt.Fprintf(&b, " %s |", fields[i])
			}
			b.WriteString("\n")
		}
		line(head)
		b.WriteString("|" + strings.Repeat("---|", len(keep)-1) + "\n")
		for _, row := range rows {
			if row[0] == c.String() {
				line(row)
			}
		}
	}
	if n, all := r.disturbed(); n > 0 {
		fmt.Fprintf(&b, "\nOther programs disturbed %d of %d measurements.\n", n, all)
	}
	if lines := r.losses(); len(lines) > 0 {
		b.WriteString("\n## Not delivered\n\n")
		for _, l := range lines {
			fmt.Fprintf(&b, "- %s\n", l)
		}
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

var (
	aimHead       = []string{"cell", "figure", "asked", "reached", ""}
	inProcessHead = []string{"inside one process", "asked", "reached", ""}
)

const inProcessIntroduction = `
## Inside one process

The package's own benchmarks, in every round: %[1]sgo test -run '^$' -bench '%[2]s' -benchtime %[3]s .%[1]s with
GOMAXPROCS=1, except for "two processors". Within one benchmark, the things that are compared take turns.

`

func markdownTable(b *bytes.Buffer, head []string, rows [][]string) {
	for i, row := range append([][]string{head}, rows...) {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(head)) + "\n")
		}
	}
}

func (r *report) took(c cell, name string) bool {
	return len(r.samples[c.String()][name]) > 0 || r.errs[c.String()][name] != nil
}

func title(c cell) string {
	names := map[kind]string{webSocket: "WebSocket", events: "Server-Sent Events over HTTP/1.1", longPoll: "Long-poll",
		inbound: "Inbound", trips: "Round trips"}
	return fmt.Sprintf("%s, %d clients", names[c.kind], c.clients)
}

type machineInfo struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

func machine() machineInfo {
	m := machineInfo{CPU: runtime.GOARCH, Cores: onlineCPUs(), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(b), "\n") {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				m.CPU = strings.TrimSpace(v)
				break
			}
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// onlineCPUs counts the machine's processors: runtime.NumCPU would count those that this process is bound to.
func onlineCPUs() int {
	out, err := exec.Command("getconf", "_NPROCESSORS_ONLN").Output()
	var n int
	if err == nil {
		_, err = fmt.Sscan(string(out), &n)
	}
	if err != nil {
		return runtime.NumCPU()
	}
	return cmp.Or(n, 1)
}
