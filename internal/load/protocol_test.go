//go:build linux

package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

const testRun = 0x0badcafe

// newClient returns a client of an engine that has no connection: what it sends goes nowhere.
func newClient(t testing.TB, p Protocol) *Client {
	t.Helper()
	s := &stream{mark: appendMark(nil, testRun), run: testRun, base: 1, clients: 1}
	e := &Engine{cfg: Config{Protocol: p}, streams: []*stream{s},
		tally: &Tally{Latency: histogram, Reasons: map[string]int{}}}
	c := &Client{engine: e, fd: -1, stream: s, sequence: sequence{next: 1}}
	p.Start(c, nil)
	return c
}

// The tests share one histogram, because it is large and they do not read it.
var histogram = newTally().Latency

// feed gives a client the pieces as the engine does, and returns the error that ends it.
func feed(c *Client, p Protocol, pieces ...[]byte) error {
	var rest []byte
	for _, piece := range pieces {
		if len(piece) == 0 {
			continue // the engine never calls with nothing new
		}
		rest = append(rest, piece...)
		used, err := p.Receive(c, rest)
		if err != nil {
			return err
		}
		rest = bytes.Clone(rest[used:])
	}
	return nil
}

func payload(seq uint64) []byte { return Payload(nil, testRun, seq, Now(), 128) }

func serverFrame(opcode byte, final bool, data []byte) []byte {
	b := []byte{opcode, 0}
	if final {
		b[0] |= 0x80
	}
	switch {
	case len(data) < 126:
		b[1] = byte(len(data))
	default:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	}
	return append(b, data...)
}

const upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" +
	"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

func webSocketStream() []byte {
	b := []byte(upgrade)
	b = append(b, serverFrame(opText, true, payload(1))...)
	b = append(b, serverFrame(opPing, true, []byte("x"))...)
	half := payload(2)
	b = append(b, serverFrame(opText, false, half[:50])...)
	b = append(b, serverFrame(opContinuation, true, half[50:])...)
	return append(b, serverFrame(opBinary, true, payload(3))...)
}

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

func eventStream() []byte {
	three := "data: " + string(payload(3)) + "\n\n"
	return []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n" +
		"Transfer-Encoding: chunked\r\n\r\n" +
		chunk(": hello\n\n") + chunk("id: 1\ndata: "+string(payload(1))+"\n\n") +
		chunk("data: "+string(payload(2))+"\r\n\r\n"+three[:20]) + chunk(three[20:]) + chunk("id: 9\n\n"))
}

func pollStream() []byte {
	var b []byte
	for seq := uint64(1); seq <= 3; seq++ {
		b = fmt.Appendf(b, "HTTP/1.1 200 OK\r\nGpoll-Position: %016x-%d\r\nContent-Length: 128\r\n\r\n%s", 7, seq,
			payload(seq))
		b = fmt.Appendf(b, "HTTP/1.1 204 No Content\r\nGpoll-Position: %016x-%d\r\n\r\n", 7, seq)
	}
	return b
}

func registeredPoll() Protocol {
	p, err := Gpoll{Host: "x", Path: "/poll"}.NewProtocol("long-poll")
	if err != nil {
		panic(err)
	}
	return p
}

const registration = "HTTP/1.1 200 OK\r\nGpoll-Position: 0000000000000007-0\r\nContent-Length: 27\r\n\r\n" +
	"{\"client-id\":\"0$6ba7b811\"}\n"

// Whatever way the network cuts a stream, the client sees the same.
func TestCutAtEveryByte(t *testing.T) {
	tests := []struct {
		name     string
		protocol func() Protocol
		stream   []byte
	}{
		{"websocket", func() Protocol { return &WebSocket{} }, webSocketStream()},
		{"sse", func() Protocol { return &EventStream{} }, eventStream()},
		{"sse until the end", func() Protocol { return &EventStream{} },
			[]byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: " +
				string(payload(1)) + "\n\ndata: " + string(payload(2)) + "\n\ndata: " + string(payload(3)) + "\n\n")},
		{"long-poll", registeredPoll, append([]byte(registration), pollStream()...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for cut := range len(tt.stream) {
				p := tt.protocol()
				c := newClient(t, p)
				if err := feed(c, p, tt.stream[:cut], tt.stream[cut:]); err != nil {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				if tally := c.engine.tally; tally.Deliveries != 3 || !tally.Clean() || tally.Foreign != 0 {
					t.Fatalf("cut at %d: %+v", cut, tally)
				}
				if !c.ready {
					t.Fatalf("cut at %d: not ready", cut)
				}
			}
			// And one byte at a time.
			p := tt.protocol()
			c := newClient(t, p)
			var pieces [][]byte
			for i := range tt.stream {
				pieces = append(pieces, tt.stream[i:i+1])
			}
			if err := feed(c, p, pieces...); err != nil || c.engine.tally.Deliveries != 3 {
				t.Fatalf("byte by byte: %v, %d deliveries", err, c.engine.tally.Deliveries)
			}
		})
	}
}

func TestProtocolErrors(t *testing.T) {
	plain, err := Gpoll{Host: "x", Path: "/poll"}.NewProtocol("websocket")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		protocol Protocol
		stream   string
		want     string // in the error
	}{
		{"no websocket", &WebSocket{}, "HTTP/1.1 404 Not Found\r\nGpoll-Error: unknown-client\r\n\r\n",
			"404 Not Found (unknown-client)"},
		{"wrong accept", &WebSocket{}, "HTTP/1.1 101 X\r\nSec-WebSocket-Accept: a\r\n\r\n", "Sec-WebSocket-Accept"},
		{"masked frame", &WebSocket{}, upgrade + "\x81\x80", "masked"},
		{"close", &WebSocket{}, upgrade + "\x88\x06\x0f\xa8slow", "4008 slow"},
		{"first frame is no registration", plain, upgrade + "\x81\x02hi", "not a gpoll server"},
		{"no http", &EventStream{}, "SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"},
		{"no stream", &EventStream{}, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", "text/html"},
		{"stream ends", &EventStream{},
			"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"ended by the server"},
		{"poll of another server", registeredPoll(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "not a gpoll server"},
		{"poll refused", registeredPoll(),
			"HTTP/1.1 503 Service Unavailable\r\nGpoll-Error: shutdown\r\nContent-Length: 0\r\n\r\n",
			"503 Service Unavailable (shutdown)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, tt.protocol)
			err := feed(c, tt.protocol, []byte(tt.stream))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// fuzz checks that no stream makes a protocol panic, and that it makes no difference where the stream is cut.
func fuzz(f *testing.F, seed []byte, protocol func() Protocol) {
	f.Add(seed, 10)
	f.Add(seed, len(seed)-3)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		cut = max(min(cut, len(stream)), 0)
		whole, pieces := protocol(), protocol()
		a, b := newClient(t, whole), newClient(t, pieces)
		errA := feed(a, whole, stream)
		errB := feed(b, pieces, stream[:cut], stream[cut:])
		if (errA == nil) != (errB == nil) {
			t.Fatalf("whole: %v; cut at %d: %v", errA, cut, errB)
		}
		x, y := a.engine.tally, b.engine.tally
		if errA == nil && (x.Deliveries != y.Deliveries || x.Lost != y.Lost || x.Repeated != y.Repeated ||
			x.Damaged != y.Damaged || x.Foreign != y.Foreign) {
			t.Fatalf("whole: %+v\ncut at %d: %+v", x, cut, y)
		}
	})
}

func FuzzWebSocket(f *testing.F)   { fuzz(f, webSocketStream(), func() Protocol { return &WebSocket{} }) }
func FuzzEventStream(f *testing.F) { fuzz(f, eventStream(), func() Protocol { return &EventStream{} }) }
func FuzzLongPoll(f *testing.F) {
	fuzz(f, append([]byte(registration), pollStream()...), registeredPoll)
}
