package client

import (
	"fmt"
	"slices"
	"time"
)

// A Transport is a way to a server.
type Transport string

// The transports, the best first.
const (
	WebSocket Transport = "websocket" // subprotocol gpoll.v1
	SSE       Transport = "sse"       // Server-Sent Events
	LongPoll  Transport = "long-poll"
)

var allTransports = []Transport{WebSocket, SSE, LongPoll}

// A State is what a Client does at the moment.
type State string

const (
	Connecting State = "connecting" // it looks for a transport that works
	Connected  State = "connected"  // messages come by Status.Transport, or a poll waits for them
	Waiting    State = "waiting"    // Status.Err was in the way; it tries again after Status.Retry
	Closed     State = "closed"     // it does nothing any more, because of Status.Err
)

// A Status says how a Client is connected.
type Status struct {
	State     State
	Transport Transport // while Connected, else ""

	// Reasons say why the Client does not use the transports that are better than the one it uses, the best first. While
	// nothing works, they are why not.
	//
	//	ws_refused      something on the way answered the handshake, and not with a WebSocket
	//	ws_silent       the handshake or the first frame had no answer in time
	//	ws_died_young   WebSockets broke in the handshake or in their first 5 seconds, three times in a row
	//	sse_refused     something on the way answered, and not with events
	//	sse_buffered    no event came within 5 seconds: something on the way keeps them back
	//	sse_died_young  like ws_died_young
	//	poll_blocked    polls had no answer, or one that is not gpoll's
	//	unreachable     no connection to the server could be made
	//
	// A transport that failed is left alone for 10 minutes, and then tried again. The server counts the reasons
	// (gpoll.Stats.Fallbacks).
	Reasons []string

	Err   error         // what ended the last attach or attempt; nil after one that works
	Retry time.Duration // while Waiting
}

// String returns the Status in one line.
func (s Status) String() string {
	text := string(s.State)
	if s.Transport != "" {
		text += " by " + string(s.Transport)
	}
	if len(s.Reasons) > 0 {
		text += fmt.Sprint(" ", s.Reasons)
	}
	if s.Err != nil {
		text += ": " + s.Err.Error()
	}
	return text
}

// Status returns how the Client is connected now.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Reasons = slices.Clone(s.Reasons)
	return s
}

// tell makes s the Status, and calls OnStatus if that is a change.
func (c *Client) tell(s Status) {
	c.telling.Lock()
	defer c.telling.Unlock()
	c.tellLocked(s)
}

func (c *Client) tellLocked(s Status) {
	c.mu.Lock()
	same := s.State == c.status.State && s.Transport == c.status.Transport && s.Retry == c.status.Retry &&
		slices.Equal(s.Reasons, c.status.Reasons) && s.Err == nil && c.status.Err == nil
	c.status = s
	c.mu.Unlock()
	if same {
		return
	}
	c.log.Debug("gpoll client: "+string(s.State), "transport", s.Transport, "reasons", s.Reasons, "err", s.Err)
	if c.opts.OnStatus != nil {
		s.Reasons = slices.Clone(s.Reasons)
		c.calling.Store(true)
		defer c.calling.Store(false)
		c.opts.OnStatus(s)
	}
}
