package main

import (
	"bytes"
	_ "embed"
	"html/template"
	"os"
)

// page is a report: one HTML file whose plots are SVG within it.
type page struct {
	Title   string
	Command string
	Machine machine
	Style   template.CSS
	Parts   []part
}

// part is one of a heading, a paragraph, code, a table or plots beside each other.
type part struct {
	Heading   string
	Paragraph string
	Code      string
	Head      []string
	Rows      [][]string
	Plots     []figure
}

type figure struct {
	Title, About string
	SVG          template.HTML
}

func newPage(command string, m machine) *page {
	return &page{Title: "gpollbench", Command: command, Machine: m, Style: template.CSS(chartStyle)}
}

func (p *page) title(s string)     { p.Title = s }
func (p *page) heading(s string)   { p.Parts = append(p.Parts, part{Heading: s}) }
func (p *page) paragraph(s string) { p.Parts = append(p.Parts, part{Paragraph: s}) }
func (p *page) code(s string)      { p.Parts = append(p.Parts, part{Code: s}) }
func (p *page) table(head []string, rows [][]string) {
	p.Parts = append(p.Parts, part{Head: head, Rows: rows})
}

// plot draws a chart beside the one before it. A chart without a point is left out.
func (p *page) plot(c chart) {
	svg := c.svg()
	if svg == "" {
		return
	}
	if len(p.Parts) == 0 || p.Parts[len(p.Parts)-1].Plots == nil {
		p.Parts = append(p.Parts, part{})
	}
	last := &p.Parts[len(p.Parts)-1]
	last.Plots = append(last.Plots, figure{c.title, c.y, template.HTML(svg)}) // what it contains is escaped
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("report").Parse(pageText))

func (p *page) write(name string) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}
