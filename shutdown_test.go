package gpoll_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// A client that keeps sending is told of a shutdown like any other. It has received everything that was written to it
// before its connection closes.
func TestShutdownAmongCommands(t *testing.T) {
	s := start(t, setup{server: smallSendBuffers})
	const clients = 60
	var attached, all sync.WaitGroup
	attached.Add(clients)
	ends := make([]string, clients)
	for i := range clients {
		conn := s.raw(t)
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetReadBuffer(8192)
		}
		all.Go(func() {
			in := bufio.NewReaderSize(conn, 512)
			io.WriteString(conn, rawGet("/poll/ws",
				append([]string{"Sec-WebSocket-Protocol", "gpoll.v1"}, wsHandshake...))+"\r\n")
			for line := ""; line != "\r\n"; {
				var err error
				if line, err = in.ReadString('\n'); err != nil {
					ends[i] = err.Error()
					attached.Done()
					return
				}
			}
			conn.Write(maskedText(`{"hello":{}}`))
			over := make(chan struct{})
			var sending sync.WaitGroup
			sending.Go(func() {
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for n := 0; ; n++ {
					select {
					case <-over:
						return
					case <-tick.C:
						conn.Write(maskedText(fmt.Sprintf(`{"subscribe":["t%d"]}`, n%50)))
					}
				}
			})
			once := sync.OnceFunc(attached.Done)
			ends[i] = lastOf(in, once)
			once()
			close(over)
			sending.Wait()
		})
	}
	attached.Wait()
	for range 20 {
		s.Send(strings.Repeat("x", 20_000))
	}
	shutdown(t, s.Broadcaster)
	all.Wait()
	for i, end := range ends {
		if end != "close 1001" {
			t.Errorf("client %d: %s", i, end)
		}
	}
}

// A server that shuts down does not wait for a peer that has stopped reading, while the bytes for that peer fit the
// server's socket: nobody will receive them.
func TestShutdownAndDeafPeers(t *testing.T) {
	s := start(t, setup{server: largeSendBuffers,
		broadcaster: func(b *gpoll.Broadcaster) { b.WriteTimeout = 5 * patience }})
	send := s.witness(t)
	for _, kind := range streamKinds {
		id, after := s.register(t)
		s.stream(t, kind, id, after)
	}
	for range 10 { // more than the peer's system takes
		send(strings.Repeat("x", 20_000))
	}
	shutdown(t, s.Broadcaster)
}

// maskedText is a client's text frame, masked with zeros.
func maskedText(text string) []byte {
	return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
}

// lastOf reads the frames of a server, a hundred a second, and returns how they end. read is called after each.
func lastOf(in *bufio.Reader, read func()) string {
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for ; ; <-pace.C {
		var head [2]byte
		_, err := io.ReadFull(in, head[:])
		size := int(head[1])
		if size == 126 && err == nil {
			var long [2]byte
			_, err = io.ReadFull(in, long[:])
			size = int(binary.BigEndian.Uint16(long[:]))
		}
		payload := make([]byte, size)
		if err == nil {
			_, err = io.ReadFull(in, payload)
		}
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // without addresses
		}
		switch {
		case err != nil:
			return "no close frame: " + err.Error()
		case head[0] == 0x88:
			return fmt.Sprint("close ", binary.BigEndian.Uint16(payload))
		}
		read()
	}
}
