package main

import (
	"bytes"
	"html/template"
	"math"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// page is a report: one HTML file whose plots are SVG within it.
type page struct {
	Title   string
	Machine machine
	Parts   []part
	err     error // of the first plot that failed
}

// part is one of a heading, a paragraph, code, a table or a plot.
type part struct {
	Heading   string
	Paragraph string
	Code      string
	Head      []string
	Rows      [][]string
	Plot      template.HTML
}

func newPage(title string, m machine) *page { return &page{Title: title, Machine: m} }

func (p *page) heading(s string)   { p.Parts = append(p.Parts, part{Heading: s}) }
func (p *page) paragraph(s string) { p.Parts = append(p.Parts, part{Paragraph: s}) }
func (p *page) code(s string)      { p.Parts = append(p.Parts, part{Code: s}) }
func (p *page) table(head []string, rows [][]string) {
	p.Parts = append(p.Parts, part{Head: head, Rows: rows})
}

type point struct{ x, y float64 }

type line struct {
	name   string
	points []point
}

type chart struct {
	title, x, y string
	lines       []line
	logX        bool
	names       []string // of the places on the x axis 0, 1, 2, …; nil: numbers
}

// plot draws a chart. A chart without a point is left out.
func (p *page) plot(c chart) {
	svg, err := c.draw()
	if err != nil {
		if p.err == nil {
			p.err = err
		}
		return
	}
	if svg != "" {
		p.Parts = append(p.Parts, part{Plot: svg})
	}
}

// draw returns the chart as SVG for HTML, "" when it has no point.
func (c chart) draw() (template.HTML, error) {
	svg, err := drawSVG([]chart{c})
	if i := bytes.Index(svg, []byte("<svg")); i > 0 {
		svg = svg[i:] // without the XML declaration, which has no place inside HTML
	}
	return template.HTML(svg), err
}

// drawSVG returns charts below each other as one SVG file, nil when none of them has a point.
func drawSVG(charts []chart) ([]byte, error) {
	var plots []*plot.Plot
	for _, c := range charts {
		pl, err := c.plot()
		if err != nil {
			return nil, err
		}
		if pl != nil {
			plots = append(plots, pl)
		}
	}
	if plots == nil {
		return nil, nil
	}
	const width, height = 18 * vg.Centimeter, 9 * vg.Centimeter
	const margin = vg.Centimeter / 2 // or the last number of the x axis is cut off
	canvas := vgsvg.New(width, height*vg.Length(len(plots)))
	for i, pl := range plots {
		above := vg.Length(len(plots)-1-i) * height
		pl.Draw(draw.Crop(draw.New(canvas), 0, -margin, above, above+height-height*vg.Length(len(plots))))
	}
	var b bytes.Buffer
	_, err := canvas.WriteTo(&b)
	return b.Bytes(), err
}

// plot returns nil for a chart without a point.
func (c chart) plot() (*plot.Plot, error) {
	pl := plot.New()
	pl.Title.Text, pl.X.Label.Text, pl.Y.Label.Text = c.title, c.x, c.y
	pl.Add(plotter.NewGrid())
	drawn := 0
	for i, l := range c.lines {
		var xys plotter.XYs
		for _, q := range l.points {
			if !math.IsNaN(q.y) && !math.IsInf(q.y, 0) && (!c.logX || q.x > 0) {
				xys = append(xys, plotter.XY{X: q.x, Y: q.y})
			}
		}
		if len(xys) == 0 {
			continue
		}
		drawn++
		slices.SortStableFunc(xys, func(a, b plotter.XY) int { return int(math.Copysign(1, a.X-b.X)) })
		curve, dots, err := plotter.NewLinePoints(xys)
		if err != nil {
			return nil, err
		}
		curve.Color, dots.Color = plotutil.Color(i), plotutil.Color(i)
		curve.Width = vg.Points(1.5)
		dots.Shape, dots.Radius = draw.CircleGlyph{}, vg.Points(2)
		if len(xys) > 50 {
			pl.Add(curve)
		} else {
			pl.Add(curve, dots)
		}
		if len(c.lines) > 1 {
			pl.Legend.Add(l.name, curve)
		}
	}
	if drawn == 0 {
		return nil, nil
	}
	pl.Legend.Top, pl.Legend.Left = true, true
	if c.names != nil {
		pl.NominalX(c.names...)
	} else if c.logX {
		pl.X.Scale, pl.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	pl.Y.Min, pl.Y.Max = math.Min(0, pl.Y.Min), pl.Y.Max*1.1 // with room above for a number on the axis
	if pl.Y.Max <= pl.Y.Min {
		pl.Y.Max = pl.Y.Min + 1
	}
	if pl.X.Max <= pl.X.Min {
		pl.X.Max = pl.X.Min + 1
	}
	return pl, nil
}

var pageTemplate = template.Must(template.New("report").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Title}}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: .85rem; margin: 1rem 0; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
td, th { padding: .2rem .5rem; border-bottom: 1px solid #ccc; text-align: right; }
td:first-child, th:first-child { text-align: left; }
pre { background: #f4f4f4; padding: 1rem; overflow: auto; }
svg { max-width: 100%; height: auto; background: white; }
</style>
<h1>{{.Title}}</h1>
<p>{{.Machine}}</p>
{{range .Parts}}
{{- with .Heading}}<h2>{{.}}</h2>
{{end}}{{with .Paragraph}}<p>{{.}}</p>
{{end}}{{with .Code}}<pre>{{.}}</pre>
{{end}}{{if .Head}}<div class="wide"><table><tr>{{range .Head}}<th>{{.}}</th>{{end}}</tr>
{{range .Rows}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>
{{end}}</table></div>
{{end}}{{with .Plot}}<figure>{{.}}</figure>
{{end}}{{end}}</html>
`))

func (p *page) write(name string) error {
	if p.err != nil {
		return p.err
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}
