package main

import "fmt"

// aim is a figure that gpoll is to reach in a cell, held against another system's or absolute.
type aim struct {
	what   string
	cell   string
	figure string // of report.figures
	system string
	over   string // "best": the best peer; empty: limit is absolute
	limit  float64
	more   bool // at least limit, not at most
}

func aims() (list []aim) {
	const rate, p99, paced, idle, afterGC = "saturated, deliveries/s", "saturated, p99 ms", "paced, CPU µs", "idle, KB",
		"idle after GC, KB"
	const later = "idle after messages and GC, KB"
	for _, k := range []kind{webSocket, events} {
		for _, n := range []string{"-1000", "-10000"} {
			c := string(k) + n
			list = append(list,
				aim{"deliveries/s × the batching loop", c, rate, "gpoll", "batch", 0.9, true},
				aim{"deliveries/s × the best peer", c, rate, "gpoll", "best", 1, true})
			if n == "-1000" {
				list = append(list, aim{"p99 × the bare loop", c, p99, "gpoll", "bare", 1.2, false})
			}
			list = append(list, aim{"paced CPU × the bare loop", c, paced, "gpoll", "bare", 1.1, false})
		}
		c := string(k) + "-10000"
		list = append(list,
			aim{"idle connection, KB", c, idle, "gpoll", "", 7.7, false},
			aim{"idle connection after GC, KB", c, afterGC, "gpoll", "", 6.2, false})
	}
	list = append(list,
		aim{fmt.Sprintf("deliveries/s × centrifuge, %d publishers posting", publishers), "ws-1000", postedRate, "gpoll",
			"centrifuge", 1.15, true},
		aim{fmt.Sprintf("p99 × centrifuge, %d publishers posting", publishers), "ws-1000", postedP99, "gpoll",
			"centrifuge", 1, false})
	list = append(list, aim{fmt.Sprintf("Send's p99 with %d that never read × without them", silentClients), "ws-10000",
		silentRatio, "gpoll", "", 1.2, false})
	for _, c := range []string{"lp-1000", "lp-5000"} {
		list = append(list,
			aim{"deliveries/s × a plain handler with the same answers", c, rate, "gpoll", "net/http-same", 0.97, true},
			aim{"deliveries/s × the plain handler", c, rate, "gpoll", "net/http", 0.92, true},
			aim{"paced CPU × the plain handler", c, paced, "gpoll", "net/http", 1.05, false},
			aim{"parked poll after messages × the plain handler's", c, later, "gpoll", "net/http", 1, false},
			aim{"parked poll on Listener after messages, KB", c, later, "gpoll-listener", "", 8, false},
			aim{"on Listener: deliveries/s × Nchan", c, rate, "gpoll-listener", "nchan", 1.35, true},
			aim{"on Listener, JSON polls: deliveries/s × the best peer", c, rate, "gpoll-listener-v1", "best", 1.25, true},
			aim{"on Listener: paced CPU × Nchan", c, paced, "gpoll-listener", "nchan", 1, false})
	}
	return append(list, upstreamAims()...)
}

// aimRows returns cell, what, asked, reached and whether that is enough, for each aim that was measured.
func (r *report) aimRows() (rows [][]string) {
	for _, a := range aims() {
		for _, c := range r.cells {
			for _, f := range r.figures() {
				if c.String() != a.cell || f.name != a.figure || !f.belongs(c) {
					continue
				}
				m, _, ok := r.value(c, a.system, f)
				if !ok || m == 0 {
					if err := r.errs[a.cell][a.system]; err != nil {
						asked, _ := judge(0, a.limit, a.more)
						rows = append(rows, []string{a.cell, a.what, asked, "–", err.Error()})
					}
					continue
				}
				over := a.over
				if over == "best" {
					over = r.best(c, f)
				}
				if a.over != "" {
					o, _, ok := r.value(c, over, f)
					if !ok || o == 0 {
						continue
					}
					m /= o
				}
				what := a.what
				if a.over == "best" {
					what += fmt.Sprintf(" (%s)", over)
				}
				asked, verdict := judge(m, a.limit, a.more)
				rows = append(rows, []string{a.cell, what, asked, fmt.Sprintf("%.2f", m), verdict})
			}
		}
	}
	return rows
}
