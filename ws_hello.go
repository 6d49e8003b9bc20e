package gpoll

import (
	"fmt"
	"time"
)

// greet answers the hello, or refuses it.
func (s *streamConn) greet(data []byte) {
	c, o, end := s.hello(data)
	s.request, s.anew = nil, true // the hello has grown the stack
	switch {
	case end != nil:
		s.refuse(end)
	case c.attachOver() != nil && !s.stays(lateness):
		s.refuse(endGone)
	default:
		s.begin(c, o, nil)
	}
}

// stays reports whether the peer is still there after d, or has sent more, which stays keeps. It does giveWay's work
// for a hello, whose connection only this goroutine reads. A peer cannot close one half of a WebSocket alone.
func (s *streamConn) stays(d time.Duration) bool {
	if len(s.stream.prefix) > 0 {
		return true
	}
	if s.stream.readBy(time.Now().Add(d)) != nil {
		return false
	}
	if err := s.readable(); err != nil && !isTimeout(err) {
		return false
	}
	return s.stream.readBy(time.Time{}) == nil
}

// hello reads the hello and finds or registers the client.
func (s *streamConn) hello(data []byte) (*Client, attachOptions, *ending) {
	var o attachOptions
	s.helloBy = 0
	if err := s.stream.readBy(time.Time{}); err != nil {
		return nil, o, endGone
	}
	r := s.request
	var f frameCommand
	if err := decodeStrict(data, &f); err != nil || f.Hello == nil || f.fields() != 1 {
		return nil, o, refused(refuseBad("bad-request",
			`gpoll.v1 begins with {"hello":{"client-id":"0","topics":["…"],"after":"…"}}`))
	}
	b := s.b
	req := &request{json: true, hasTopics: f.Hello.Topics != nil, last: f.Hello.Last,
		asked: readAsked(f.Hello.Asked), arrived: b.arrivals.Add(1)}
	if f.Hello.ClientID != "0" {
		req.id = f.Hello.ClientID
	}
	var no *refusal
	if req.after, no = parseCursor(f.Hello.After); no != nil {
		return nil, o, refused(no)
	}
	if req.last < 0 || req.last > replayCount {
		return nil, o, refused(refuseLast)
	}
	if req.topics, no = b.checkTopics(f.Hello.Topics); no != nil {
		return nil, o, refused(no)
	}
	if req.watch, no = b.readWatch(f.Hello.Presence, f.Hello.PresenceAfter); no != nil {
		return nil, o, refused(no)
	}
	if f.Hello.Authorization != "" {
		r.Header.Set("Authorization", f.Hello.Authorization)
	}
	if f.Hello.Fallback != "" {
		r.Header.Set("Gpoll-Fallback", f.Hello.Fallback)
	}
	arr, no := b.arrive(r, req)
	if no != nil {
		return nil, o, refused(no)
	}
	if no := b.meet(arr.client, r); no != nil {
		return nil, o, refused(no)
	}
	arr.options(req, &o)
	return arr.client, o, nil
}

var refuseHello = refuseBad("bad-request", "gpoll.v1 begins with a hello frame within 5 s")

// welcome answers the hello. position is where the stream begins.
func (s *streamConn) welcome(c *Client, position Position) []byte {
	clients, _ := s.b.clients.size()
	spread := min(max(time.Duration(clients)*time.Second/500, 100*time.Millisecond), 30*time.Second)
	return fmt.Appendf(nil, `{"welcome":{"client-id":"%s","position":"%s","heartbeat_ms":%d,"spread_ms":%d}}`,
		c.ID(), position, s.b.set.heartbeat.Milliseconds(), spread.Milliseconds())
}
