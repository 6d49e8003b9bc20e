//go:build linux

package explore

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A tally is the sum of a run of many schedules, printed as one line at its end.
type tally struct {
	Schedules, Points, Slept int
	Published, Delivered     int
	Gaps, Ends               map[string]int
	Seconds                  float64
}

const tallyMark = "tally "

// read adds what a run printed.
func (s *tally) read(out []byte) {
	for line := range bytes.Lines(out) {
		var more tally
		if text, ok := bytes.CutPrefix(line, []byte(tallyMark)); ok && json.Unmarshal(text, &more) == nil {
			s.add(&more)
		}
	}
}

func (s *tally) add(more *tally) {
	s.Schedules += more.Schedules
	s.Points += more.Points
	s.Slept += more.Slept
	s.Published += more.Published
	s.Delivered += more.Delivered
	s.Seconds += more.Seconds
	addCounts(&s.Gaps, more.Gaps)
	addCounts(&s.Ends, more.Ends)
}

func addCounts(to *map[string]int, more map[string]int) {
	if *to == nil {
		*to = map[string]int{}
	}
	for reason, n := range more {
		(*to)[reason] += n
	}
}

func (s tally) String() string {
	return fmt.Sprintf("%d points (%d slept at), %d messages published, %d delivered, gaps %v, ends %v, %.1f s",
		s.Points, s.Slept, s.Published, s.Delivered, s.Gaps, s.Ends, s.Seconds)
}
