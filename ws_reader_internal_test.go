package gpoll

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/frame"
)

// A script is a connection whose peer has sent everything and has gone. Each read brings a part of it.
type script struct {
	sent []byte
	cuts []byte // the size of each read, less 1; behind the last one a read brings all there is

	ended     bool // a read has told so
	written   []byte
	closed    atomic.Bool
	deadlines atomic.Int32
}

func (c *script) Read(p []byte) (int, error) {
	switch {
	case c.closed.Load():
		return 0, net.ErrClosed
	case len(c.sent) == 0:
		c.ended = true
		return 0, io.EOF
	}
	if len(c.cuts) > 0 {
		p = p[:min(len(p), int(c.cuts[0])+1)]
		c.cuts = c.cuts[1:]
	}
	n := copy(p, c.sent)
	c.sent = c.sent[n:]
	return n, nil
}

func (c *script) Write(p []byte) (int, error) {
	c.written = append(c.written, p...)
	return len(p), nil
}

func (c *script) Close() error                     { c.closed.Store(true); return nil }
func (c *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *script) SetDeadline(time.Time) error      { c.deadlines.Add(1); return nil }
func (c *script) SetReadDeadline(time.Time) error  { c.deadlines.Add(1); return nil }
func (c *script) SetWriteDeadline(time.Time) error { c.deadlines.Add(1); return nil }

// sentFrame is a frame as a client sends it. first is its first byte.
func sentFrame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// The handshake takes none of the bytes that a client sends right behind its request, and leaves nothing.
func TestHandshakeTakesNothing(t *testing.T) {
	behind := join(sentFrame(0x81, "eager"), sentFrame(0x01, "begun")[:5])
	conn := &script{sent: sentFrame(0x89, "later")}
	w := taken{httptest.NewRecorder(), conn, behind}
	s := &streamConn{b: &Broadcaster{}, form: formFrame}
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: handshakeHeader}
	shake, refused := readHandshake(r)
	if refused != nil {
		t.Fatal(refused)
	}
	if err := s.accept(w, r, &shake); err != nil {
		t.Fatal(err)
	}
	head := string(conn.written)
	accepted := strings.HasPrefix(head, "HTTP/1.1 101 Switching Protocols\r\n") &&
		strings.Contains(head, "Sec-Websocket-Accept: ")
	if !accepted || strings.Index(head, "\r\n\r\n") != len(head)-4 || conn.closed.Load() {
		t.Errorf("answered %d %v, wrote %q, closed: %v", w.Code, w.Header(), conn.written, conn.closed.Load())
	}
	if !bytes.Equal(s.stream.prefix, behind) || len(conn.sent) != len(sentFrame(0x89, "later")) {
		t.Errorf("%q has been kept, and %d bytes were not read", s.stream.prefix, len(conn.sent))
	}
}

// taken is the http.ResponseWriter of a connection of which read has been read.
type taken struct {
	*httptest.ResponseRecorder
	conn net.Conn
	read []byte
}

func (w taken) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	in := bufio.NewReader(io.MultiReader(bytes.NewReader(w.read), w.conn))
	if _, err := in.Peek(len(w.read)); err != nil {
		return nil, nil, err
	}
	return w.conn, bufio.NewReadWriter(in, bufio.NewWriter(w.conn)), nil
}

// A message in one frame is read without an object.
func TestSimpleMessageAllocates(t *testing.T) {
	near, far := loopback(t)
	s := &streamConn{b: &Broadcaster{}, form: formJSONFrame}
	s.stream.init(near, nil, time.Second)
	sent := sentFrame(0x81, strings.Repeat("x", 100))
	if s.stream.raw == nil {
		t.Skip("on this system no socket is watched")
	}
	if n := testing.AllocsPerRun(200, func() {
		if _, err := far.Write(sent); err != nil {
			t.Fatal(err)
		}
		if err := s.readable(); err != nil {
			t.Fatal(err)
		}
		opcode, data, err := s.readFrame()
		if err != nil || opcode != frame.Text || len(data) != 100 || s.stream.prefix != nil {
			t.Fatal(opcode, data, err)
		}
		s.handled()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// loopback returns the two ends of a connection.
func loopback(t testing.TB) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if far, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if near, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}

var handshakeHeader = http.Header{
	"Connection":            {"Upgrade"},
	"Upgrade":               {"websocket"},
	"Sec-Websocket-Version": {"13"},
	"Sec-Websocket-Key":     {"AAAAAAAAAAAAAAAAAAAAAA=="},
}
