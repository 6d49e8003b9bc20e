package gpoll

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/frame"
	"github.com/corvuscrypto/gpoll/internal/socket"
)

// What a message from a client costs, between its arrival and the point where a handler has it. "read", "message" and
// "fragments" send it over loopback, so that their figures contain a write(2) and a read(2): "read" has nothing else.
func BenchmarkInbound(b *testing.B) {
	message := sentFrame(0x81, strings.Repeat("x", 100))
	fragments := join(sentFrame(0x01, strings.Repeat("x", 50)), sentFrame(0x80, strings.Repeat("x", 50)))

	// What is done beside the read.
	for name, sent := range map[string][]byte{"frame": message, "frame of fragments": fragments} {
		b.Run(name, func(b *testing.B) {
			s := &streamConn{b: &Broadcaster{}, form: formJSONFrame}
			s.stream.init(&script{}, nil, time.Second)
			b.ReportAllocs()
			for b.Loop() {
				s.stream.prefix = bytes.Clone(sent)
				readsMessage(b, s)
			}
		})
	}
	b.Run("decode", func(b *testing.B) { // a frameCommand of gpoll.v1, without its frame
		text := []byte(`{"subscribe":["news"]}`)
		b.ReportAllocs()
		for b.Loop() {
			var cmd frameCommand
			if err := decodeStrict(text, &cmd); err != nil || len(cmd.Subscribe) != 1 {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		s, far := inboundSession(b)
		s.reader = socket.NewReader(quickSize)
		b.ReportAllocs()
		for b.Loop() {
			sends(b, far, message)
			p, err := s.reader.ReadSome(s.stream.raw)
			if err != nil || len(p) != len(message) {
				b.Fatal(len(p), err)
			}
			socket.Return(p)
		}
	})
	b.Run("message", func(b *testing.B) {
		s, far := inboundSession(b)
		b.ReportAllocs()
		for b.Loop() {
			sends(b, far, message)
			if err := s.readable(); err != nil {
				b.Fatal(err)
			}
			readsMessage(b, s)
		}
	})
	b.Run("fragments", func(b *testing.B) { // by way of coder/websocket
		s, far := inboundSession(b)
		b.ReportAllocs()
		for b.Loop() {
			sends(b, far, fragments)
			if err := s.readable(); err != nil {
				b.Fatal(err)
			}
			readsMessage(b, s)
		}
	})
}

// A command of gpoll.v1 and its answer, over loopback, of a client that its routine carries: one that changes its
// topics and one that is refused.
func BenchmarkSubscribe(b *testing.B) {
	benchmarkCommands(b, "subscribed", `{"subscribe":["news"]}`, "unsubscribed", `{"unsubscribe":["news"]}`)
}

func BenchmarkRefused(b *testing.B) { benchmarkCommands(b, "error", `{"what":1}`) }

// benchmarkCommands has a client give commands in turn. Each stands behind what its answer says.
func benchmarkCommands(b *testing.B, answers ...string) {
	s, far := commandSession(b)
	c := s.attach.client
	carried := func() bool {
		c.routine.mu.Lock()
		defer c.routine.mu.Unlock()
		return c.hot().mode.carried()
	}
	var said, sent [][]byte
	for i := 0; i < len(answers); i += 2 {
		said = append(said, fmt.Appendf(nil, "{%q:", answers[i]))
		sent = append(sent, sentFrame(0x81, answers[i+1]))
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		sends(b, far, sent[n%len(sent)])
		if got := readText(b, far); !bytes.HasPrefix(got, said[n%len(said)]) {
			b.Fatalf("%s", got)
		}
		for !carried() {
			runtime.Gosched()
		}
	}
}

// commandSession returns a session of gpoll.v1 over loopback, and its peer, which has been welcomed. The routine
// carries the session, and sweeps nothing.
func commandSession(tb testing.TB, configure ...func(*Broadcaster)) (*streamConn, net.Conn) {
	broadcaster := &Broadcaster{}
	for _, f := range configure {
		f(broadcaster)
	}
	if err := broadcaster.start(); err != nil {
		tb.Fatal(err)
	}
	broadcaster.set.tick = time.Hour
	c, refused := broadcaster.register(registration{})
	if refused != nil {
		tb.Fatal(refused.code)
	}
	near, far := loopback(tb)
	s := &streamConn{b: broadcaster, form: formJSONFrame}
	s.stream.init(near, nil, time.Second)
	if s.stream.raw == nil {
		tb.Skip("on this system every stream is written by a goroutine")
	}
	s.begin(c, attachOptions{}, nil)
	broadcaster.spawn(s.run)
	tb.Cleanup(func() {
		far.Close()
		broadcaster.Reset()
	})
	if got := readText(tb, far); !bytes.HasPrefix(got, []byte(`{"welcome":`)) {
		tb.Fatalf("%s", got)
	}
	return s, far
}

// readText reads a text frame of a server.
func readText(tb testing.TB, conn net.Conn) []byte {
	tb.Helper()
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:2]); err != nil || head[0] != 0x81 || head[1] > 126 {
		tb.Fatal(head, err)
	}
	size := int(head[1])
	if size == 126 {
		if _, err := io.ReadFull(conn, head[2:]); err != nil {
			tb.Fatal(err)
		}
		size = int(head[2])<<8 | int(head[3])
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(conn, text); err != nil {
		tb.Fatal(err)
	}
	return text
}

// inboundSession returns a session without an attach and its peer.
func inboundSession(b *testing.B) (*streamConn, net.Conn) {
	near, far := loopback(b)
	s := &streamConn{b: &Broadcaster{}, form: formJSONFrame}
	if s.stream.init(near, nil, time.Second); s.stream.raw == nil {
		b.Skip("on this system no socket is watched")
	}
	return s, far
}

func sends(b *testing.B, conn net.Conn, p []byte) {
	if _, err := conn.Write(p); err != nil {
		b.Fatal(err)
	}
}

func readsMessage(b *testing.B, s *streamConn) {
	if opcode, data, err := s.readFrame(); err != nil || opcode != frame.Text || len(data) != 100 {
		b.Fatal(opcode, len(data), err)
	}
}

// What a command costs beside the reading of its frame, of a client that is heard by an empty OnMessage.
func BenchmarkSend(b *testing.B) {
	for name, text := range map[string]string{
		"no id": `{"send":{"data":"` + strings.Repeat("x", 128) + `"}}`,
		"slow":  `{"send":{"data":"\u0061` + strings.Repeat("x", 127) + `"}}`,
	} {
		b.Run(name, func(b *testing.B) {
			s, _ := commandSession(b, func(b *Broadcaster) {
				b.UpstreamRate = -1
				b.OnMessage = func(*Client, Message) {}
			})
			b.ReportAllocs()
			for b.Loop() {
				s.receive(frame.Text, []byte(text))
			}
		})
	}
	b.Run("scan", func(b *testing.B) {
		text := []byte(`{"send":{"data":"` + strings.Repeat("x", 128) + `"}}`)
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := scanCommand(text); !ok {
				b.Fatal("not taken")
			}
		}
	})
}
