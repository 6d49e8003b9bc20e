//go:build unix

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/needs"
)

// The report is looked at in Chromium, in light and dark and at two widths: see report.mjs beside the browser test of
// cmd/gpoll, whose playwright-core it uses.
func TestReportInChromium(t *testing.T) {
	if testing.Short() {
		t.Skip("the browser takes some seconds: run without -short")
	}
	node, browser, modules := needs.Playwright(t, filepath.Join("..", ".."), "a report")
	p := newPage("gpollbench load -rate 1,2 -o "+filepath.Join("a", "rather", "long", "path", "of", "a", "file.html")+
		" http://a-host-with-a-rather-long-name.example:8080/and/a/path/that/has/no/blank/in/it", thisMachine())
	f := &loadFinding{Server: "http://127.0.0.1:8080/poll", Transport: "websocket", Clients: 50, Size: 128}
	for i, rate := range []float64{50, 200, 800} {
		s := loadStep{Rate: rate, Reached: rate, Deliveries: 1e6, P50: 1, P90: 2, P99: 3, P999: 4, Max: 5, CPU: 10, RSS: 1e7}
		for _, percent := range []float64{0, 50, 90, 99, 99.9, 99.99, 100} {
			s.Percentile = append(s.Percentile, quantile{percent, percent * float64(i+1) / 20})
		}
		f.Steps = append(f.Steps, s)
	}
	f.Page(p)
	file, err := filepath.Abs(filepath.Join(t.TempDir(), "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.write(file); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "report.mjs", browser, file)
	cmd.Dir = filepath.Dir(modules)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // Playwright ends its browser
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("node report.mjs: %v\n%s", err, out)
	}
}
