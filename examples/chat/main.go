// Chat is a room with two doors: a page, and a terminal.
//
//	go run ./examples/chat                                          # the room, at http://127.0.0.1:8081
//	go run ./examples/chat -join http://127.0.0.1:8081 -name Ann    # a terminal in it
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/corvuscrypto/gpoll/examples/internal/site"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8081", "where the room listens")
	join := flag.String("join", "", "the address of a room, to join it in this terminal")
	name := flag.String("name", os.Getenv("USER"), "your name in the room")
	flag.Parse()
	site.Run("chat", func(ctx context.Context) error {
		switch {
		case flag.NArg() > 0:
			return fmt.Errorf("%q is too much; -join takes the address, -name your name", flag.Arg(0))
		case *join != "":
			return terminal(ctx, os.Stdin, os.Stdout, *join, *name)
		}
		return serve(ctx, *addr)
	})
}

// serve opens a room until ctx ends.
func serve(ctx context.Context, addr string) error {
	r := newRoom()
	return site.Serve(ctx, "the room is open", addr, r.gpoll, r.handler())
}
