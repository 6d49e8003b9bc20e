package gpoll

import "github.com/coder/websocket"

// servesWebSocket: in a JavaScript engine coder/websocket is a client alone. Long-poll and SSE work.
const servesWebSocket = false

func (s *session) notePongs(*websocket.AcceptOptions) {}
