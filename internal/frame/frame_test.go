//go:build !js

// coder/websocket, the judge of these tests, has no server in js.

package frame

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// client is a frame as a client sends it.
func client(first byte, payload string, key [4]byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, masked|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

func TestWhole(t *testing.T) {
	key := [4]byte{0xa1, 0x02, 0x93, 0x44}
	for n := range 300 {
		text := strings.Repeat("0123456789abcdef", 20)[:n]
		for _, opcode := range []byte{Text, Binary, Ping, Pong} {
			sent := client(fin|opcode, text, key)
			p := append(slices.Clone(sent), "next"...)
			got, payload, size := Whole(p, 4096)
			if n > maxControl && opcode >= Close {
				if got != 0 || payload != nil || size != 0 {
					t.Fatalf("opcode %d with %d bytes: opcode %d, %q, %d", opcode, n, got, payload, size)
				}
				continue
			}
			if got != opcode || string(payload) != text || size != len(sent) {
				t.Fatalf("opcode %d with %d bytes: opcode %d, %q, %d", opcode, n, got, payload, size)
			}
			if _ = append(payload, "more"...); string(p[size:]) != "next" {
				t.Fatalf("an append to the payload reaches what follows: %q", p[size:])
			}
		}
	}
}

// What is not simple is left as it is.
func TestNotWhole(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	cases := map[string][]byte{
		"fragment":           client(Text, "x", key),
		"continuation":       client(fin, "x", key),
		"close":              client(fin|Close, "", key),
		"reserved bit":       client(fin|0x40|Text, "x", key),
		"reserved opcode":    client(fin|3, "x", key),
		"unmasked":           Append(nil, Text, "hello"),
		"unmasked and short": Append(nil, Text, ""),
		"64-bit length":      client(fin|Text, strings.Repeat("x", 1<<16), key),
		"longer than need":   {fin | Text, masked | 126, 0, 1, 0, 0, 0, 0, 'x'},
		"too large":          client(fin|Text, strings.Repeat("x", 4097), key),
		"large control":      client(fin|Ping, strings.Repeat("x", 126), key),
		"large, of which only the length is there": {fin | Binary, masked | 126, 0x10, 0x01},
	}
	for name, p := range cases {
		before := bytes.Clone(p)
		opcode, payload, size := Whole(p, 4096)
		if opcode != 0 || payload != nil || size != 0 || !bytes.Equal(p, before) {
			t.Errorf("%s: opcode %d, %q, size %d, changed: %v", name, opcode, payload, size, !bytes.Equal(p, before))
		}
	}
}

// A frame that has not all arrived is left as it is. The number of bytes that it is said to need is never more than the
// frame has, and brings it forward.
func TestNotYetWhole(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	for _, opcode := range []byte{Text, Binary, Ping, Pong} {
		for _, n := range []int{0, 1, 125, 126, 200, 4096} {
			if opcode >= Close && n > maxControl {
				continue
			}
			whole := client(fin|opcode, strings.Repeat("x", n), key)
			for cut := range whole {
				p := bytes.Clone(whole[:cut])
				got, payload, size := Whole(p, 4096)
				if got != 0 || payload != nil || size <= cut || size > len(whole) || !bytes.Equal(p, whole[:cut]) {
					t.Fatalf("opcode %d, %d of %d bytes: opcode %d, %q, size %d",
						opcode, cut, len(whole), got, payload, size)
				}
			}
			at := 0
			for steps := 0; at < len(whole); steps++ {
				if _, _, at = Whole(bytes.Clone(whole[:at]), 4096); steps == 3 && at < len(whole) {
					t.Fatalf("opcode %d, %d bytes: only %d after four looks", opcode, len(whole), at)
				}
			}
		}
	}
}

func TestWholeAllocates(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	sent := client(fin|Text, strings.Repeat("x", 100), key)
	p := make([]byte, len(sent))
	if n := testing.AllocsPerRun(100, func() {
		copy(p, sent)
		if opcode, _, _ := Whole(p, 4096); opcode != Text {
			t.Fatal("not whole")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWhole(b *testing.B) {
	key := [4]byte{1, 2, 3, 4}
	for _, size := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			sent := client(fin|Text, strings.Repeat("x", size), key)
			p := make([]byte, len(sent))
			b.ReportAllocs()
			for b.Loop() {
				copy(p, sent)
				if opcode, _, _ := Whole(p, 4096); opcode != Text {
					b.Fatal("not whole")
				}
			}
		})
	}
}

// FuzzWhole holds Whole against coder/websocket, which reads the same bytes: up to the first frame that Whole does
// not take, both have the same messages and the same answers to pings, and coder/websocket has found nothing wrong.
func FuzzWhole(f *testing.F) {
	key := [4]byte{9, 8, 7, 6}
	for _, p := range [][]byte{
		client(fin|Text, "hello", key), client(fin|Binary, "\xff\x00", key),
		client(fin|Text, strings.Repeat("x", 300), key), client(fin|Ping, "are you there", key),
		client(fin|Pong, "", key), client(Text, "frag", key), client(fin|Close, "\x03\xe8", key),
		append(client(fin|Ping, "1", key), client(fin|Text, "2", key)...), Append(nil, Text, "unmasked"),
		append(client(fin|Text, "1", key), client(Text, "2", key)...), client(fin|Text, strings.Repeat("x", 1025), key),
		{fin | Text, masked | 126, 0, 1, 0, 0, 0, 0, 'x'}, {fin | 0x40 | Text, masked, 0, 0, 0, 0},
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		const limit = 1024
		var mine []event
		rest := bytes.Clone(p)
		for {
			opcode, payload, size := Whole(rest, limit)
			if opcode == 0 {
				if !bytes.HasSuffix(p, rest) || size > 0 && size <= len(rest) {
					t.Fatalf("after %q: changed what it did not take, or wants %d of %d bytes", mine, size, len(rest))
				}
				break
			}
			mine = append(mine, event{opcode, string(payload)})
			rest = rest[size:]
		}
		taken := p[:len(p)-len(rest)]
		theirs, err := reference(taken, limit)
		if !slices.Equal(theirs, mine) || !errors.Is(err, io.EOF) {
			t.Fatalf("Whole has %q, coder/websocket has %q and %v", mine, theirs, err)
		}
	})
}

// An event is a message, a ping or a pong.
type event struct {
	opcode byte
	data   string
}

// reference reads p as a server does.
func reference(p []byte, limit int64) (events []event, err error) {
	in := struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(p), io.Discard}
	w := hijack{httptest.NewRecorder(), in}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}}
	note := func(opcode byte, data []byte) { events = append(events, event{opcode, string(data)}) }
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		CompressionMode: websocket.CompressionDisabled, InsecureSkipVerify: true,
		OnPingReceived: func(_ context.Context, data []byte) bool { note(Ping, data); return true },
		OnPongReceived: func(_ context.Context, data []byte) { note(Pong, data) },
	})
	if err != nil {
		return nil, err
	}
	defer c.CloseNow()
	c.SetReadLimit(limit)
	for {
		typ, data, err := c.Read(context.Background())
		if err != nil {
			return events, err
		}
		note(byte(typ), data)
	}
}

type hijack struct {
	*httptest.ResponseRecorder
	io.ReadWriter
}

func (h hijack) Write(p []byte) (int, error) { return h.ResponseRecorder.Write(p) }

func (h hijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return conn{h.ReadWriter}, bufio.NewReadWriter(bufio.NewReader(h.ReadWriter), bufio.NewWriter(h.ReadWriter)), nil
}

// conn is a connection that holds what was sent.
type conn struct{ io.ReadWriter }

var errNone = errors.New("no such thing here")

func (conn) Close() error                     { return nil }
func (conn) LocalAddr() net.Addr              { return nil }
func (conn) RemoteAddr() net.Addr             { return nil }
func (conn) SetDeadline(time.Time) error      { return errNone }
func (conn) SetReadDeadline(time.Time) error  { return errNone }
func (conn) SetWriteDeadline(time.Time) error { return errNone }
