// Package site runs an example, and serves it, until it is told to end.
package site

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// Run is what main does once it knows what was asked: it calls f, whose ctx ends at an interrupt, and says what went
// wrong in the name of the example.
func Run(name string, f func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// Serve serves h, in which b is mounted, at addr until ctx ends. It prints what it does, and where.
func Serve(ctx context.Context, what, addr string, b *gpoll.Broadcaster, h http.Handler) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }() // ends with srv.Shutdown
	fmt.Printf("%s: http://%s\n", what, ln.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return errors.Join(b.Shutdown(late), srv.Shutdown(late))
}
