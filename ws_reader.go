package gpoll

import (
	"io"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll/internal/frame"
)

// Reading from a WebSocket. Most clients send what is small and simple: pongs, and messages of one frame. The session's
// goroutine reads these itself, and needs no memory for them but the bytes that have arrived. coder/websocket reads
// everything else: see readMessage.

// How long a frame or a message may take from its first byte to its last.
const messageWait = 10 * time.Second

// handleFrame handles a ping, a pong or a message of which something has arrived. It waits for the rest.
func (s *session) handleFrame() error {
	opcode, payload, err := s.readFrame()
	if err != nil {
		return err
	}
	switch opcode {
	case frame.Ping:
		s.sendControl(pong, frame.Append(nil, frame.Pong, payload))
	case frame.Pong:
		s.awaiting.Store(false)
	default:
		s.receive(opcode, payload)
	}
	return nil
}

// readFrame reads a ping, a pong or a whole message, of which something has arrived. The caller may keep the payload.
func (s *session) readFrame() (opcode byte, payload []byte, err error) {
	st := &s.stream
	opcode, payload, size := frame.Whole(st.prefix, quickSize)
	if opcode != 0 {
		st.taken(size)
		return opcode, payload, nil
	}
	if err := s.hurry(); err != nil {
		return 0, nil, err
	}
	for opcode == 0 && size > 0 {
		if err := st.fill(size); err != nil {
			return 0, nil, err
		}
		opcode, payload, size = frame.Whole(st.prefix, quickSize)
	}
	if opcode != 0 {
		st.taken(size)
	} else if opcode, payload, err = s.readMessage(); err != nil {
		return 0, nil, err
	}
	return opcode, payload, st.readBy(s.readDeadline())
}

// receive handles a message.
func (s *session) receive(opcode byte, data []byte) {
	switch {
	case s.stream.closing.Load(): // nothing is read after a close frame
	case opcode == frame.Text && !utf8.Valid(data):
		s.reject(&ending{refuseBad("bad-utf-8", ""), websocket.StatusInvalidFramePayloadData})
	case s.request != nil:
		s.greet(data)
	case s.attach == nil || s.form == formFrame: // without an attach the connection has been closed
		s.reject(&ending{refuseBad("this address takes no messages", ""), websocket.StatusUnsupportedData})
	default:
		s.obey(data)
	}
}

// obey does what a command asks. While too many answers wait for the client, or the application is asked, the reader
// reads nothing more, no pongs either. A client that does not read its answers ends as slow.
func (s *session) obey(data []byte) {
	s.held.Store(true)
	defer func() {
		s.awaiting.Store(false)
		s.held.Store(false)
	}()
	for room := s.attach.full(); room != nil; room = s.attach.full() {
		<-room
	}
	s.attach.obey(data)
}

// reject closes the connection for a message.
func (s *session) reject(why *ending) {
	if s.request != nil { // it stands for the hello, for which nobody waits any longer
		s.request = nil
		s.refuse(why)
		return
	}
	s.sendClose(why)
}

// readDeadline is when reading ends that waits for no frame in particular; the zero time: never.
func (s *session) readDeadline() time.Time {
	if s.helloBy == 0 {
		return time.Time{}
	}
	return s.b.began.Add(time.Duration(s.helloBy))
}

// hurry is called when the first byte of a frame or a message has come, but not the last. The whole has to come within
// messageWait.
func (s *session) hurry() error {
	by := time.Now().Add(messageWait)
	if hello := s.readDeadline(); !hello.IsZero() && hello.Before(by) {
		by = hello
	}
	return s.stream.readBy(by)
}

// taken takes the first n bytes out of prefix.
func (s *stream) taken(n int) {
	if s.prefix = s.prefix[n:]; len(s.prefix) == 0 {
		s.prefix = nil
	}
}

// fill waits until prefix holds size bytes.
func (s *stream) fill(size int) error {
	had := len(s.prefix)
	s.prefix = append(s.prefix, make([]byte, size-had)...)
	n, err := io.ReadFull(s.Conn, s.prefix[had:])
	s.prefix = s.prefix[:had+n]
	return err
}
