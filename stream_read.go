package gpoll

import (
	"bytes"
	"io"
	"net/http"
	"time"

	"github.com/corvuscrypto/gpoll/internal/socket"
)

// The common part of reading from connections that were taken over: the taking over, and the wait for something to
// read.

// quickSize is how much is read at once, and the largest payload for which the reader itself waits.
const quickSize = 2048

// hijack takes the connection from net/http.
func (s *streamConn) hijack(w http.ResponseWriter) error {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	if served, ok := conn.(*servedConn); ok {
		conn = served.release()
	}
	_ = conn.SetDeadline(time.Time{}) // the http.Server's no longer hold; the reader sees a closed connection
	read, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return err
	}
	s.stream.init(conn, bytes.Clone(read), s.b.set.writeTimeout)
	s.b.watchGone(conn)
	return nil
}

// headOf returns the head of an answer that net/http does not write, with today's Date.
func headOf(status string, h http.Header) []byte {
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 " + status + "\r\n")
	_ = h.Write(&head) // a bytes.Buffer takes everything
	head.WriteString("\r\n")
	return head.Bytes()
}

// readable waits until something has arrived in stream.prefix. It is small, for the stack that waits in it.
//
// The memory of prefix is new for each read. Only the unmasking of a frame writes to it, once, so a frame's payload may
// be kept. The payload then keeps the memory of the whole read, about quickSize at most.
func (s *streamConn) readable() error {
	if len(s.stream.prefix) > 0 {
		return nil
	}
	if s.stream.raw == nil {
		return s.readUnwatched()
	}
	if s.reader == nil {
		s.reader = socket.NewReader(quickSize)
	}
	p, err := s.reader.ReadSome(s.stream.raw)
	if err == nil {
		s.arrived(p)
	}
	return err
}

// arrived keeps a copy of p, which ReadSome has returned.
func (s *streamConn) arrived(p []byte) {
	s.stream.prefix = bytes.Clone(p)
	socket.Return(p)
}

// readUnwatched is readable where the socket cannot be watched: it holds its memory while it waits.
func (s *streamConn) readUnwatched() error {
	size := 512
	if s.form.events() { // whose client sends nothing
		size = 64
	}
	p := make([]byte, size)
	n, err := io.ReadAtLeast(s.stream.Conn, p, 1)
	s.stream.prefix = p[:n]
	return err
}

// handle handles the first frame that has arrived.
func (s *streamConn) handle() error {
	if s.form.events() {
		s.stream.prefix = nil // it means nothing
		return nil
	}
	return s.handleFrame()
}
