// Command gpoll measures gpoll through its public interface, in an ordinary http.Server.
package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/load/serve"
)

func main() {
	b := gpoll.NewBroadcaster()
	b.RegisterRate = -1 // all clients come within a second, on purpose
	b.UpstreamRate = -1 // they say what they say back to back, on purpose
	b.PlainMessages = true
	var heard atomic.Uint64
	b.OnMessage = func(*gpoll.Client, gpoll.Message) { heard.Add(1) }
	b.OnRequest = func(_ *gpoll.Client, m gpoll.Message) ([]byte, error) { return m.Data, nil }
	var wrapped bool
	serve.Main(serve.Peer{
		Flags: func(f *flag.FlagSet) {
			f.BoolVar(&wrapped, "listener", false, "serve on Broadcaster.Listener")
			f.IntVar(&b.RoutineMaxClients, "routine-max-clients", b.RoutineMaxClients, "RoutineMaxClients")
			f.IntVar(&b.ClientBufferSize, "client-buffer-size", b.ClientBufferSize, "ClientBufferSize")
			f.IntVar(&b.RoutineBufferSize, "routine-buffer-size", b.RoutineBufferSize, "RoutineBufferSize")
			f.IntVar(&b.SyncDelayMs, "sync-delay-ms", b.SyncDelayMs, "SyncDelayMs")
		},
		Heard: heard.Load,
		Start: func(ln net.Listener) (func([]byte) error, error) { return start(b, ln, wrapped) },
	})
}

func start(b *gpoll.Broadcaster, ln net.Listener, wrapped bool) (func([]byte) error, error) {
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	if wrapped {
		w, ok := any(b).(interface {
			Listener(net.Listener) net.Listener
		})
		if !ok {
			return nil, errors.New("this gpoll has no Broadcaster.Listener")
		}
		ln = w.Listener(ln)
	}
	go func() { _ = (&http.Server{Handler: mux}).Serve(ln) }() // ends with the process
	return func(p []byte) error {
		_, err := b.Publish(context.Background(), gpoll.Message{Data: p})
		return err
	}, nil
}
