// Chat is a room with two doors: a page, and a terminal.
//
//	go run ./examples/chat                                          # the room, at http://127.0.0.1:8081
//	go run ./examples/chat -join http://127.0.0.1:8081 -name Ann    # a terminal in it
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/corvuscrypto/gpoll/examples/internal/site"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8081", "where the room listens")
	join := flag.String("join", "", "the address of a room, to join it in this terminal")
	name := flag.String("name", os.Getenv("USER"), "your name in the room")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case flag.NArg() > 0:
		err = fmt.Errorf("%q is too much; -join takes the address, -name your name", flag.Arg(0))
	case *join != "":
		err = terminal(ctx, os.Stdin, os.Stdout, *join, *name)
	default:
		err = serve(ctx, *addr)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// serve opens a room until ctx ends.
func serve(ctx context.Context, addr string) error {
	r := newRoom()
	return site.Serve(ctx, "the room is open", addr, r.gpoll, r.handler())
}
