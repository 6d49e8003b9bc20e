package gpoll

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll/internal/frame"
)

// How long a message may take from its first byte to its last. A control frame has no time of its own: where pongs are
// awaited, PongTimeout sees to a peer that ends none.
const messageWait = 10 * time.Second

var (
	// errClosedByPeer ends the reader: the peer has sent a close frame, which is answered.
	errClosedByPeer = errors.New("gpoll: the client has closed the WebSocket")

	endUnfinished = &ending{&refusal{code: "message-timeout",
		message: "a message has to arrive within 10 s of its first byte; come back with the cursor"}, closeSlow}
)

// An incoming reads one control frame, or one message and the control frames within it, of which something has arrived.
// It waits for the rest, in the memory of its goroutine. The bytes that it reads too many are in stream.prefix
// afterwards.
type incoming struct {
	*streamConn
	message bool   // it began with a byte of a message, and not of a control frame
	timed   bool   // the message's deadline is set
	opcode  byte   // of the message, once the head of its first frame is there; 0 before
	data    []byte // what has arrived of the message, beside prefix
}

// read reads what is at the front of prefix. The payload is the caller's.
func (in *incoming) read() (opcode byte, payload []byte, err error) {
	st := &in.stream
	in.message = st.prefix[0]&0x0f < frame.Close
	opcode, payload, size := frame.Whole(st.prefix, quickSize)
	for opcode == 0 && size > 0 {
		if err := in.fill(size); err != nil {
			return 0, nil, err
		}
		opcode, payload, size = frame.Whole(st.prefix, quickSize)
	}
	if opcode != 0 {
		st.taken(size)
	} else if opcode, payload, err = in.assemble(); err != nil {
		return 0, nil, err
	}
	if in.timed { // nothing of the message is to come any more
		err = st.readBy(in.readDeadline())
	}
	return opcode, payload, err
}

// assemble reads what frame.Whole does not take. An error ends the connection: the peer has been told why.
func (in *incoming) assemble() (opcode byte, payload []byte, err error) {
	for {
		h, err := in.head()
		if err != nil {
			return 0, nil, err
		}
		if h.Opcode >= frame.Close {
			payload, err := in.control(&h)
			if err != nil {
				return 0, nil, err
			}
			if in.opcode == 0 || h.Opcode == frame.Close {
				return h.Opcode, payload, nil
			}
			_ = in.handleControl(h.Opcode, payload) // a ping or a pong has no error
			continue
		}
		if err := in.payload(&h); err != nil {
			return 0, nil, err
		}
		if h.Final {
			return in.opcode, in.data, nil
		}
	}
}

// head reads the head of a frame and checks it against the frames before it.
func (in *incoming) head() (h frame.Head, err error) {
	st := &in.stream
	for {
		var need int
		if h, need, err = frame.ReadHead(st.prefix); err != nil {
			return h, in.violation(err)
		}
		if need == 0 {
			break
		}
		if err := in.fill(need); err != nil {
			return h, err
		}
	}
	switch {
	case h.Opcode >= frame.Close:
		return h, nil
	case h.Opcode == frame.Continuation && in.opcode == 0:
		return h, in.violation(frame.Fault("there is no message to be continued (RFC 6455, 5.4)"))
	case h.Opcode != frame.Continuation && in.opcode != 0:
		return h, in.violation(frame.Fault("the message before has not ended (RFC 6455, 5.4)"))
	}
	if most := max(in.b.set.maxMessage, maxBody); h.Size > uint64(most-len(in.data)) {
		return h, in.reject(&ending{&refusal{code: "too-large",
			message: fmt.Sprintf("a message has at most %d bytes", most)}, websocket.StatusMessageTooBig})
	}
	if in.opcode == 0 {
		in.opcode = h.Opcode
	}
	st.taken(h.Bytes)
	return h, nil
}

// control reads a control frame whose head is at the front of prefix.
func (in *incoming) control(h *frame.Head) (payload []byte, err error) {
	st := &in.stream
	end := h.Bytes + int(h.Size)
	if err := in.fill(end); err != nil {
		return nil, err
	}
	payload = st.prefix[h.Bytes:end:end]
	h.Unmask(payload, 0)
	st.taken(end)
	return payload, nil
}

// payload reads the payload of a message's frame. The memory for it grows with what has arrived.
func (in *incoming) payload(h *frame.Head) error {
	const least = 512
	st := &in.stream
	for at, size := 0, int(h.Size); at < size; {
		if st.closing.Load() {
			in.data = in.data[:0] // nobody will look at it
		}
		had := len(in.data)
		n := min(size-at, max(had, least))
		in.data = slices.Grow(in.data, n)
		p := in.data[had : had+n]
		if n = copy(p, st.prefix); n > 0 {
			st.taken(n)
		} else {
			var err error
			if n, err = in.wait(p, 1); err != nil {
				return err
			}
		}
		h.Unmask(p[:n], at)
		in.data = in.data[:had+n]
		at += n
	}
	return nil
}

// fill waits until prefix holds size bytes. It takes some more if they are there.
func (in *incoming) fill(size int) error {
	const more = 256
	st := &in.stream
	had := len(st.prefix)
	if had >= size {
		return nil
	}
	st.prefix = append(st.prefix, make([]byte, size+more-had)...)
	n, err := in.wait(st.prefix[had:], size-had)
	st.prefix = st.prefix[:had+n]
	return err
}

// wait reads least bytes or more into p. The deadline of a message begins with the first wait for it.
func (in *incoming) wait(p []byte, least int) (n int, err error) {
	if in.message && !in.timed {
		in.timed = true
		if err := in.hurry(); err != nil {
			return 0, err
		}
	}
	for n < least {
		var some int
		some, err = io.ReadAtLeast(in.stream.Conn, p[n:], least-n)
		n += some
		if err != nil && !(isTimeout(err) && in.late()) {
			return n, err
		}
	}
	return n, nil
}

// hurry is called when something of a message has come, but not all. The whole has to come within messageWait.
func (s *streamConn) hurry() error {
	by := time.Now().Add(messageWait)
	if hello := s.readDeadline(); !hello.IsZero() && hello.Before(by) {
		by = hello
	}
	return s.stream.readBy(by)
}

// late is called when a deadline has passed in the midst of a message. If it was the message's own, the peer is
// told, and late reports true: reading goes on, for the peer's close frame.
func (s *streamConn) late() bool {
	if s.attach == nil || s.stream.readsLast() {
		return false
	}
	if s.stream.readBy(time.Time{}) != nil { // told sets one again
		return false
	}
	s.attach.end(endUnfinished)
	return true
}
