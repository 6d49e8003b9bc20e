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

// quickSize is the largest payload of a frame that is taken from a buffer as it is.
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
// What has arrived lies in a buffer that is lent for as long as handle runs, or until own. So a connection that waits
// holds none, and one that is sent more and more uses the same again and again.
func (s *streamConn) readable() error {
	if len(s.stream.prefix) > 0 {
		return nil
	}
	if s.stream.raw == nil {
		return s.readUnwatched()
	}
	if s.reader == nil {
		s.reader = socket.NewReader(socket.BufferSize)
	}
	p, err := s.reader.ReadSome(s.stream.raw)
	if err == nil {
		s.borrow(p, len(p))
	}
	return err
}

// borrow makes the first n bytes of a buffer prefix.
func (s *streamConn) borrow(buf []byte, n int) {
	s.lent = (*[socket.BufferSize]byte)(buf[:socket.BufferSize])
	s.stream.prefix = buf[:n:n] // an append goes elsewhere
}

// own gives back what borrow has taken. What is left of prefix is copied.
func (s *streamConn) own() {
	if s.lent == nil {
		return
	}
	s.stream.prefix = bytes.Clone(s.stream.prefix)
	socket.Return(s.lent[:])
	s.lent = nil
}

// refill adds to prefix what has arrived meanwhile, without waiting, and reports whether that was something.
func (s *streamConn) refill() (more bool, err error) {
	st := &s.stream
	if st.raw == nil || len(st.prefix) >= quickSize {
		return false, nil
	}
	var buf []byte
	if s.lent != nil {
		buf = s.lent[:]
	} else {
		buf = socket.Take()
	}
	had := copy(buf, st.prefix) // perhaps onto itself
	n, err := socket.TryRead(st.raw, buf[had:])
	s.borrow(buf, had+n)
	return n > 0, err
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

// handle handles what has arrived: all frames that are there, and one that is not whole yet.
func (s *streamConn) handle() error {
	defer s.handled()
	if s.form.events() {
		s.stream.prefix = nil // it means nothing
		return nil
	}
	err := s.handleFrame()
	for err == nil && len(s.stream.prefix) > 0 && !s.anew {
		err = s.handleFrame()
	}
	return err
}
