package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/corvuscrypto/gpoll"
)

// fanOut is the finding of the command without a name.
type fanOut struct {
	Machine machine        `json:"machine"`
	Sizes   sizes          `json:"sizes"`
	Results []fanOutResult `json:"results"`
	Stopped bool           `json:"interrupted,omitempty"`
}

// fanOutResult is gpoll.BenchmarkResult in a form for JSON. Durations are in nanoseconds.
type fanOutResult struct {
	MessageSize    int           `json:"message_size"`
	Clients        int           `json:"clients"`
	Routines       int           `json:"routines"`
	Messages       int           `json:"messages"`
	Min            time.Duration `json:"min_ns"`
	Avg            time.Duration `json:"avg_ns"`
	Max            time.Duration `json:"max_ns"`
	P50            time.Duration `json:"p50_ns"`
	P90            time.Duration `json:"p90_ns"`
	P99            time.Duration `json:"p99_ns"`
	PerDelivery    float64       `json:"ns_per_delivery"`
	BytesPerClient int           `json:"bytes_per_client"`
	Each           []float64     `json:"broadcasts_ns"`
}

// fanOutCommand adds to app what it does without a subcommand.
func fanOutCommand(app *cli.Command, out *output) {
	var size, messages int
	var clients []int
	s := &sizes{}
	app.Description = "Without a command: broadcasts to clients inside this process, by Benchmark of the package."
	app.Flags = append(app.Flags,
		&cli.IntFlag{Name: "size", Value: 128, Usage: "`BYTES` of a message", Destination: &size, Local: true},
		&cli.IntSliceFlag{Name: "clients", Value: []int{1000},
			Usage: "`NUMBER` of clients; several by comma for a plot", Destination: &clients, Local: true},
		&cli.IntFlag{Name: "messages", Value: 100, Usage: "`NUMBER` of broadcasts", Destination: &messages, Local: true})
	app.Flags = append(app.Flags, s.flags()...)
	app.Action = func(ctx context.Context, cmd *cli.Command) error {
		// The three numbers of the 2015 package's Benchmark may come without names.
		for i, arg := range cmd.Args().Slice() {
			n, err := strconv.Atoi(arg)
			if err != nil {
				return usagef("there is no command %q; there are tune and load", arg)
			}
			switch i {
			case 0:
				size = n
			case 1:
				clients = []int{n}
			case 2:
				messages = n
			default:
				return usagef("%q is a fourth number; message size, clients and messages are all", arg)
			}
		}
		return measureFanOut(ctx, out, s, size, messages, clients)
	}
}

func measureFanOut(ctx context.Context, out *output, s *sizes, size, messages int, clients []int) error {
	b := s.broadcaster()
	if err := s.check(); err != nil {
		return err
	}
	// The package itself checks the numbers, before the first of several long measurements begins.
	if _, err := b.MeasureFanOut(size, min(slices.Min(clients), 1), messages); err != nil {
		return usageError{err}
	}
	if err := out.ready(); err != nil {
		return err
	}
	f := &fanOut{Machine: thisMachine(), Sizes: *s}
	bar := newBar(out, len(clients), "broadcasting")
	for _, n := range clients {
		r, err := broadcasts(ctx, b, size, n, messages)
		if f.Stopped = ctx.Err() != nil; f.Stopped {
			break
		}
		if err != nil {
			bar.end()
			return err
		}
		f.Results = append(f.Results, r)
		bar.step()
	}
	bar.end()
	if len(f.Results) == 0 {
		return context.Cause(ctx)
	}
	return out.write(f)
}

// broadcasts is MeasureFanOut until ctx ends.
func broadcasts(ctx context.Context, b *gpoll.Broadcaster, size, clients, messages int) (fanOutResult, error) {
	type outcome struct {
		gpoll.BenchmarkResult
		err error
	}
	done := make(chan outcome, 1)
	go func() { // ends with the measurement, or with the program when that is interrupted
		r, err := b.MeasureFanOut(size, clients, messages)
		done <- outcome{r, err}
	}()
	select {
	case r := <-done:
		return fanOutOf(r.BenchmarkResult), r.err
	case <-ctx.Done():
		return fanOutResult{}, context.Cause(ctx)
	}
}

func fanOutOf(r gpoll.BenchmarkResult) fanOutResult {
	f := fanOutResult{
		MessageSize: r.MessageSize, Clients: r.Clients, Routines: r.Routines, Messages: len(r.Broadcasts),
		Min: r.Min, Avg: r.Avg, Max: r.Max, P50: r.P50, P90: r.P90, P99: r.P99,
		PerDelivery:    float64(r.Avg) / float64(max(r.Clients, 1)),
		BytesPerClient: r.BytesPerClient,
	}
	for _, b := range r.Broadcasts {
		f.Each = append(f.Each, float64(b.Ns))
	}
	return f
}

// Text implements finding.
func (f *fanOut) Text(w io.Writer) {
	fmt.Fprintln(w, f.Machine)
	head, rows := f.table()
	printTable(w, head, rows)
	if f.Stopped {
		fmt.Fprintln(w, "interrupted: not all numbers of clients were measured")
	}
}

func (f *fanOut) table() (head []string, rows [][]string) {
	head = []string{"clients", "routines", "messages", "bytes", "min", "avg", "p50", "p90", "p99", "max", "ns/delivery",
		"bytes/client"}
	for _, r := range f.Results {
		row := []string{strconv.Itoa(r.Clients), strconv.Itoa(r.Routines), strconv.Itoa(r.Messages),
			strconv.Itoa(r.MessageSize)}
		for _, d := range []time.Duration{r.Min, r.Avg, r.P50, r.P90, r.P99, r.Max} {
			row = append(row, round(d).String())
		}
		rows = append(rows, append(row, fmt.Sprintf("%.1f", r.PerDelivery), strconv.Itoa(r.BytesPerClient)))
	}
	return head, rows
}

// Page implements finding.
func (f *fanOut) Page(p *page) {
	p.title("What a broadcast costs")
	p.paragraph("Broadcasts to clients inside one process, each with its buffered channel. A broadcast is over when " +
		"the last client has the message.")
	p.table(f.table())
	var cost, memory, broadcasts []point
	for _, r := range f.Results {
		cost = append(cost, point{float64(r.Clients), r.PerDelivery / 1e9})
		memory = append(memory, point{float64(r.Clients), float64(r.BytesPerClient)})
	}
	if len(f.Results) > 1 {
		p.plot(chart{title: "Cost over clients", x: "clients", y: "time for one delivery", unit: "s", logX: true,
			lines: []line{{"cost", cost}}})
		p.plot(chart{title: "Memory over clients", x: "clients", y: "memory of one client", unit: "B", logX: true,
			lines: []line{{"memory", memory}}})
	}
	last := f.Results[len(f.Results)-1]
	for i, ns := range last.Each {
		broadcasts = append(broadcasts, point{float64(i + 1), ns / 1e9})
	}
	p.plot(chart{title: fmt.Sprintf("Each broadcast to %d clients", last.Clients), x: "broadcast",
		y: "time until the last client has it", unit: "s", lines: []line{{"time", broadcasts}}})
}

// round shortens a duration to what can be read.
func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(time.Second / 10)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond / 10)
	case d > 10*time.Microsecond:
		return d.Round(time.Microsecond / 10)
	}
	return d
}
