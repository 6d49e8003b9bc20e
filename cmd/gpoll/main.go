// Gpoll is a stand-alone server that broadcasts messages to every browser and program that listens, by long-poll, by
// Server-Sent Events or by WebSocket. It has a page to watch the messages and to send some.
//
//	go run ./cmd/gpoll                                  # http://127.0.0.1:8080/
//	tail -F access.log | gpoll -stdin                   # a log, live in every browser
//	curl -d 'hello' 'http://127.0.0.1:8080/send'        # broadcasts "hello"
//
// "gpoll -h" lists the flags. If a flag is wrong, or the address cannot be had, the program says so in one sentence and
// ends with exit code 2. After SIGINT or SIGTERM it drains the clients and ends with 0.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/corvuscrypto/gpoll"
)

// Exit codes.
const (
	exitOK     = 0
	exitServe  = 1 // it served, and then something failed
	exitConfig = 2 // it never served: a flag, the address or the certificate is wrong
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program: it serves until a signal comes or serving fails, and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	set, err := parseSettings(args, os.Getenv)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printHelp(stdout)
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "gpoll: %v; see gpoll -h\n", err)
		return exitConfig
	case set.version:
		fmt.Fprintln(stdout, versionLine())
		return exitOK
	}
	logger := set.logger(stderr)

	b := set.broadcaster(logger)
	site, ln, err := open(set, b)
	if err != nil {
		fmt.Fprintf(stderr, "gpoll: %v\n", err)
		return exitConfig
	}

	// Two places: the second signal must not be lost while the first one is being handled.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)

	srv := newHTTPServer(site, logger)
	served := make(chan error, 1)
	go func() { served <- serve(srv, ln) }() // ends when srv is shut down or closed, below

	if set.quiet {
		logger.Info("listening", "url", site.baseURL)
	} else {
		printBanner(stdout, set, site)
	}

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if set.stats > 0 {
		go logStats(ctx, b, set.stats, logger) // ends with ctx
	}
	if set.stdin {
		// Nothing can interrupt a read of a terminal or a pipe: it ends with its input, or with the process.
		go broadcastInput(ctx, b, set, stdin, stderr, logger)
	}

	select {
	case err := <-served:
		fmt.Fprintf(stderr, "gpoll: serving failed: %v\n", err)
		return exitServe
	case s := <-signals:
		logger.Info("draining; a second signal ends at once", "signal", s.String(), "at most", set.drain)
	}
	go func() { // ends with the process
		s := <-signals
		code := 1
		if n, ok := s.(syscall.Signal); ok {
			code = 128 + int(n)
		}
		os.Exit(code)
	}()
	return drain(b, srv, set.drain, logger)
}

// open makes everything that can fail before the first request: the site and its listener.
func open(set *settings, b *gpoll.Broadcaster) (*site, net.Listener, error) {
	cert, err := set.certificate()
	if err != nil {
		return nil, nil, err
	}
	ln, err := listen(set.addr)
	if err != nil {
		return nil, nil, err
	}
	site, err := newSite(set, b, ln.Addr(), cert)
	if err != nil {
		ln.Close()
		return nil, nil, err
	}
	return site, ln, nil
}
