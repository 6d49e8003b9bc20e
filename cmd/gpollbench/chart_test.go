package main

import (
	"encoding/xml"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestSI(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "", "0"}, {0.5, "", "0.5"}, {250, "", "250"}, {1000, "", "1k"}, {2_000_000, "", "2M"}, {12_345, "", "12.3k"},
		{3e9, "", "3G"}, {0.00012, "s", "120 µs"}, {0.0015, "s", "1.5 ms"}, {2, "s", "2 s"}, {90, "s", "90 s"},
		{63e-9, "s", "63 ns"}, {4096, "B", "4.1 kB"}, {100, "B", "100 B"}, {1234, "s", "1234 s"},
	} {
		if got := si(tt.v, tt.unit); got != tt.want {
			t.Errorf("%v %s is %q, want %q", tt.v, tt.unit, got, tt.want)
		}
	}
}

// Ticks are round, few, of one prefix, and reach the highest value.
func TestTicks(t *testing.T) {
	for _, tt := range []struct {
		high float64
		unit string
		want string
	}{
		{0.102, "s", "0, 20 ms, 40 ms, 60 ms, 80 ms, 100 ms, 120 ms"},
		{1.03, "s", "0, 0.2 s, 0.4 s, 0.6 s, 0.8 s, 1 s, 1.2 s"},
		{3.9e6, "", "0, 1M, 2M, 3M, 4M"}, {0, "s", "0, 0.2 s, 0.4 s, 0.6 s, 0.8 s, 1 s"},
		{33_000, "B", "0, 10 kB, 20 kB, 30 kB, 40 kB"},
	} {
		values, format := ticks(tt.high, tt.unit)
		var got []string
		for _, v := range values {
			got = append(got, format(v))
		}
		if s := strings.Join(got, ", "); s != tt.want || values[len(values)-1] < tt.high {
			t.Errorf("up to %v %s: %s", tt.high, tt.unit, s)
		}
	}
	for high := 1e-9; high < 1e9; high *= 1.37 {
		if values, _ := ticks(high, ""); len(values) < 3 || len(values) > 8 || values[len(values)-1] < high {
			t.Errorf("up to %v: %v", high, values)
		}
	}
}

// The names of lines stand in the chart, apart from each other, and each percentile has its place.
func TestChartLabels(t *testing.T) {
	c := chart{title: "a < b", x: "percent", unit: "s", percent: true}
	for _, name := range []string{"50/s", "200/s", "800/s", "<&>"} {
		c.lines = append(c.lines, line{name, []point{{0, 1}, {50, 1}, {90, 2}, {99, 3}, {99.9, 3.001}, {100, 4}}})
	}
	svg := c.svg()
	var at []float64
	for _, m := range regexp.MustCompile(`class="label" x="[0-9.]+" y="([0-9.]+)"`).FindAllStringSubmatch(svg, -1) {
		y, _ := strconv.ParseFloat(m[1], 64)
		at = append(at, y)
	}
	slices.Sort(at)
	for i := 1; i < len(at); i++ {
		if at[i]-at[i-1] < fontSize {
			t.Errorf("names at %v overlap", at)
		}
	}
	if len(at) != 4 {
		t.Errorf("%d names of 4 lines", len(at))
	}
	for _, want := range []string{">0<", ">50<", ">90<", ">99<", ">99.9<", "&lt;&amp;&gt;", "a &lt; b"} {
		if !strings.Contains(svg, want) {
			t.Errorf("the chart lacks %s", want)
		}
	}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if (chart{lines: []line{{"", []point{{1, math.NaN()}}}}}).svg() != "" || drawSVG(nil) != nil {
		t.Error("a chart without a point is drawn")
	}
}
