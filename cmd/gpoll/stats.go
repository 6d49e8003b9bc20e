package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// figures is what GET /stats answers.
type figures struct {
	Clients   int               `json:"clients"`
	Attached  map[string]int    `json:"attached"`
	Routines  int               `json:"routines"`
	Epoch     string            `json:"epoch"`
	Window    window            `json:"window"`
	Published uint64            `json:"published"`
	Delivered uint64            `json:"delivered"`
	Dropped   map[string]uint64 `json:"dropped"`
	Refused   map[string]uint64 `json:"refused"`
	Gaps      map[string]uint64 `json:"gaps"`
	Fallbacks map[string]uint64 `json:"fallbacks"`
}

// window is the part of the log that can be replayed.
type window struct {
	Low      uint64 `json:"low"`
	High     uint64 `json:"high"`
	Messages int    `json:"messages"`
	Bytes    int    `json:"bytes"`
}

func figuresOf(s gpoll.Stats) figures {
	return figures{
		Clients: s.Clients, Attached: s.Attached, Routines: s.Routines, Epoch: s.Epoch,
		Window:    window{s.WindowLow, s.WindowHigh, s.WindowMessages, s.WindowBytes},
		Published: s.Published, Delivered: s.Delivered, Dropped: s.Dropped, Refused: s.Refused, Gaps: s.Gaps,
		Fallbacks: s.Fallbacks,
	}
}

// serveStats answers GET /stats. Where publishing needs the token, so do the figures.
func (s *site) serveStats(w http.ResponseWriter, r *http.Request, b *gpoll.Broadcaster) {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "method", "use GET")
	case !s.authorized(r):
		refuseToken(w)
	default:
		answer(w, http.StatusOK, figuresOf(b.Stats()))
	}
}

// logStats logs a line of figures every interval until ctx ends.
func logStats(ctx context.Context, b *gpoll.Broadcaster, interval time.Duration, logger *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var before gpoll.Stats
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s := b.Stats()
		perSecond := func(now, before uint64) uint64 { return uint64(float64(now-before)/interval.Seconds() + 0.5) }
		logger.Info("stats",
			"clients", s.Clients,
			"long-poll", s.Attached["long-poll"], "sse", s.Attached["sse"], "websocket", s.Attached["websocket"],
			"routines", s.Routines,
			"published/s", perSecond(s.Published, before.Published), "delivered/s", perSecond(s.Delivered, before.Delivered),
			"window messages", s.WindowMessages, "window bytes", s.WindowBytes,
			"dropped", sum(s.Dropped), "refused", sum(s.Refused), "gaps", sum(s.Gaps))
		before = s
	}
}

func sum(counts map[string]uint64) (total uint64) {
	for _, n := range counts {
		total += n
	}
	return total
}
