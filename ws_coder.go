package gpoll

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll/internal/frame"
)

// coder/websocket does the handshake, and reads what is not simple: fragments, large messages, close frames and what
// breaks the protocol. One of its connections lives for one handshake or one message, and holds nothing afterwards.
// TestCoderReadsOneMessage checks what this file relies on: coder/websocket reads through the bufio.Reader that Hijack
// returned and keeps no bytes elsewhere, writes control frames through the bufio.Writer, and sets no deadlines; and
// CloseNow sends nothing.

// accept does the handshake and takes the connection from net/http.
func (s *session) accept(w http.ResponseWriter, r *http.Request) error {
	ws, err := s.open(&hijacking{ResponseWriter: w, session: s}, r)
	if err != nil {
		return err
	}
	_ = ws.CloseNow() // it closes nothing: see readSide
	return nil
}

// open makes a connection of coder/websocket.
func (s *session) open(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	o := &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // originAllowed has checked the whole origin, not the host alone
		CompressionMode:    websocket.CompressionDisabled,
	}
	s.notePongs(o)
	ws, err := websocket.Accept(w, r, o)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(int64(max(s.b.set.maxMessage, maxBody)))
	return ws, nil
}

// readMessage reads a message, of which something has arrived, and the control frames before and within it. The caller
// may keep data. Bytes that were read beyond the message are in prefix afterwards. An error ends the session:
// coder/websocket has told the peer why, where the protocol wants that.
func (s *session) readMessage() (opcode byte, data []byte, err error) {
	h := &reopening{session: s, header: http.Header{}}
	ws, err := s.open(h, handshake)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = ws.CloseNow() }()
	typ, r, err := ws.Reader(context.Background())
	if err != nil {
		return 0, nil, err
	}
	if data, err = io.ReadAll(r); err == nil {
		err = h.from.err // see readSide
	}
	if err != nil {
		return 0, nil, err
	}
	if beyond, _ := h.in.Peek(h.in.Buffered()); len(beyond) > 0 { // Peek does not fail for what is buffered
		s.stream.prefix = append(bytes.Clone(beyond), s.stream.prefix...)
	}
	return byte(typ), data, nil // a message's type is its opcode
}

// ponged is the callback of coder/websocket.
func (s *session) ponged(context.Context, []byte) { s.awaiting.Store(false) }

// hijacking gives coder/websocket the session's stream in the place of net/http's connection. The head of the 101 goes
// to that stream: a wrapper of net/http's ResponseWriter may keep it back, as gin's does, or change it.
type hijacking struct {
	http.ResponseWriter
	session *session
}

// WriteHeader passes every answer on but the 101, which Hijack writes.
func (h *hijacking) WriteHeader(status int) {
	if status != http.StatusSwitchingProtocols {
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h *hijacking) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	s := h.session
	if err := s.hijack(h.ResponseWriter); err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"Content-Encoding", "Content-Length", "Transfer-Encoding"} {
		h.Header().Del(name) // middleware may have set it, but there is no body
	}
	_ = s.stream.SetWriteDeadline(time.Now().Add(s.b.set.writeTimeout))
	_, _ = s.stream.Write(headOf("101 Switching Protocols", h.Header())) // the reader sees a closed connection
	_ = s.stream.SetWriteDeadline(time.Time{})
	conn, rw := s.sides()
	return conn, rw, nil
}

// Unwrap keeps http.ResponseController working.
func (h *hijacking) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// reopening is the http.ResponseWriter of a handshake that took place before.
type reopening struct {
	session *session
	header  http.Header
	from    *readSide
	in      *bufio.Reader // what coder/websocket reads from
}

func (o *reopening) Header() http.Header         { return o.header }
func (o *reopening) Write(p []byte) (int, error) { return len(p), nil }
func (o *reopening) WriteHeader(int)             {}

func (o *reopening) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	from, rw := o.session.sides()
	o.from, o.in = from, rw.Reader
	return from, rw, nil
}

// handshake is a request that coder/websocket accepts.
var handshake = &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	Header: http.Header{
		"Connection":            {"Upgrade"},
		"Upgrade":               {"websocket"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}}

// sides returns what coder/websocket reads from and writes its control frames to.
func (s *session) sides() (*readSide, *bufio.ReadWriter) {
	in, out := bufio.NewReaderSize(&s.stream, 512), bufio.NewWriterSize(controlWriter{s}, 160)
	return &readSide{stream: &s.stream}, bufio.NewReadWriter(in, out)
}

// A readSide is the connection as coder/websocket has it. It does not close the stream, which it does not own. It notes
// the end of reading: when a connection ends within a message, coder/websocket takes that for the message's end.
type readSide struct {
	*stream
	err error
}

func (r *readSide) Read(p []byte) (int, error) {
	n, err := r.stream.Read(p)
	if n > 0 { // the message may be complete; an error comes again
		return n, nil
	}
	r.err = err
	return n, err
}

// Close does nothing: the session closes the stream when reading ends.
func (*readSide) Close() error { return nil }

// A controlWriter takes coder/websocket's control frames: its close frame, and pongs.
type controlWriter struct{ session *session }

func (w controlWriter) Write(p []byte) (int, error) {
	if kept := bytes.Clone(p); p[0] == 0x80|frame.Close {
		w.session.sendLast(kept, false)
	} else {
		w.session.sendControl(pong, kept)
	}
	return len(p), nil
}
