package main

import (
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// bar shows how far a measurement is, where somebody can see it.
type bar struct{ *progressbar.ProgressBar }

func newBar(out *output, steps int, what string) bar {
	f, ok := out.stderr.(*os.File)
	visible := ok && term.IsTerminal(int(f.Fd()))
	return bar{progressbar.NewOptions(steps,
		progressbar.OptionSetWriter(out.stderr),
		progressbar.OptionSetVisibility(visible),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(50*time.Millisecond),
		progressbar.OptionClearOnFinish())}
}

// A bar that cannot be drawn is no reason to stop measuring: its errors are of no interest.

func (b bar) step()        { _ = b.Add(1) }
func (b bar) at(n int)     { _ = b.Set(n) }
func (b bar) say(s string) { b.Describe(s) }
func (b bar) end()         { _ = b.Finish() }
