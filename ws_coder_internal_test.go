//go:build !js

package gpoll

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll/internal/frame"
)

// coder/websocket, the judge of these tests, has no server in js.

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
