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
	if s.ws != nil || len(s.stream.prefix) > 0 {
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
	if s.ws == nil {
		opcode, payload, rest := skim(s.stream.prefix)
		switch opcode {
		case opPing:
			s.stream.queue(appendFrame(nil, opPong, payload), false)
			s.flush()
		case opPong:
			s.awaiting.Store(false)
		}
		if opcode != 0 {
			s.stream.prefix = rest
			return nil
		}
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

// readMessage reads the next message whole. While nothing of it is there it waits without end; from then on at most d.
func (s *session) readMessage(d time.Duration) ([]byte, error) {
	if s.ws == nil {
		if err := s.stream.SetReadDeadline(time.Now().Add(d)); err != nil {
			return nil, err
		}
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
	if s.release(); s.ws == nil && !s.stream.closing.Load() {
		err = s.stream.SetReadDeadline(time.Time{})
	}
	return data, err
}

// skim takes a whole, masked ping or pong from the front of p (RFC 6455, section 5.5). Its opcode is 0 when there is
// something else. The payload is unmasked in place.
func skim(p []byte) (opcode byte, payload, rest []byte) {
	const mask = 4
	if len(p) < 2+mask || p[0] != 0x80|opPing && p[0] != 0x80|opPong || p[1] < 0x80 || p[1] > 0x80+125 {
		return 0, nil, p
	}
	end := 2 + mask + int(p[1]&0x7f)
	if len(p) < end {
		return 0, nil, p
	}
	payload = p[2+mask : end]
	for i := range payload {
		payload[i] ^= p[2+i%mask]
	}
	return p[0] & 0x0f, payload, p[end:]
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
	n, err := w.session.stream.Write(frame)
	w.session.flush()
	return n, err
}
