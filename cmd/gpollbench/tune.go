package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/corvuscrypto/gpoll/internal/load"
)

// need is what a server has to do.
type need struct {
	Clients    int           `json:"clients"`
	Rate       float64       `json:"messages_per_s"`
	Size       int           `json:"message_size"`
	Transports []string      `json:"transports"`
	Latency    time.Duration `json:"p99_goal_ns"`
	Seed       uint64        `json:"seed"`
	Time       time.Duration `json:"time_per_trial_ns"`
	Repeat     int           `json:"repeat"`
	addr       string
	plots      string // folder; empty: tune
	flood      bool   // floodAhead in place of burstAhead
	tried      func() // called after each trial, by a test
}

func tuneCommand(out *output) *cli.Command {
	n := &need{}
	return &cli.Command{
		Name:  "tune",
		Usage: "which sizes to set for a need, measured on this machine",
		Description: "It starts servers of its own with different sizes, connects real clients to them and prints " +
			"the sizes to use as Go code. ^C prints what there is by then.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "clients", Value: 1000, Usage: "`NUMBER` of clients that are connected", Destination: &n.Clients},
			&cli.FloatFlag{Name: "rate", Value: 10, Usage: "`NUMBER` of messages per second to all of them",
				Destination: &n.Rate},
			&cli.IntFlag{Name: "size", Value: 128, Usage: "`BYTES` of a message", Destination: &n.Size},
			&cli.StringSliceFlag{Name: "transports", Value: []string{"websocket"},
				Usage: "`NAMES` by comma; the clients are shared out among them", Destination: &n.Transports},
			&cli.DurationFlag{Name: "latency", Value: 100 * time.Millisecond,
				Usage: "`TIME` within which 99 % of the deliveries must arrive", Destination: &n.Latency},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "`NUMBER` that the order of the trials follows from",
				Destination: &n.Seed},
			&cli.DurationFlag{Name: "time", Value: 2 * time.Second,
				Usage: "`TIME` for each trial, half at the rate, half back to back", Destination: &n.Time},
			&cli.IntFlag{Name: "repeat", Value: 2, Usage: "`NUMBER` of times that each trial is made", Destination: &n.Repeat},
			&cli.StringFlag{Name: "plots",
				Usage: "write a plot of each size's effect to this `FOLDER` as SVG, at values that suit the size; of " +
					"the other flags only -seed, -size, -time, -repeat and -addr count", Destination: &n.plots},
			&cli.StringFlag{Name: "addr", Value: "127.0.0.1:0", Usage: "`ADDRESS` that the measured servers listen on",
				Destination: &n.addr},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if cmd.Args().Len() > 0 {
				return usagef("tune takes flags only, not %q", cmd.Args().First())
			}
			if n.plots != "" {
				return n.showEffects(ctx, out)
			}
			return n.run(ctx, out)
		},
	}
}

const (
	maxMessage = 64 << 10              // MaxMessage of a Broadcaster
	minTime    = 20 * time.Millisecond // less is no trial
)

func (n *need) check() error {
	switch {
	case n.Clients < 1:
		return usagef("%d clients; there must be at least one", n.Clients)
	case n.Size < load.MinSize || n.Size > maxMessage:
		return usagef("a message size of %d bytes; it must be %d to %d", n.Size, load.MinSize, maxMessage)
	case n.Latency <= 0:
		return usagef("a latency of %v; it must be above 0, such as 100ms", n.Latency)
	case n.Repeat < 1:
		return usagef("%d repetitions; there must be at least one", n.Repeat)
	case !validAddress(n.addr):
		return usagef("-addr %q is no address of this machine such as 127.0.0.1:0, where 0 is any free port", n.addr)
	case n.Time < minTime:
		return usagef("a time of %v for each trial; it must be at least %v", n.Time, minTime)
	}
	if err := checkRate(n.Rate); err != nil {
		return err
	}
	_, err := n.protocol("127.0.0.1:1")
	return err
}

func validAddress(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	_, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && perr == nil
}

func (n *need) protocol(addr string) (load.Protocol, error) {
	var all load.Mixed
	for _, name := range n.Transports {
		p, err := load.Gpoll{Host: addr, Path: "/poll"}.NewProtocol(strings.TrimSpace(name))
		if err != nil {
			return nil, usageError{err}
		}
		all = append(all, p)
	}
	return all, nil
}

// burstAhead is how far a publisher that does not pause may be ahead of the slowest client.
const burstAhead = 16

// floodAhead is the same if the server itself should hold the publisher back. It is less than the log's window, or slow
// clients get gaps.
const floodAhead = 8000

// plan lists the trials: the defaults and each size by itself, as often as asked for. They are shuffled, so that other
// work of the machine falls on all of them. The same need and seed give the same plan.
func (n *need) plan() []sizes {
	list := n.candidates()
	var out []sizes
	r := rand.New(rand.NewPCG(n.Seed, n.Seed))
	for range n.Repeat {
		for _, i := range r.Perm(len(list)) {
			out = append(out, list[i])
		}
	}
	return out
}

// candidates are the settings to compare; the defaults come first.
func (n *need) candidates() []sizes {
	base := defaults()
	out := []sizes{base}
	add := func(f field, values ...int) {
		for _, v := range values {
			s := base
			if *f.of(&s) = v; s != base {
				out = append(out, s)
			}
		}
	}
	// One routine for all clients is the same with every limit from their number on.
	one := max(n.Clients, base.RoutineMaxClients)
	for _, v := range []int{100, 250, 500, 2000, 5000, 10000, 50000} {
		if v < min(n.Clients, base.RoutineMaxClients) || v > base.RoutineMaxClients && v < one {
			add(fields[0], v)
		}
	}
	add(fields[0], one)
	add(fields[1], 10, 400, 2000)
	add(fields[2], 20, 50, 1000)
	for _, ms := range []int{1, 2, 5, 10, 20, 50} {
		if time.Duration(ms)*time.Millisecond <= n.Latency/4 {
			add(fields[3], ms)
		}
	}
	return out
}

// trial is what one setting showed.
type trial struct {
	Sizes  sizes   `json:"sizes"`
	CPU    float64 `json:"cpu_us_per_delivery"` // at the rate
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	Idle   float64 `json:"idle_kb_per_client"`
	Most   float64 `json:"most_deliveries_per_s"` // back to back
	Lost   uint64  `json:"lost"`
	Missed float64 `json:"missed"` // share of the messages at the rate that the server did not get round to publish
	Closed int     `json:"closed"`
	Tries  int     `json:"tries"`

	FloodP50, FloodP99 float64 `json:"-"` // ms, back to back
}

// tuning is the finding of tune.
type tuning struct {
	Machine  machine  `json:"machine"`
	Need     need     `json:"need"`
	Trials   []trial  `json:"trials"` // one for each setting, the mean of its tries
	Advice   []advice `json:"advice"`
	Chosen   sizes    `json:"chosen"`
	Final    *trial   `json:"final,omitempty"` // the chosen sizes together
	Headroom float64  `json:"headroom"`        // how many times the need the machine delivered
	Stopped  bool     `json:"interrupted,omitempty"`
}

// advice is what to do about one size.
type advice struct {
	Field  string `json:"field"`
	Value  int    `json:"value"`
	Reason string `json:"reason"`
}

func (n *need) run(ctx context.Context, out *output) error {
	if err := n.check(); err != nil {
		return err
	}
	if err := out.ready(); err != nil {
		return err
	}
	plan := n.plan()
	t := &tuning{Machine: thisMachine(), Need: *n}
	bar := newBar(out, len(plan)+2*n.Repeat, "trying sizes")
	for _, s := range plan {
		if ctx.Err() != nil {
			break
		}
		bar.say(short(s))
		r, err := n.try(ctx, s)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			bar.end()
			return err
		}
		t.add(r)
		bar.step()
		if n.tried != nil {
			n.tried()
		}
	}
	t.choose()
	err := t.confirm(ctx, bar)
	bar.end()
	if t.Stopped = ctx.Err() != nil; err != nil && !t.Stopped {
		return err
	}
	if len(t.Trials) == 0 {
		return context.Cause(ctx)
	}
	t.weigh()
	if err := out.write(t); err != nil {
		return err
	}
	return t.verdict()
}

// add averages r with what the same sizes showed before.
func (t *tuning) add(r trial) {
	for i := range t.Trials {
		o := &t.Trials[i]
		if o.Sizes != r.Sizes {
			continue
		}
		k := float64(o.Tries)
		for _, f := range []func(*trial) *float64{
			func(x *trial) *float64 { return &x.CPU }, func(x *trial) *float64 { return &x.P50 },
			func(x *trial) *float64 { return &x.P99 },
			func(x *trial) *float64 { return &x.Idle }, func(x *trial) *float64 { return &x.Most },
			func(x *trial) *float64 { return &x.Missed },
		} {
			*f(o) = (*f(o)*k + *f(&r)) / (k + 1)
		}
		o.Lost += r.Lost
		o.Closed += r.Closed
		o.Tries++
		return
	}
	t.Trials = append(t.Trials, r)
}

// find returns the trial of some sizes, nil if it was not made.
func (t *tuning) find(s sizes) *trial {
	for i := range t.Trials {
		if t.Trials[i].Sizes == s {
			return &t.Trials[i]
		}
	}
	return nil
}

// noise is how much better than the default a value must be: less may be chance.
const noise = 0.15

// choose takes for each size the default, unless another value was clearly better.
func (t *tuning) choose() {
	base := defaults()
	t.Chosen = base
	reference := t.find(base)
	for _, f := range fields {
		a := advice{Field: f.name, Value: *f.of(&base)}
		if reference == nil {
			a.Reason = "not measured: the default"
			t.Advice = append(t.Advice, a)
			continue
		}
		best, tried := reference, 0
		for i := range t.Trials {
			x := &t.Trials[i]
			only := base
			*f.of(&only) = *f.of(&x.Sizes)
			if x.Sizes != only || x.Sizes == base {
				continue
			}
			tried++
			if t.better(x, best) {
				best = x
			}
		}
		switch {
		case tried == 0:
			a.Reason = "no other value was measured: the default"
		case best == reference:
			a.Reason = fmt.Sprintf("the default: none of %d other values was better by more than %.0f %%", tried, noise*100)
		default:
			a.Value = *f.of(&best.Sizes)
			a.Reason = t.why(best, reference)
			*f.of(&t.Chosen) = a.Value
		}
		t.Advice = append(t.Advice, a)
	}
}

// confirm measures the chosen sizes together, in turns with the defaults. If they are not better once more, the
// defaults stay: the best of many values may be the best by chance.
func (t *tuning) confirm(ctx context.Context, bar bar) error {
	base := defaults()
	rivals := []sizes{base}
	if t.Chosen != base {
		rivals = append(rivals, t.Chosen)
	}
	again := &tuning{Need: t.Need}
	for range t.Need.Repeat {
		for _, s := range rivals {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			bar.say("again: " + s.String())
			r, err := t.Need.try(ctx, s)
			if err != nil {
				return err
			}
			again.add(r)
			bar.step()
		}
	}
	t.settle(again.find(t.Chosen), again.find(base))
	return nil
}

// settle decides between the chosen sizes and the defaults by their second measurement.
func (t *tuning) settle(chosen, reference *trial) {
	base := defaults()
	t.Final = chosen
	if t.Chosen == base || t.better(chosen, reference) {
		return
	}
	t.Chosen, t.Final = base, reference
	for i, f := range fields {
		if a := &t.Advice[i]; a.Value != *f.of(&base) {
			a.Reason = fmt.Sprintf("the default: %d looked better, but was not when measured again", a.Value)
			a.Value = *f.of(&base)
		}
	}
}

// ample is a multiple of the needed throughput. If the machine delivers more than that, further throughput does not
// matter.
const ample = 4

// better first compares whether everything arrived in time, then the processor time. If throughput is scarce, it
// compares that last.
func (t *tuning) better(a, b *trial) bool {
	if x, y := t.fits(a), t.fits(b); x != y {
		return x
	}
	if !t.fits(a) {
		return a.Lost == 0 && a.P99 < b.P99*(1-noise)
	}
	switch {
	case a.CPU < b.CPU*(1-noise):
		return a.Most > b.Most*(1-noise) || t.headroom(a) >= ample
	case a.Most > b.Most*(1+noise):
		return a.CPU < b.CPU*(1+noise) && t.headroom(b) < ample
	}
	return false
}

// fits says that everything was published and arrived within the goal.
func (t *tuning) fits(x *trial) bool {
	return x.Lost == 0 && x.Closed == 0 && x.Missed < 0.1 && x.P99 <= t.Need.Latency.Seconds()*1000
}

// headroom is how many times the need a trial delivered back to back.
func (t *tuning) headroom(x *trial) float64 {
	return x.Most / (t.Need.Rate * float64(t.Need.Clients))
}

func (t *tuning) why(best, reference *trial) string {
	if t.fits(best) && !t.fits(reference) {
		return fmt.Sprintf("p99 %.1f ms keeps the goal of %v; with the default it was %.1f ms and %d deliveries "+
			"were lost", best.P99, t.Need.Latency, reference.P99, reference.Lost)
	}
	return fmt.Sprintf("%.2f µs of processor time per delivery against %.2f with the default, p99 %.1f against %.1f "+
		"ms, at most %.0f against %.0f deliveries/s",
		best.CPU, reference.CPU, best.P99, reference.P99, best.Most, reference.Most)
}

// weigh compares the throughput that the machine reached with the throughput that is needed.
func (t *tuning) weigh() {
	x := t.Final
	if x == nil {
		if x = t.find(t.Chosen); x == nil {
			x = &t.Trials[0]
		}
	}
	t.Headroom = t.headroom(x)
}

func (t *tuning) verdict() error {
	x := t.Final
	if x == nil || t.fits(x) {
		return nil
	}
	if x.Lost > 0 || x.Closed > 0 {
		return fmt.Errorf("with the chosen sizes %d deliveries were lost and %d clients disconnected", x.Lost, x.Closed)
	}
	if x.Missed > 0 {
		return fmt.Errorf("this machine does not reach the rate: with the chosen sizes %.0f %% of the messages could "+
			"not be published in their time, p99 was %.1f ms; ask for fewer clients or messages", x.Missed*100, x.P99)
	}
	return fmt.Errorf("this machine does not reach the goal: p99 was %.1f ms with the chosen sizes, not %v; ask for "+
		"fewer clients or messages, or more time", x.P99, t.Need.Latency)
}

// goCode is the chosen sizes as a program sets them.
func (t *tuning) goCode() string {
	var b strings.Builder
	b.WriteString("b := gpoll.NewBroadcaster()\n")
	for _, a := range t.Advice {
		fmt.Fprintf(&b, "b.%s = %d // %s\n", a.Field, a.Value, a.Reason)
	}
	return b.String()
}

func (t *tuning) summary() string {
	s := fmt.Sprintf("Headroom: the machine delivered %.1f times the %.0f deliveries/s that are needed", t.Headroom,
		t.Need.Rate*float64(t.Need.Clients))
	if t.Final != nil {
		s += fmt.Sprintf("; with these sizes p50 %.1f ms, p99 %.1f ms, %.2f µs of processor time per delivery, %.1f "+
			"KB per idle client", t.Final.P50, t.Final.P99, t.Final.CPU, t.Final.Idle)
	}
	if t.Stopped {
		s += ". Interrupted: this rests on what had been measured by then, and was not measured again"
	}
	return s + "."
}

// Text implements finding.
func (t *tuning) Text(w io.Writer) {
	fmt.Fprintln(w, "//", t.Machine)
	fmt.Fprintf(w, "// %d clients by %s, %g messages/s of %d bytes, p99 within %v\n", t.Need.Clients,
		strings.Join(t.Need.Transports, " and "), t.Need.Rate, t.Need.Size, t.Need.Latency)
	fmt.Fprint(w, t.goCode())
	fmt.Fprintln(w, "//", t.summary())
	fmt.Fprintln(w)
	head, rows := t.table()
	printTable(w, head, rows)
}

// short names what differs from the defaults.
func short(s sizes) string {
	base := defaults()
	for _, f := range fields {
		if v := *f.of(&s); v != *f.of(&base) {
			return fmt.Sprintf("%s %d", f.name, v)
		}
	}
	return "the defaults"
}

func (t *tuning) table() (head []string, rows [][]string) {
	head = []string{"tried", "CPU µs/delivery", "p50 ms", "p99 ms", "at most deliveries/s", "idle KB", "lost", "closed"}
	row := func(name string, x *trial) {
		rows = append(rows, []string{name, fmt.Sprintf("%.2f", x.CPU), fmt.Sprintf("%.1f", x.P50), fmt.Sprintf("%.1f", x.P99),
			fmt.Sprintf("%.0f", x.Most), fmt.Sprintf("%.1f", x.Idle), fmt.Sprint(x.Lost), fmt.Sprint(x.Closed)})
	}
	for _, c := range t.Need.candidates() {
		if x := t.find(c); x != nil {
			row(short(c), x)
		}
	}
	if t.Final != nil {
		row("chosen", t.Final)
	}
	return head, rows
}

// values of a size that were tried with the defaults of the others, in order.
func (t *tuning) values(f field) (out []int) {
	base := defaults()
	for i := range t.Trials {
		s := base
		v := *f.of(&t.Trials[i].Sizes)
		if *f.of(&s) = v; s == t.Trials[i].Sizes {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Page implements finding.
func (t *tuning) Page(p *page) {
	p.title("Sizes for a need")
	p.paragraph(fmt.Sprintf("%d clients by %s, %g messages/s of %d bytes, p99 within %v.", t.Need.Clients,
		strings.Join(t.Need.Transports, " and "), t.Need.Rate, t.Need.Size, t.Need.Latency))
	p.code(t.goCode())
	p.paragraph(t.summary())
	p.table(t.table())
	base := defaults()
	for _, f := range fields {
		var names []string
		var cpu, p99, most []point
		for _, v := range t.values(f) {
			s := base
			*f.of(&s) = v
			x := t.find(s)
			at := float64(len(names))
			names = append(names, si(float64(v), ""))
			cpu, p99 = append(cpu, point{at, x.CPU / 1e6}), append(p99, point{at, x.P99 / 1e3})
			most = append(most, point{at, x.Most})
		}
		if len(names) < 2 {
			continue
		}
		p.heading(f.name)
		p.plot(chart{title: "Processor time at the rate", x: f.name, y: "of the server, for one delivery",
			unit: "s", names: names, lines: []line{{"cost", cpu}}})
		p.plot(chart{title: "Latency at the rate", x: f.name, y: "p99", unit: "s", names: names,
			lines: []line{{"p99", p99}}})
		p.plot(chart{title: "Back to back", x: f.name, y: "deliveries/s", names: names,
			lines: []line{{"deliveries/s", most}}})
	}
}
