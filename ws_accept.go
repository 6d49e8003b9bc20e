//go:build !js

package gpoll

import "github.com/coder/websocket"

// servesWebSocket says that coder/websocket is a server here.
const servesWebSocket = true

// notePongs has coder/websocket call ponged for each pong.
func (s *session) notePongs(o *websocket.AcceptOptions) { o.OnPongReceived = s.ponged }
