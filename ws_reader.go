package gpoll

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// Reading from a WebSocket. coder/websocket does the handshake and reads the messages. What most clients send is only the pong to a
// ping, so that a session holds nothing of it while it is silent: its goroutine waits in readSome, answers pings and takes pongs
// itself, and gives the bytes of a message to a coder/websocket connection that is made for them and goes with them.

// How long a message may take from its first byte to its last.
const messageWait = 10 * time.Second

// accept does the handshake and takes the connection from net/http.
func (s *session) accept(w http.ResponseWriter, r *http.Request) error {
	if err := s.open(hijacking{w, s}, r); err != nil {
		return err
	}
	s.release()
	return nil
}

// open makes the connection of coder/websocket.
func (s *session) open(w http.ResponseWriter, r *http.Request) error {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // originAllowed has decided, by the whole origin and not the host alone
		CompressionMode:    websocket.CompressionDisabled,
		OnPongReceived:     s.ponged,
	})
	if err != nil {
		return err
	}
	ws.SetReadLimit(int64(max(s.b.set.maxMessage, maxBody)))
	s.ws = ws
	return nil
}

// release lets go of coder/websocket's connection when nothing of a message is in it. Where the socket cannot be watched otherwise, it stays.
func (s *session) release() {
	if s.stream.raw == nil || s.in.Buffered() > 0 {
		return
	}
	_ = s.ws.CloseNow() // it only forgets: closing the socket is the session's
	s.ws, s.in = nil, nil
}

// hijack takes the connection from net/http.
func (s *session) hijack(w http.ResponseWriter) error {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	if c, ok := conn.(*pollConn); ok {
		conn = c.release()
	}
	_ = conn.SetDeadline(time.Time{}) // the http.Server's are over; the reader sees a closed connection
	read, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return err
	}
	s.stream.init(conn, bytes.Clone(read), s.b.set.writeTimeout)
	return nil
}

// readable waits until something has arrived. It is kept small for the stack that waits in it.
func (s *session) readable() error {
	if s.ws != nil {
		_, err := s.in.Peek(1)
		return err
	}
	if len(s.stream.prefix) > 0 {
		return nil
	}
	if s.stream.raw == nil {
		return s.discard()
	}
	p, err := readSome(s.stream.raw, takeReadBuffer, returnReadBuffer)
	if err == nil {
		s.arrived(p)
	}
	return err
}

// discard waits for the end of a connection that cannot be watched otherwise and carries SSE: nothing is to come.
func (s *session) discard() error {
	_, err := s.stream.Read(make([]byte, 64))
	return err
}

// arrived keeps what readSome has read.
func (s *session) arrived(p []byte) {
	s.stream.prefix = bytes.Clone(p)
	returnReadBuffer(p)
}

// handle handles what has arrived: a ping or a pong, or a whole message, for which it waits.
func (s *session) handle() error {
	if s.form.events() {
		s.stream.prefix = nil
		return nil
	}
	if did, err := s.handleControl(); did || err != nil {
		return err
	}
	if s.request != nil {
		s.greet()
		return nil
	}
	data, err := s.readMessage(messageWait)
	if err != nil {
		return err
	}
	switch {
	case s.stream.closing.Load(): // what comes after a close is not read
	case s.attach == nil || s.form == formFrame:
		s.sendClose(&ending{refuseBad("this address takes no messages", ""), websocket.StatusUnsupportedData})
	default:
		s.obey(data)
	}
	return nil
}

// handleControl handles a ping or a pong, when that is what has arrived, and reports whether it was.
func (s *session) handleControl() (did bool, err error) {
	p := s.stream.prefix
	if s.ws != nil {
		p, _ = s.in.Peek(s.in.Buffered())
	}
	opcode, payload, size := skim(p)
	if size > len(p) {
		if err := s.hurry(messageWait); err != nil {
			return false, err
		}
		for size > len(p) {
			if p, err = s.readUpTo(size); err != nil {
				return false, err
			}
			opcode, payload, size = skim(p)
		}
		if err := s.stream.readBy(s.readDeadline()); err != nil {
			return false, err
		}
	}
	switch opcode {
	case opPing:
		s.sendControl(appendFrame(nil, opPong, payload))
	case opPong:
		s.awaiting.Store(false)
	default:
		return false, nil
	}
	switch {
	case s.ws != nil:
		_, err = s.in.Discard(size)
		s.release()
	case size < len(p):
		s.stream.prefix = p[size:]
	default:
		s.stream.prefix = nil
	}
	return true, err
}

// readUpTo waits until more has arrived of a frame of that size, and returns what is there of it.
func (s *session) readUpTo(size int) ([]byte, error) {
	if s.ws != nil {
		return s.in.Peek(size)
	}
	st := &s.stream
	more := make([]byte, size-len(st.prefix))
	n, err := st.Conn.Read(more)
	st.prefix = append(st.prefix, more[:n]...)
	return st.prefix, err
}

// readDeadline is when reading ends that waits for nothing in particular; the zero time: never.
func (s *session) readDeadline() time.Time {
	if s.helloBy == 0 {
		return time.Time{}
	}
	return s.b.began.Add(time.Duration(s.helloBy))
}

// hurry is called when the first byte of a frame or a message is there: it has to be whole within d.
func (s *session) hurry(d time.Duration) error {
	by := time.Now().Add(d)
	if hello := s.readDeadline(); !hello.IsZero() && hello.Before(by) {
		by = hello
	}
	return s.stream.readBy(by)
}

// readMessage reads a message whole, of which something has arrived, within d.
func (s *session) readMessage(d time.Duration) ([]byte, error) {
	if err := s.hurry(d); err != nil {
		return nil, err
	}
	if s.ws == nil {
		if err := s.open(reopening{s, http.Header{}}, handshake); err != nil {
			return nil, err
		}
	}
	typ, r, err := s.ws.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if typ == websocket.MessageText && !utf8.Valid(data) {
		s.sendClose(&ending{refuseBad("bad-utf-8", ""), websocket.StatusInvalidFramePayloadData})
	}
	s.release()
	return data, s.stream.readBy(s.readDeadline())
}

// skim looks at a masked ping or pong at the front of p (RFC 6455, section 5.5) and returns its size, or the least that it may be when
// too little is there; 0 when there is something else. The opcode is 0 until the frame is whole. The payload is unmasked in place.
func skim(p []byte) (opcode byte, payload []byte, size int) {
	const header, mask = 2, 4
	switch {
	case len(p) == 0 || p[0] != 0x80|opPing && p[0] != 0x80|opPong:
		return 0, nil, 0
	case len(p) < header:
		return 0, nil, header
	case p[1] < 0x80 || p[1] > 0x80+125:
		return 0, nil, 0
	}
	if size = header + mask + int(p[1]&0x7f); len(p) < size {
		return 0, nil, size
	}
	payload = p[header+mask : size]
	for i := range payload {
		payload[i] ^= p[header+i%mask]
	}
	return p[0] & 0x0f, payload, size
}

// Buffers for what arrives on silent connections.
var readBuffers = sync.Pool{New: func() any { return new([2048]byte) }}

func takeReadBuffer() []byte    { return readBuffers.Get().(*[2048]byte)[:] }
func returnReadBuffer(p []byte) { readBuffers.Put((*[2048]byte)(p[:2048])) }

// hijacking gives coder/websocket the session's stream in the place of net/http's connection.
type hijacking struct {
	http.ResponseWriter
	session *session
}

func (h hijacking) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := h.session.hijack(h.ResponseWriter); err != nil {
		return nil, nil, err
	}
	return h.session.buffers()
}

// Unwrap keeps http.ResponseController working.
func (h hijacking) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// reopening is the http.ResponseWriter of a handshake that took place before.
type reopening struct {
	session *session
	header  http.Header
}

func (o reopening) Header() http.Header         { return o.header }
func (o reopening) Write(p []byte) (int, error) { return len(p), nil }
func (o reopening) WriteHeader(int)             {}

func (o reopening) Hijack() (net.Conn, *bufio.ReadWriter, error) { return o.session.buffers() }

// handshake is what coder/websocket wants to see.
var handshake = &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
	"Connection":            {"Upgrade"},
	"Upgrade":               {"websocket"},
	"Sec-Websocket-Version": {"13"},
	"Sec-Websocket-Key":     {"AAAAAAAAAAAAAAAAAAAAAA=="},
}}

// buffers returns what coder/websocket reads from and writes its control frames to.
func (s *session) buffers() (net.Conn, *bufio.ReadWriter, error) {
	s.in = bufio.NewReaderSize(&s.stream, 512)
	return readSide{&s.stream}, bufio.NewReadWriter(s.in, bufio.NewWriterSize(controlWriter{s}, 160)), nil
}

// A readSide is the connection as coder/websocket has it. It does not close what it does not own.
type readSide struct{ *stream }

// Close does nothing: the session closes the stream when reading ends.
func (readSide) Close() error { return nil }

// A controlWriter takes coder/websocket's control frames.
type controlWriter struct{ session *session }

func (w controlWriter) Write(frame []byte) (int, error) {
	if p := bytes.Clone(frame); p[0] == 0x80|opClose {
		w.session.sendLast(p, false)
	} else {
		w.session.sendControl(p)
	}
	return len(frame), nil
}
