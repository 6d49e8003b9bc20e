package gpoll

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
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

// A quietLog lets what requests and messages cause be logged once in a minute. What somebody sends thousands of
// times a second may not fill the disk of the operator.
type quietLog struct {
	mu sync.Mutex
	by map[logKey]*logCount
}

// A logKey says what is the same to the operator. There are few of them, whatever clients send.
type logKey struct {
	level  slog.Level
	place  string // the code of a refusal, or the message
	status int    // of a refusal: one code may stand for several mistakes
	pc     uintptr
}

type logCount struct {
	next    moment // from when on it is logged again
	leftOut int    // since it was
}

const logPause = moment(time.Minute)

// due reports whether something is to be logged, and how often it was left out before.
func (l *quietLog) due(key logKey, now moment) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.by[key]
	if c == nil {
		if l.by == nil {
			l.by = map[logKey]*logCount{}
		}
		c = &logCount{}
		l.by[key] = c
	}
	if now < c.next {
		c.leftOut++
		return 0, false
	}
	leftOut, c.leftOut = c.leftOut, 0
	c.next = now + logPause
	return leftOut, true
}

// tell logs a message, which is a constant, once in a minute.
func (b *Broadcaster) tell(level slog.Level, message string, attrs ...any) {
	b.tellOf(logKey{level: level, place: message}, message, attrs)
}

func (b *Broadcaster) tellOf(key logKey, message string, attrs []any) {
	if attrs, due := b.due(key, attrs); due {
		b.log.Log(context.Background(), key.level, message, attrs...)
	}
}

// due reports whether something is to be logged now. It adds to attrs how often it was left out.
func (b *Broadcaster) due(key logKey, attrs []any) ([]any, bool) {
	if !b.log.Enabled(context.Background(), key.level) {
		return nil, false
	}
	leftOut, ok := b.quiet.due(key, b.now())
	if leftOut > 0 {
		attrs = append(attrs, "left out", leftOut)
	}
	return attrs, ok
}

// tellPanic logs a panic once in a minute for each line of code that panics. It is called by the deferred function that
// recovered it, or by what that function calls.
func (b *Broadcaster) tellPanic(where string, v any) {
	key := logKey{level: slog.LevelError, place: where, pc: panicked()}
	attrs, due := b.due(key, []any{"panic", v, "stack", string(debug.Stack())})
	if due { // others may wait for this goroutine
		b.note(key.level, "gpoll: a panic in "+where, attrs...)
	}
}

// panicked returns where the panic began whose deferred functions run; 0 if that is too deep.
func panicked() uintptr {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for found := false; ; {
		f, more := frames.Next()
		inRuntime := strings.HasPrefix(f.Function, "runtime.")
		if found && !inRuntime {
			return f.PC
		}
		found = found || f.Function == "runtime.gopanic"
		if !more {
			return 0
		}
	}
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
	leftOut, ok := b.quiet.due(logKey{level: slog.LevelWarn, place: why.code, status: why.status}, b.now())
	if !ok {
		return
	}
	attrs := []any{"code", why.code, "told", why.message}
	if why.cause != nil {
		attrs = append(attrs, "err", why.cause)
	}
	if r != nil {
		attrs = append(attrs, "method", clip(r.Method, 20), "path", clip(r.URL.Path, 200), "host", clip(r.Host, 200))
		if origin := r.Header.Get("Origin"); origin != "" {
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
