//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/load/serve"
)

// serveCommand is how the program starts itself as the server that tune measures.
const serveCommand = "serve-for-tune"

// serveMain is that server.
func serveMain(args []string) int {
	var s sizes
	return serve.Run(serve.Peer{
		Flags: s.add,
		Start: func(ln net.Listener) (func([]byte) error, error) {
			b := s.broadcaster()
			b.RegisterRate = -1 // all clients come within a second, on purpose
			mux := http.NewServeMux()
			b.ListenAndBroadcast("/poll", mux)
			go func() { _ = (&http.Server{Handler: mux}).Serve(ln) }() // ends with the process
			return func(p []byte) error {
				_, err := b.Publish(context.Background(), gpoll.Message{Data: p})
				return err
			}, nil
		},
	}, serveCommand, args)
}

// startServer starts it with some sizes. It is killed when ctx ends.
func (n *need) startServer(ctx context.Context, s sizes) (*serve.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append([]string{serveCommand, "-size", strconv.Itoa(n.Size), "-run", strconv.Itoa(tuneRun), "-addr",
		n.addr}, s.args()...)
	p, err := serve.Start(exec.CommandContext(ctx, self, args...), -1, 0)
	if err != nil && strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
		return nil, fmt.Errorf("the address %s is taken by another program; choose another one with -addr, or "+
			"leave it out", n.addr)
	}
	return p, err
}
