//go:build !js

package client

import (
	"context"

	"github.com/coder/websocket"
)

// inHello says whether the token goes into the hello, because the handshake cannot have a header.
const inHello = false

func (c *Client) dialOptions(w wish, alive func()) *websocket.DialOptions {
	return &websocket.DialOptions{
		HTTPClient:   c.http,
		HTTPHeader:   c.header(w),
		Subprotocols: []string{subprotocol},
		OnPingReceived: func(context.Context, []byte) bool {
			alive()
			return true
		},
	}
}
