package gpoll

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/frame"
)

// For every number of bytes that a socket has taken of a piece, begunFrames tells how many frames were begun, and where
// the last of them ends.
func TestBegunFrames(t *testing.T) {
	sizes := []int{0, 1, 125, 126, 127, 1 << 10, 1<<16 - 1, 1 << 16, 0}
	for f := range formCount {
		if f == formElement {
			continue
		}
		var p []byte
		var ends []int
		for i, size := range sizes {
			rec := &record{pos: Position{1, uint64(i + 1)}, data: strings.Repeat("\n", size)}
			p = append(p, rec.in(f)...)
			ends = append(ends, len(p))
		}
		for n := 0; n <= len(p); n++ {
			if n > 3000 && n < len(p)-3000 && n%997 != 0 {
				continue
			}
			frames, _ := slices.BinarySearch(ends, n)
			want := 0
			if n > 0 {
				frames++
				want = ends[frames-1]
			}
			if end, got := begunFrames(p, n, f); end != want || got != frames {
				t.Fatalf("form %d, %d bytes: %d frames, the last one ends at %d, want %d and %d", f, n, got, end, frames, want)
			}
		}
	}
}

// A spiedConn notes the deadlines of reading.
type spiedConn struct {
	net.Conn
	deadlines []bool // whether each is one
}

func (c *spiedConn) SetReadDeadline(t time.Time) error {
	c.deadlines = append(c.deadlines, !t.IsZero())
	return c.Conn.SetReadDeadline(t)
}

// A pong that comes in pieces on a watched socket is a pong, and begins no deadline.
func TestPongInPieces(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pong := []byte{0x80 | frame.Pong, 0x80 | 4, 1, 2, 3, 4, 'a', 'b', 'c', 'd'}
	for split := 1; split < len(pong); split++ {
		s := &streamConn{b: &Broadcaster{}, form: formFrame}
		s.stream.init(conn, slices.Clone(pong[:split]), time.Second)
		spy := &spiedConn{Conn: conn}
		s.stream.Conn = spy
		s.awaiting.Store(true)
		if _, err := client.Write(pong[split:]); err != nil {
			t.Fatal(err)
		}
		err := s.handle()
		if err != nil || s.awaiting.Load() || s.stream.prefix != nil || len(spy.deadlines) > 0 {
			t.Errorf("split at %d: %v, left %q, deadlines %v", split, err, s.stream.prefix, spy.deadlines)
		}
	}
}

// Of the pings and pongs that wait for the socket the newest goes out, and the last frame behind them.
func TestNewestPong(t *testing.T) {
	near, far := loopback(t)
	defer near.Close()
	defer far.Close()
	var st stream
	st.init(near, nil, time.Second)
	st.precede([]byte("rest"))
	pong1, pong2 := frame.Append(nil, frame.Pong, "1"), frame.Append(nil, frame.Pong, "2")
	pinged := frame.Append(nil, frame.Ping, "")
	for _, c := range []control{{pong, pong1}, {ping, pinged}, {pong, pong2}} {
		if left, err := st.queue(c.kind, c.frame); !left || err != nil {
			t.Fatal(left, err)
		}
	}
	if closing := pong1; !st.queueLastLocked(closing) || st.queueLastLocked(pong2) { // whatever it begins with
		t.Fatal("there is one last frame")
	}
	if told, err := st.writeWaiting(nil, nil); !told || err != nil {
		t.Fatal(told, err)
	}
	near.Close()
	want := slices.Concat([]byte("rest"), pong2, pinged, pong1)
	if got, err := io.ReadAll(far); !bytes.Equal(got, want) || err != nil {
		t.Errorf("%q %v, want %q", got, err, want)
	}
}

// A tornConn takes three bytes, and then no more.
type tornConn struct {
	net.Conn
	taken []byte
}

func (c *tornConn) TryWrite(p []byte) (int, error) {
	n := min(len(p), 3)
	c.taken = append(c.taken, p[:n]...)
	return n, nil
}

func (*tornConn) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Nothing follows what went out in part, also not while the connection that it broke is being closed.
func TestNothingFollowsATornWrite(t *testing.T) {
	conn := &tornConn{}
	var s stream
	s.init(conn, nil, time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.tryWriteLocked([]byte("hello")); err != nil || string(s.rest) != "lo" {
		t.Fatalf("%v, left %q", err, s.rest)
	}
	s.writeOutLocked(nil)
	if err := s.tryWriteLocked([]byte("next")); err == nil || string(conn.taken) != "hel" {
		t.Errorf("%v after a write that failed; the connection was given %q", err, conn.taken)
	}
}
