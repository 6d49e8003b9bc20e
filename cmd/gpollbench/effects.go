package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An effect shows what one size does, where it does something: the others have their defaults.
type effect struct {
	Field  string    `json:"field"`
	About  string    `json:"about"`
	Heads  []string  `json:"figures"`
	Points []outcome `json:"values"`

	field   field
	values  []int
	measure func(ctx context.Context, s sizes) ([]float64, error) // one for each head
	charts  func(e *effect) []chart
}

// outcome is what one value showed: the median of the repetitions.
type outcome struct {
	Value   int       `json:"value"`
	Figures []float64 `json:"medians"`
	all     [][]float64
}

// effects is the finding of tune -plots.
type effects struct {
	Machine machine  `json:"machine"`
	Effects []effect `json:"effects"`
}

// effects says how each size is measured.
func (n *need) effects() []effect {
	const inside, channels = 10_000, 1000
	const clients, often = 1000, 500
	type measure = func(context.Context, sizes) ([]float64, error)
	fanOut := func(clients, messages int, of func(fanOutResult) []float64) measure {
		return func(ctx context.Context, s sizes) ([]float64, error) {
			r, err := broadcasts(ctx, s.broadcaster(), n.Size, clients, min(messages, s.ClientBufferSize))
			return of(r), err
		}
	}
	served := func(m need, of func(trial) []float64) measure {
		return func(ctx context.Context, s sizes) ([]float64, error) {
			r, err := m.try(ctx, s)
			if err == nil && r.Lost+uint64(r.Closed) > 0 {
				err = fmt.Errorf("%v: %d deliveries were lost, %d clients disconnected", s, r.Lost, r.Closed)
			}
			return of(r), err
		}
	}
	web := *n
	web.Clients, web.Transports, web.Rate = clients, []string{"websocket"}, 20
	flood := web
	flood.flood = true
	busy := web
	busy.Rate = often
	return []effect{
		{
			field: fields[0], values: []int{50, 100, 250, 500, 1000, 2000, 5000, 10_000},
			About: fmt.Sprintf("broadcasts to %d clients inside the process, on all processors", inside),
			Heads: []string{"p50 ms", "p90 ms"},
			measure: fanOut(inside, 100,
				func(r fanOutResult) []float64 { return []float64{r.P50.Seconds() * 1000, r.P90.Seconds() * 1000} }),
			charts: func(e *effect) []chart {
				return []chart{e.chart("Until the last of 10,000 clients has a broadcast", "ms", 0, 1)}
			},
		},
		{
			field: fields[1], values: []int{10, 50, 100, 200, 500, 1000, 2000},
			About: fmt.Sprintf("%d clients inside the process, each with its channel", channels),
			Heads: []string{"KB per client", "ns per delivery"},
			measure: fanOut(channels, 100,
				func(r fanOutResult) []float64 { return []float64{float64(r.BytesPerClient) / 1024, r.PerDelivery} }),
			charts: func(e *effect) []chart {
				return []chart{e.chart("Memory of a client with a channel", "KB", 0)}
			},
		},
		{
			field: fields[2], values: []int{10, 20, 50, 100, 200, 500, 1000, 2000},
			About: fmt.Sprintf("%d WebSockets, a publisher without pauses, at most %d messages ahead of the "+
				"slowest client", clients, floodAhead),
			Heads:   []string{"flood p50 ms", "flood p99 ms", "deliveries/s"},
			measure: served(flood, func(r trial) []float64 { return []float64{r.FloodP50, r.FloodP99, r.Most} }),
			charts: func(e *effect) []chart {
				return []chart{e.chart("Latency behind a publisher without pauses", "ms", 0, 1),
					e.chart("What goes through", "deliveries/s", 2)}
			},
		},
		{
			field: fields[3], values: []int{0, 1, 2, 5, 10, 20, 50},
			About:   fmt.Sprintf("%d WebSockets, %d messages a second", clients, often),
			Heads:   []string{"CPU µs/delivery", "p50 ms", "p99 ms"},
			measure: served(busy, func(r trial) []float64 { return []float64{r.CPU, r.P50, r.P99} }),
			charts: func(e *effect) []chart {
				return []chart{e.chart("Processor time of the server", "µs per delivery", 0), e.chart("Latency", "ms", 1, 2)}
			},
		},
	}
}

// chart plots some of the figures over the values.
func (e *effect) chart(title, unit string, figures ...int) chart {
	base := map[string]struct {
		unit  string
		scale float64
	}{"ms": {"s", 1e-3}, "µs per delivery": {"s", 1e-6}, "KB": {"B", 1024}, "deliveries/s": {"", 1}}[unit]
	c := chart{title: title, x: e.Field, unit: base.unit}
	if base.unit == "" || strings.Contains(unit, " ") {
		c.y = strings.TrimPrefix(unit, "µs ")
	}
	for _, p := range e.Points {
		c.names = append(c.names, si(float64(p.Value), ""))
	}
	for _, f := range figures {
		l := line{name: strings.TrimPrefix(strings.TrimSuffix(e.Heads[f], " "+unit), "flood ")}
		for i, p := range e.Points {
			l.points = append(l.points, point{float64(i), p.Figures[f] * base.scale})
		}
		c.lines = append(c.lines, l)
	}
	return c
}

// showEffects measures the effects, value by value in an order that the seed decides, and writes the plots.
func (n *need) showEffects(ctx context.Context, out *output) error {
	if err := n.check(); err != nil {
		return err
	}
	if _, err := os.Stat(n.plots); err != nil {
		return err
	}
	f := &effects{Machine: thisMachine(), Effects: n.effects()}
	order := rand.New(rand.NewPCG(n.Seed, n.Seed))
	steps := 0
	for i := range f.Effects {
		steps += len(f.Effects[i].values) * n.Repeat
	}
	if err := out.ready(); err != nil {
		return err
	}
	bar := newBar(out, steps, "measuring effects")
	defer bar.end()
	for i := range f.Effects {
		e := &f.Effects[i]
		e.Field = e.field.name
		for _, v := range e.values {
			e.Points = append(e.Points, outcome{Value: v})
		}
		for range n.Repeat {
			for _, k := range order.Perm(len(e.values)) {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				s := defaults()
				*e.field.of(&s) = e.values[k]
				bar.say(short(s))
				figures, err := e.measure(ctx, s)
				if err != nil {
					return err
				}
				e.Points[k].all = append(e.Points[k].all, figures)
				bar.step()
			}
		}
		for k := range e.Points {
			e.Points[k].settle(len(e.Heads))
		}
		if err := e.write(n.plots); err != nil {
			return err
		}
	}
	return out.write(f)
}

// settle takes the median of each figure.
func (p *outcome) settle(figures int) {
	for f := range figures {
		var all []float64
		for _, one := range p.all {
			all = append(all, one[f])
		}
		slices.Sort(all)
		p.Figures = append(p.Figures, (all[(len(all)-1)/2]+all[len(all)/2])/2)
	}
}

// file is the name of the plot.
func (e *effect) file() string { return "tuning-" + e.field.flag + ".svg" }

func (e *effect) write(folder string) error {
	return os.WriteFile(filepath.Join(folder, e.file()), drawSVG(e.charts(e)), 0o644)
}

func (e *effect) table() (head []string, rows [][]string) {
	head = append([]string{e.Field}, e.Heads...)
	for _, p := range e.Points {
		row := []string{fmt.Sprint(p.Value)}
		for _, v := range p.Figures {
			switch {
			case v >= 1000:
				row = append(row, fmt.Sprintf("%.0f", v))
			case v >= 10:
				row = append(row, fmt.Sprintf("%.1f", v))
			default:
				row = append(row, fmt.Sprintf("%.2f", v))
			}
		}
		rows = append(rows, row)
	}
	return head, rows
}

// Text implements finding.
func (f *effects) Text(w io.Writer) {
	fmt.Fprintln(w, f.Machine)
	for i := range f.Effects {
		e := &f.Effects[i]
		fmt.Fprintf(w, "\n%s (%s)\n", e.About, e.file())
		head, rows := e.table()
		printTable(w, head, rows)
	}
}

// Page implements finding.
func (f *effects) Page(p *page) {
	p.title("What each size does")
	for i := range f.Effects {
		e := &f.Effects[i]
		p.heading(e.Field)
		p.paragraph(e.About)
		p.table(e.table())
		for _, c := range e.charts(e) {
			p.plot(c)
		}
	}
}
