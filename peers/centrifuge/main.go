// Command centrifuge measures github.com/centrifugal/centrifuge with its default settings. The server subscribes every
// client to one channel, over WebSocket and its JSON protocol.
package main

import (
	"context"
	"net"
	"net/http"

	"github.com/centrifugal/centrifuge"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
	"github.com/corvuscrypto/gpoll/peers/internal/web"
)

const channel = "bench"

func main() {
	serve.Main(serve.Peer{Start: start})
}

func start(ln net.Listener) (func([]byte) error, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{},
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel: {}},
		}, nil
	})
	node.OnConnect(func(*centrifuge.Client) {})
	if err := node.Run(); err != nil {
		return nil, err
	}
	ws := centrifuge.NewWebsocketHandler(node,
		centrifuge.WebsocketConfig{CheckOrigin: func(*http.Request) bool { return true }})
	web.Serve(ln, "/ws", ws)
	return func(p []byte) error {
		data := append(append(append(make([]byte, 0, len(p)+2), '"'), p...), '"')
		_, err := node.Publish(channel, data)
		return err
	}, nil
}
