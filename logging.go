package gpoll

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// logger returns Logger, or slog's default one for warnings and errors.
func (b *Broadcaster) logger() *slog.Logger {
	if b.Logger == nil {
		return slog.New(logHandler{warnings{slog.Default().Handler()}, b})
	}
	return slog.New(logHandler{b.Logger.Handler(), b})
}

// A warnings handler takes warnings and errors.
type warnings struct{ slog.Handler }

func (h warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}
func (h warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{h.Handler.WithAttrs(attrs)}
}
func (h warnings) WithGroup(name string) slog.Handler { return warnings{h.Handler.WithGroup(name)} }

// A refusalLog lets a reason be logged once in a minute.
type refusalLog struct {
	mu sync.Mutex
	by map[string]*refusalCount // by code, of which there are few; "" is for a Broadcaster that cannot serve
}

type refusalCount struct {
	next    moment // from when on it is logged again
	leftOut int    // since it was
}

const refusalPause = moment(time.Minute)

// due reports whether a reason is to be logged, and how often it was left out before.
func (l *refusalLog) due(code string, now moment) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.by[code]
	if c == nil {
		if l.by == nil {
			l.by = map[string]*refusalCount{}
		}
		c = &refusalCount{}
		l.by[code] = c
	}
	if now < c.next {
		c.leftOut++
		return 0, false
	}
	leftOut, c.leftOut = c.leftOut, 0
	c.next = now + refusalPause
	return leftOut, true
}

// noteRefusal counts a refusal, and tells the operator of it as logRefusal does.
func (b *Broadcaster) noteRefusal(why *refusal, r *http.Request) {
	b.counts.refused.add(why.code)
	b.logRefusal(why, r)
}

// logRefusal tells the operator why a client is refused. r is nil for a command and for an open attach; then the caller
// may hold a lock.
func (b *Broadcaster) logRefusal(why *refusal, r *http.Request) {
	switch why.code {
	case "unknown-client", "superseded", "removed", "expired", "shutdown", "slow", "timeout", "buffer-full":
		return // the life of clients: Stats counts them
	}
	if !b.log.Enabled(context.Background(), slog.LevelWarn) {
		return
	}
	leftOut, ok := b.refusals.due(why.code, b.now())
	if !ok {
		return
	}
	attrs := []any{"code", why.code, "told", why.message}
	if why.cause != nil {
		attrs = append(attrs, "err", why.cause)
	}
	if r != nil {
		attrs = append(attrs, "method", clip(r.Method, 20), "path", clip(r.URL.Path, 200), "host", clip(r.Host, 200))
		if origin := first(r.Header, "Origin"); origin != "" {
			attrs = append(attrs, "origin", clip(origin, 200))
		}
	}
	if leftOut > 0 {
		attrs = append(attrs, "left out", leftOut)
	}
	if r == nil {
		b.note(slog.LevelWarn, "gpoll: refused", attrs...)
		return
	}
	b.log.Warn("gpoll: refused", attrs...)
}
