package gpolltest

import "github.com/coder/websocket"

// dialOptions: a JavaScript engine dials WebSockets in its own way, without Header.
func (*Session) dialOptions(protocol []string) *websocket.DialOptions {
	return &websocket.DialOptions{Subprotocols: protocol}
}
