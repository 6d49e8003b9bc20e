package gpoll

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// The application's functions may call every method of the Broadcaster. They run without a lock. Where a method waits
// for the goroutine that runs such a function, it finds itself on that goroutine's stack, and does not wait for it.

var (
	errInFollow = errors.New("gpoll: the Broker's Window or Subscribe, or Logger's handler meanwhile, calls the " +
		"Broadcaster that waits for it; call it when Subscribe has returned")
	errInShutdown = errors.New("gpoll: the Broker calls Shutdown while Shutdown closes it; return, and Shutdown goes on")
)

// ownGoroutine reports whether the caller of its caller is one of the application's functions that runs on a goroutine
// of this Broadcaster, or for which one waits: OnClose waits for the function that hears its client.
func (b *Broadcaster) ownGoroutine() (own, member bool) {
	if b.calling.Load() == 0 {
		return false, false
	}
	member = within(inGroup)
	return member || within(inHear), member
}

// A logHandler is Logger's handler, which may call the Broadcaster, and may panic. What gpoll has to log on the
// goroutine of a call meanwhile is dropped: it would be called by itself again and again.
type logHandler struct {
	slog.Handler
	b *Broadcaster
}

// Handle implements slog.Handler.
func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.b.calling.Load() > 0 && within(inLogger) {
		return nil
	}
	h.b.calling.Add(1)
	defer h.b.calling.Add(-1)
	defer func() { _ = recover() }() // there is nobody to tell it
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs), h.b}
}

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.Handler.WithGroup(name), h.b}
}

// notes are what is logged, in its order, by a goroutine of its own.
type notes struct {
	mu      sync.Mutex // guards the fields below
	waiting []func()
	runs    bool
}

// note logs from a goroutine that others wait for, or that may hold a lock of a Broker.
func (b *Broadcaster) note(level slog.Level, msg string, attrs ...any) {
	b.notes.mu.Lock()
	defer b.notes.mu.Unlock()
	b.notes.waiting = append(b.notes.waiting, func() { b.log.Log(context.Background(), level, msg, attrs...) })
	if !b.notes.runs {
		b.notes.runs = true
		b.spawn(b.logNotes) // ends when everything is logged
	}
}

func (b *Broadcaster) logNotes() {
	for {
		b.notes.mu.Lock()
		if len(b.notes.waiting) == 0 {
			b.notes.runs = false
			b.notes.mu.Unlock()
			return
		}
		next := b.notes.waiting[0]
		b.notes.waiting = b.notes.waiting[1:]
		b.notes.mu.Unlock()
		next()
	}
}
