package gpoll

import (
	"bytes"
	"io"
	"net"
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
			s := &session{b: &Broadcaster{}, form: formJSONFrame}
			s.stream.init(&script{}, nil, time.Second)
			b.ReportAllocs()
			for b.Loop() {
				s.stream.prefix = bytes.Clone(sent)
				readsMessage(b, s)
			}
		})
	}
	b.Run("decode", func(b *testing.B) { // a command of gpoll.v1, without its frame
		text := []byte(`{"subscribe":["news"]}`)
		b.ReportAllocs()
		for b.Loop() {
			var cmd command
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

// A command of gpoll.v1 and its answer, over loopback: a subscribe of a topic that is already there.
func BenchmarkCommand(b *testing.B) {
	broadcaster := &Broadcaster{}
	if err := broadcaster.start(); err != nil {
		b.Fatal(err)
	}
	c, refused := broadcaster.register(registration{})
	if refused != nil {
		b.Fatal(refused.code)
	}
	near, far := loopback(b)
	s := &session{b: broadcaster, form: formJSONFrame}
	s.stream.init(near, nil, time.Second)
	s.begin(c, attachOptions{}, nil)
	broadcaster.spawn(s.run)
	b.Cleanup(func() {
		far.Close()
		broadcaster.Reset()
	})
	answer := func() []byte {
		var head [2]byte
		if _, err := io.ReadFull(far, head[:]); err != nil || head[1] > 125 {
			b.Fatal(head, err)
		}
		text := make([]byte, head[1])
		if _, err := io.ReadFull(far, text); err != nil {
			b.Fatal(err)
		}
		return text
	}
	var head [4]byte // of the welcome, which is longer
	if _, err := io.ReadFull(far, head[:]); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(far, make([]byte, int(head[2])<<8|int(head[3]))); err != nil {
		b.Fatal(err)
	}
	sent := sentFrame(0x81, `{"subscribe":["news"]}`)
	b.ReportAllocs()
	for b.Loop() {
		sends(b, far, sent)
		if got := answer(); !bytes.HasPrefix(got, []byte(`{"subscribed":`)) {
			b.Fatalf("%s", got)
		}
	}
}

// inboundSession returns a session without an attach and its peer.
func inboundSession(b *testing.B) (*session, net.Conn) {
	near, far := loopback(b)
	s := &session{b: &Broadcaster{}, form: formJSONFrame}
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

func readsMessage(b *testing.B, s *session) {
	if opcode, data, err := s.readFrame(); err != nil || opcode != frame.Text || len(data) != 100 {
		b.Fatal(opcode, len(data), err)
	}
}
