package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
)

type point struct{ x, y float64 }

type line struct {
	name   string
	points []point
}

// A chart draws lines. Their values are in the base units: seconds, bytes or plain numbers.
type chart struct {
	title   string
	x, y    string // what is on the axes
	unit    string // of the y axis: "s", "B" or "" for numbers
	lines   []line
	logX    bool
	percent bool     // x is a percentile: the axis goes by nines
	names   []string // of the places on the x axis 0, 1, 2, …; nil: numbers
}

// Sizes in pixels, before the page scales them.
const (
	chartWidth, chartHeight = 360, 220
	fontSize, glyph         = 11, 6.1 // a character's width, nearly
	marginTop, marginBottom = 10, 36
)

// chartStyle is the style of charts, for a page and for a file of their own. The colours are those of Okabe and Ito,
// which people with any kind of colour vision can tell apart.
//
//go:embed chart.css
var chartStyle string

const colours = 6

// svg returns the chart as an element of HTML; "" when it has no point.
func (c chart) svg() string {
	body := c.body(0)
	if body == "" {
		return ""
	}
	return fmt.Sprintf(`<svg class="chart" role="img" aria-label="%s" viewBox="0 0 %d %d">%s</svg>`,
		html.EscapeString(c.title), chartWidth, chartHeight, body)
}

// drawSVG returns charts below each other as one file; nil when none of them has a point.
func drawSVG(charts []chart) []byte {
	const above = 24 // for the title
	var b strings.Builder
	height := 0
	for _, c := range charts {
		if body := c.body(height + above); body != "" {
			title := c.title
			if c.y != "" {
				title += ", " + c.y
			}
			fmt.Fprintf(&b, `<text class="title" x="4" y="%d">%s</text>`, height+15, html.EscapeString(title))
			b.WriteString(body)
			height += above + chartHeight
		}
	}
	if height == 0 {
		return nil
	}
	return fmt.Appendf(nil, `<svg class="chart" xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" `+
		`viewBox="0 0 %d %d" font-family="system-ui, sans-serif"><style>%s</style>`+
		`<rect width="100%%" height="100%%" fill="var(--ground)"/>%s</svg>`,
		2*chartWidth, 2*height, chartWidth, height, chartStyle, b.String())
}

// body draws the chart below a height.
func (c chart) body(top int) string {
	lines := c.drawable()
	if len(lines) == 0 {
		return ""
	}
	left, right := math.MaxFloat64, -math.MaxFloat64
	high := 0.0
	for _, l := range lines {
		for _, p := range l.points {
			left, right, high = min(left, p.x), max(right, p.x), max(high, p.y)
		}
	}
	if right <= left {
		right = left + 1
	}
	ys, format := ticks(high, c.unit)
	high = ys[len(ys)-1]

	// The place for the numbers on the left, and for the names on the right.
	x0, x1 := 8.0, float64(chartWidth)-10
	for _, y := range ys {
		x0 = max(x0, 8+glyph*float64(len([]rune(format(y)))))
	}
	if len(lines) > 1 {
		longest := 0
		for _, l := range lines {
			longest = max(longest, len([]rune(l.name)))
		}
		x1 -= 16 + glyph*float64(longest)
	}
	y0, y1 := float64(top+chartHeight-marginBottom), float64(top+marginTop)
	atX := func(v float64) float64 { return x0 + 4 + (v-left)/(right-left)*(x1-x0-8) }
	atY := func(v float64) float64 { return y0 - v/high*(y0-y1) }

	var b strings.Builder
	for _, y := range ys {
		fmt.Fprintf(&b, `<path class="rule" d="M%.1f %.1fH%.1f"/><text x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
			x0, atY(y), x1, x0-4, atY(y)+4, format(y))
	}
	c.drawX(&b, lines, atX, y0)
	fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, (x0+x1)/2, top+chartHeight-6,
		html.EscapeString(c.x))

	type end struct{ at, label float64 }
	ends := make([]end, len(lines))
	for i, l := range lines {
		b.WriteString(`<path class="line l` + strconv.Itoa(i%colours) + `" d="`)
		for k, p := range l.points {
			fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(k, 1)], atX(p.x), atY(p.y))
		}
		b.WriteString(`"/>`)
		if len(l.points) <= 20 {
			for _, p := range l.points {
				fmt.Fprintf(&b, `<circle class="d%d" cx="%.1f" cy="%.1f" r="2.5"/>`, i%colours, atX(p.x), atY(p.y))
			}
		}
		last := atY(l.points[len(l.points)-1].y)
		ends[i] = end{last, last}
	}
	if len(lines) == 1 {
		return b.String()
	}
	// Each name stands at the end of its line, or as near as the others let it.
	order := make([]int, len(lines))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(ends[i].at, ends[j].at) })
	const apart = fontSize + 2
	lowest := y0
	for k := len(order) - 1; k >= 0; k-- { // from below
		e := &ends[order[k]]
		e.label = min(e.label, lowest)
		lowest = e.label - apart
	}
	highest := y1
	for _, i := range order { // and what was pushed out at the top comes down again
		e := &ends[i]
		e.label = max(e.label, highest)
		highest = e.label + apart
	}
	for i, l := range lines {
		lastX := atX(l.points[len(l.points)-1].x)
		fmt.Fprintf(&b, `<path class="tie l%d" d="M%.1f %.1fL%.1f %.1fh3"/><text class="label" x="%.1f" y="%.1f">%s</text>`,
			i%colours, lastX, ends[i].at, x1+7, ends[i].label, x1+13, ends[i].label+4, html.EscapeString(l.name))
	}
	return b.String()
}

// drawable returns the lines with their points in order, where the x axis has them.
func (c chart) drawable() (lines []line) {
	for _, l := range c.lines {
		drawn := line{name: l.name}
		for _, p := range l.points {
			switch {
			case math.IsNaN(p.y) || math.IsInf(p.y, 0) || c.logX && p.x <= 0 || c.percent && p.x >= 100:
				continue
			case c.logX:
				p.x = math.Log10(p.x)
			case c.percent:
				p.x = nines(p.x)
			}
			drawn.points = append(drawn.points, p)
		}
		if len(drawn.points) > 0 {
			slices.SortStableFunc(drawn.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
			lines = append(lines, drawn)
		}
	}
	return lines
}

// nines is 1 for 90 %, 2 for 99 %, 3 for 99.9 %.
func nines(percent float64) float64 { return -math.Log10(1 - percent/100) }

// drawX writes below the axis what stands there, as far as there is room.
func (c chart) drawX(b *strings.Builder, lines []line, at func(float64) float64, y0 float64) {
	type mark struct {
		x    float64
		text string
	}
	var marks []mark
	left, right := math.MaxFloat64, -math.MaxFloat64
	for _, l := range lines {
		left, right = min(left, l.points[0].x), max(right, l.points[len(l.points)-1].x)
	}
	switch {
	case c.names != nil:
		for i, name := range c.names {
			marks = append(marks, mark{float64(i), name})
		}
	case c.percent:
		for p, text := range map[float64]string{0: "0", 50: "50", 90: "90", 99: "99", 99.9: "99.9", 99.99: "99.99",
			99.999: "99.999"} {
			marks = append(marks, mark{nines(p), text})
		}
	case c.logX: // what was measured
		for _, l := range lines {
			for _, p := range l.points {
				marks = append(marks, mark{p.x, si(math.Pow(10, p.x), "")})
			}
		}
	default:
		xs, format := ticks(right, "")
		for _, x := range xs {
			marks = append(marks, mark{x, format(x)})
		}
	}
	slices.SortFunc(marks, func(a, b mark) int { return cmp.Compare(a.x, b.x) })
	end := -math.MaxFloat64
	for _, m := range marks {
		half := glyph * float64(len([]rune(m.text))) / 2
		if m.x < left-1e-9 || m.x > right+1e-9 || at(m.x)-half < end+4 {
			continue
		}
		end = at(m.x) + half
		fmt.Fprintf(b, `<path class="rule" d="M%.1f %.1fv4"/><text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`,
			at(m.x), y0, at(m.x), y0+15, html.EscapeString(m.text))
	}
}

// ticks returns round values from 0 to high or a little more, and how to write them: all with the same prefix.
func ticks(high float64, unit string) (values []float64, format func(float64) string) {
	if !(high > 0) {
		high = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(high/4)))
	for _, times := range []float64{1, 2, 5, 10} {
		if 6*step*times >= high {
			step *= times
			break
		}
	}
	n := max(1, int(math.Ceil(high/step-1e-9)))
	for i := range n + 1 {
		values = append(values, float64(i)*step)
	}
	scale, prefix := prefixOf(values[n], unit)
	return values, func(v float64) string {
		if v == 0 {
			return "0"
		}
		return written(v/scale, prefix, unit)
	}
}

var prefixes = []struct {
	scale float64
	name  string
}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}, {1e-3, "m"}, {1e-6, "µ"}, {1e-9, "n"}}

// prefixOf returns the SI prefix for a value. Seconds have no large ones, and others no small ones.
func prefixOf(v float64, unit string) (scale float64, name string) {
	for _, p := range prefixes {
		if unit == "s" && p.scale > 1 || unit != "s" && p.scale < 1 {
			continue
		}
		if scale, name = p.scale, p.name; v >= p.scale*0.9999 {
			break
		}
	}
	if unit != "s" && v < 1 {
		return 1, ""
	}
	return scale, name
}

// si writes a value shortly: 1k, 2.5M, 120 µs, 4 kB.
func si(v float64, unit string) string {
	scale, prefix := prefixOf(v, unit)
	return written(v/scale, prefix, unit)
}

func written(v float64, prefix, unit string) string {
	text := strconv.FormatFloat(v, 'g', 3, 64)
	if strings.Contains(text, "e") {
		text = strconv.FormatFloat(v, 'f', 0, 64)
	}
	if unit == "" {
		return text + prefix
	}
	return text + " " + prefix + unit
}
