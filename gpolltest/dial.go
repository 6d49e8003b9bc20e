//go:build !js

package gpolltest

import "github.com/coder/websocket"

func (s *Session) dialOptions(protocol []string) *websocket.DialOptions {
	return &websocket.DialOptions{HTTPClient: s.httpClient(), HTTPHeader: s.Header, Subprotocols: protocol}
}
