package gpoll

import (
	"errors"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll/internal/frame"
)

// Reading from a WebSocket. Most clients send what is small and simple: pongs, and messages of one frame. They need no
// memory but the bytes that have arrived, and no deadline. An incoming reads the rest.

// handleFrame handles a control frame or a message of which something has arrived. It waits for the rest.
func (s *streamConn) handleFrame() error {
	opcode, payload, err := s.readFrame()
	if err != nil {
		return err
	}
	if opcode >= frame.Close {
		return s.handleControl(opcode, payload)
	}
	s.receive(opcode, payload)
	return nil
}

// readFrame reads a control frame or a whole message, of which something has arrived. The payload lasts until own.
func (s *streamConn) readFrame() (opcode byte, payload []byte, err error) {
	st := &s.stream
	for {
		opcode, payload, size := frame.Whole(st.prefix, quickSize)
		if opcode != 0 {
			st.taken(size)
			return opcode, payload, nil
		}
		if size == 0 {
			break
		}
		if more, err := s.refill(); err != nil {
			return 0, nil, err
		} else if !more {
			break
		}
	}
	s.handled() // whoever waits holds no buffer
	return (&incoming{streamConn: s}).read()
}

// handleControl handles a control frame. Its error ends the reader: the peer sends nothing any more.
func (s *streamConn) handleControl(opcode byte, payload []byte) error {
	switch opcode {
	case frame.Ping:
		s.sendControl(pong, frame.Append(nil, frame.Pong, payload))
	case frame.Pong:
		s.awaiting.Store(false)
		s.anew = s.deep // what commands have done to the stack lasts no longer than a heartbeat
	case frame.Close:
		switch err := frame.CheckClose(payload); {
		case err != nil:
			return s.violation(err)
		case !s.ending():
			s.sendLast(frame.Append(nil, frame.Close, payload), false) // RFC 6455, section 5.5.1
		}
		return errClosedByPeer
	}
	return nil
}

// receive handles a message.
func (s *streamConn) receive(opcode byte, data []byte) {
	v1 := s.form == formJSONFrame && s.request == nil && s.attach != nil
	switch {
	case s.stream.closing.Load(): // nothing is read after a close frame
	case v1 && s.obeyKnown(data): // which is UTF-8
	case opcode == frame.Text && !utf8.Valid(data):
		_ = s.reject(&ending{refuseBad("bad-utf-8", "a text frame is UTF-8"), websocket.StatusInvalidFramePayloadData})
	case s.request != nil:
		s.greet(data)
	case s.attach != nil && s.form == formFrame && s.b.PlainMessages && s.b.OnMessage != nil:
		s.hold()
		s.attach.hear(s.attach.grants(), &command{data: data})
	case s.attach == nil || s.form == formFrame: // without an attach the connection has been closed
		_ = s.reject(&ending{refuseBad("this address takes no messages", ""), websocket.StatusUnsupportedData})
	default:
		s.obey(data)
	}
}

// hold says that the reader obeys a command: meanwhile it reads nothing more, no pongs either. handled ends that.
func (s *streamConn) hold() {
	if !s.holds {
		s.holds, s.deep = true, true
		s.held.Store(true)
	}
}

// handled is called when what has been read is handled, and before a wait for more.
func (s *streamConn) handled() {
	if s.holds {
		s.holds = false
		s.awaiting.Store(false)
		s.held.Store(false)
	}
	s.own()
}

// obeyKnown does what a command asks if scanCommand knows it.
func (s *streamConn) obeyKnown(data []byte) bool {
	cmd, ok := scanCommand(data)
	if ok {
		s.hold()
		var g *grantee
		if s.answered || cmd.id != "" || cmd.kind != commandSend { // otherwise no answer has come to those that wait
			g = s.awaitRoom()
		}
		cmd.more = len(s.stream.prefix) > 0
		s.answered = s.attach.hear(g, &cmd)
	}
	return ok
}

// obey does what any other command asks.
func (s *streamConn) obey(data []byte) {
	s.hold()
	s.answered = true
	s.attach.obey(s.awaitRoom(), data)
}

// awaitRoom is called before a command is obeyed. It waits while too many answers wait for the client. A client that
// does not read its answers ends as slow. awaitRoom returns what the client may do.
func (s *streamConn) awaitRoom() *grantee {
	room, g := s.attach.full()
	for room != nil {
		<-room
		room, g = s.attach.full()
	}
	return g
}

// violation closes the connection for what RFC 6455 forbids. It returns the error that ends the reader.
func (s *streamConn) violation(err error) error {
	code := websocket.StatusProtocolError
	if errors.Is(err, frame.ErrNotUTF8) {
		code = websocket.StatusInvalidFramePayloadData
	}
	return s.reject(&ending{refuseBad("bad-frame", err.Error()), code})
}

// reject closes the connection for a frame or a message, and returns that as an error.
func (s *streamConn) reject(why *ending) error {
	switch {
	case s.request != nil: // it stands for the hello, for which nobody waits any longer
		s.request = nil
		s.refuse(why)
	case !s.ending():
		s.sendClose(why)
	}
	return why.refusal
}

// ending is called before the peer is told something that ends the connection. It reports whether finish is about to
// tell why the attach has ended, which goes before: the client may have said {"leave":true} and its close frame in one
// piece.
func (s *streamConn) ending() bool {
	if s.attach == nil {
		return false
	}
	s.attach.answered()
	why := s.attach.ending.Load()
	return why != nil && why != endGone
}

// readDeadline is when reading ends that waits for no frame in particular; the zero time: never.
func (s *streamConn) readDeadline() time.Time {
	if s.helloBy == 0 {
		return time.Time{}
	}
	return s.b.began.Add(time.Duration(s.helloBy))
}

// taken takes the first n bytes out of prefix.
func (s *stream) taken(n int) {
	if s.prefix = s.prefix[n:]; len(s.prefix) == 0 {
		s.prefix = nil
	}
}
