package gpoll

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

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

// outcome is what a session does.
type outcome struct {
	frames []string // that it writes behind the registration, but for pongs
	pongs  []string
	failed bool // it ends before its peer does
}

// attachScript begins a session on a script.
func attachScript(t *testing.T, b *Broadcaster, f form, sent, cuts []byte) (*streamConn, *script) {
	t.Helper()
	conn := &script{sent: bytes.Clone(sent), cuts: cuts}
	c, refused := b.register(registration{})
	if refused != nil {
		t.Fatal(refused.code)
	}
	s := &streamConn{b: b, form: f}
	s.stream.init(conn, nil, time.Second)
	s.begin(c, attachOptions{}, nil)
	synctest.Wait()
	conn.written = nil
	return s, conn
}

// readBySession is run, which lets each frame have its answers before the next one.
func readBySession(t *testing.T, b *Broadcaster, f form, sent, cuts []byte) outcome {
	s, conn := attachScript(t, b, f, sent, cuts)
	err := s.readable()
	for err == nil {
		err = s.handle()
		synctest.Wait()
		if err == nil {
			err = s.readable()
		}
	}
	return conclude(s, conn, err)
}

// readByCoder has one connection of coder/websocket read everything, control frames included.
func readByCoder(t *testing.T, b *Broadcaster, f form, sent, cuts []byte) outcome {
	s, conn := attachScript(t, b, f, sent, cuts)
	ws := openCoder(t, s)
	defer ws.CloseNow()
	for {
		typ, data, err := ws.Read(context.Background())
		if err == nil && conn.ended {
			err = io.ErrUnexpectedEOF // it takes what is there of a message for the whole
		}
		if err != nil {
			synctest.Wait()
			return conclude(s, conn, err)
		}
		s.receive(byte(typ), data)
		synctest.Wait()
	}
}

func conclude(s *streamConn, conn *script, err error) outcome {
	s.over(err)
	synctest.Wait()
	o := outcome{failed: !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)}
	for p := conn.written; len(p) > 0; {
		end, _ := begunFrames(p, 1, s.form)
		if p[0] == 0x80|frame.Pong {
			o.pongs = append(o.pongs, string(p[:end]))
		} else {
			o.frames = append(o.frames, string(p[:end]))
		}
		p = p[end:]
	}
	return o
}

// as reports whether two sessions do the same. theirs has all pongs. In mine a pong that had not gone out yet may
// have given way to a newer one. The reasons of close frames that say what was wrong with a frame differ. Where
// coder/websocket closes without a word, or takes a reason that is not UTF-8, mine has a close frame.
func (mine outcome) as(theirs outcome) bool {
	rest := theirs.pongs
	for _, pong := range mine.pongs {
		i := slices.Index(rest, pong)
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
	}
	mine.frames, theirs.frames = slices.Clone(mine.frames), slices.Clone(theirs.frames)
	last := len(mine.frames) - 1
	if code, reason := closeOf(mine.frames); code == 1002 || code == 1007 && strings.HasPrefix(reason, "bad-frame") ||
		code == 1009 {
		wrong, text := closeOf(theirs.frames)
		switch {
		case wrong == code || wrong != 0 && !utf8.ValidString(text):
			theirs.frames[last] = mine.frames[last]
		case wrong == 0 && code == 1002:
			mine.frames = mine.frames[:last]
			theirs.failed = true // it looks at a whole head, of which nothing more came
		}
	}
	newest := len(rest) == 0 || slices.Equal(mine.pongs[max(len(mine.pongs)-1, 0):], rest[len(rest)-1:])
	return newest && slices.Equal(mine.frames, theirs.frames) && mine.failed == theirs.failed
}

// closeOf returns what the close frame at the end of frames says; 0: there is none.
func closeOf(frames []string) (code int, reason string) {
	if len(frames) == 0 {
		return 0, ""
	}
	last := frames[len(frames)-1]
	if last[0] != 0x80|frame.Close || len(last) < 4 {
		return 0, ""
	}
	return int(last[2])<<8 | int(last[3]), last[4:]
}

// openCoder lets coder/websocket read from a session. Its control frames go out before more is read.
func openCoder(t *testing.T, s *streamConn) *websocket.Conn {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = handshakeHeader
	ws, err := websocket.Accept(reopened{httptest.NewRecorder(), s}, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionDisabled,
		OnPongReceived:     func(context.Context, []byte) { s.awaiting.Store(false) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(int64(max(s.b.set.maxMessage, maxBody)))
	return ws
}

var handshakeHeader = http.Header{
	"Connection":            {"Upgrade"},
	"Upgrade":               {"websocket"},
	"Sec-Websocket-Version": {"13"},
	"Sec-Websocket-Key":     {"AAAAAAAAAAAAAAAAAAAAAA=="},
}

// reopened is the http.ResponseWriter of a handshake whose connection is a session's stream.
type reopened struct {
	*httptest.ResponseRecorder
	session *streamConn
}

func (o reopened) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn := unclosed{o.session.stream.Conn}
	out := bufio.NewWriterSize(settlingWriter{o.session}, 160)
	return conn, bufio.NewReadWriter(bufio.NewReader(conn), out), nil
}

// unclosed is a connection that its session closes.
type unclosed struct{ net.Conn }

func (unclosed) Close() error { return nil }

// settlingWriter gives coder/websocket's control frames to the session.
type settlingWriter struct{ session *streamConn }

func (w settlingWriter) Write(p []byte) (int, error) {
	defer synctest.Wait()
	if kept := bytes.Clone(p); p[0] == 0x80|frame.Close {
		w.session.sendLast(kept, false)
	} else {
		w.session.sendControl(pong, kept)
	}
	return len(p), nil
}

// FuzzInbound sends random bytes, cut at random places into several reads, to a session and to one for which
// coder/websocket reads all of it. The peers of both see the same answers to commands, the same pongs and the same
// close frames, in the same order.
func FuzzInbound(f *testing.F) {
	const text, binary, ping, pong, bye = 0x81, 0x82, 0x89, 0x8a, 0x88
	subscribe := sentFrame(text, `{"subscribe":["a"]}`)
	all := join(sentFrame(ping, "1"), subscribe, sentFrame(pong, ""), sentFrame(binary, `{"unsubscribe":["a"]}`),
		sentFrame(ping, ""), sentFrame(0x01, `{"sub`), sentFrame(ping, "within"), sentFrame(0x00, `scribe":`),
		sentFrame(0x80, `["b"]}`),
		sentFrame(text, "nonsense"), sentFrame(text, ""), sentFrame(text, `{"leave":true}`),
		sentFrame(ping, "behind"), sentFrame(bye, "\x03\xe8"))
	spaced := func(size int) []byte {
		long := `{"subscribe":["` + strings.Repeat("x", 200) + `"]}`
		return sentFrame(text, strings.Repeat(" ", size-len(long))+long)
	}
	for _, sent := range [][]byte{
		all,
		join(sentFrame(ping, "a"), sentFrame(ping, "b"), sentFrame(ping, "c"), sentFrame(bye, "\x0b\xb9enough")),
		join(spaced(300), spaced(900), spaced(quickSize)),
		join(spaced(quickSize+1), subscribe),
		join(bytes.Repeat(subscribe, 100), sentFrame(ping, "behind")),
		join(subscribe, sentFrame(text, "\xff"), subscribe, sentFrame(ping, "")),
		join(subscribe, sentFrame(binary, "\xff"), subscribe),
		join(subscribe, []byte("\x81\x05hello"), subscribe), // unmasked
		join(subscribe, sentFrame(0xc1, "{}"), subscribe),   // reserved bit
		join(subscribe, sentFrame(0x83, "{}"), subscribe),   // reserved opcode
		join(subscribe, sentFrame(0x8b, "{}"), subscribe),
		join(subscribe, sentFrame(0x80, "{}"), subscribe),                      // continues nothing
		join(subscribe, sentFrame(0x01, "{"), sentFrame(text, "}"), subscribe), // ends by another
		join(subscribe, sentFrame(0x09, "half a ping"), subscribe),
		join(subscribe, sentFrame(ping, strings.Repeat("p", 126)), subscribe),
		join(subscribe, sentFrame(ping, strings.Repeat("p", 125)), subscribe),
		join(subscribe, []byte("\x81\xfe\x00\x02\x00\x00\x00\x00{}"), // longer than need
			[]byte("\x89\xfe\x00\x01\x00\x00\x00\x00p"), subscribe),
		join(subscribe, []byte("\x81\xff\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00{}"), subscribe),
		join(subscribe, []byte("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00{}"), subscribe), // negative
		join(subscribe, sentFrame(bye, ""), subscribe),
		join(subscribe, sentFrame(bye, "\x03"), subscribe),
		join(subscribe, sentFrame(bye, "\x03\xed"), subscribe), // 1005 is not for the wire
		join(subscribe, sentFrame(bye, "\x03\xe8\xff"), subscribe),
		join(subscribe, sentFrame(0x01, `{"sub`), sentFrame(bye, "\x03\xe8why"), sentFrame(0x80, `scribe":["b"]}`)),
		join(subscribe, sentFrame(0x01, `{"leave":true}`)), // and nothing more
		join(subscribe, spaced(4096)[:8+512]),
		subscribe[:7], subscribe[:1], nil,
	} {
		for _, plain := range []bool{false, true} {
			f.Add(sent, []byte{}, plain)
			f.Add(sent, bytes.Repeat([]byte{0}, 300), plain) // byte by byte
			f.Add(sent, []byte{24, 0, 5, 7, 30, 2, 100, 1, 1, 255, 13}, plain)
		}
	}
	f.Fuzz(func(t *testing.T, sent, cuts []byte, plain bool) {
		form := formJSONFrame
		if plain {
			form = formFrame
		}
		compareReaders(t, form, sent, cuts)
	})
}

// The largest messages are too slow for FuzzInbound.
func TestInboundLarge(t *testing.T) {
	for _, size := range []int{1<<16 - 1, 1 << 16, 1<<16 + 1} {
		large := sentFrame(0x81, strings.Repeat(" ", size-3)+"{}x")
		compareReaders(t, formJSONFrame, join(large, sentFrame(0x81, "{}")), []byte{0, 99, 1})
	}
}

func compareReaders(t *testing.T, f form, sent, cuts []byte) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBroadcaster()
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := b.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		mine := readBySession(t, b, f, sent, cuts)
		theirs := readByCoder(t, b, f, sent, cuts)
		if !mine.as(theirs) {
			t.Errorf("read by the session: %#v\nread by coder/websocket: %#v", mine, theirs)
		}
	})
}

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

// A message in one frame is read without an object beside its bytes, which belong to the one that they are given to.
func TestSimpleMessageAllocates(t *testing.T) {
	near, far := loopback(t)
	s := &streamConn{b: &Broadcaster{}, form: formJSONFrame}
	s.stream.init(near, nil, time.Second)
	sent := sentFrame(0x81, strings.Repeat("x", 100))
	want := 1.0 // of the bytes
	if s.stream.raw == nil {
		t.Skip("on this system no socket is watched")
	}
	var kept []byte
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
		if kept == nil {
			kept = data
		}
	}); n > want {
		t.Errorf("%v allocations, want %v", n, want)
	}
	if string(kept) != strings.Repeat("x", 100) {
		t.Errorf("the first message has become %q", kept)
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
