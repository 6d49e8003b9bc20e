package client

import "github.com/coder/websocket"

// inHello: a JavaScript engine dials WebSockets in its own way, without a header.
const inHello = true

func (c *Client) dialOptions(wish, func()) *websocket.DialOptions {
	return &websocket.DialOptions{Subprotocols: []string{subprotocol}}
}
