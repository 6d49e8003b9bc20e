//go:build explore && linux

package explore

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// addClosers adds somebody who opens plain WebSockets, reads a little or falls behind, and sends a close frame while
// messages flow. It is always answered. The closers draw from a source of their own, so that the other actors of a seed
// stay what they were.
func (w *world) addClosers() {
	rnd := rand.New(rand.NewPCG(w.seed, 0x434c_4f53_4552))
	if rnd.IntN(3) > 0 {
		return
	}
	count := 1 + rnd.IntN(3)
	w.say("a closer of %d WebSockets", count)
	w.actors = append(w.actors, func() {
		for range count {
			time.Sleep(moment(rnd))
			if err := w.closeOne(rnd); err != nil {
				w.fault("closer: %v", err)
			}
		}
	})
}

func (w *world) closeOne(rnd *rand.Rand) error {
	conn, err := w.ln.DialContext(context.Background(), "tcp", "gpoll.test:80")
	if err != nil {
		return nil // the server has gone
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(longest))
	const request = "GET /poll/ws HTTP/1.1\r\nHost: gpoll.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return nil
	}
	r := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return nil // refused
	}
	for range rnd.IntN(5) {
		opcode, _, err := nextFrame(r)
		if err != nil {
			return err
		}
		if opcode == 8 {
			return nil // the server was first
		}
		time.Sleep(moment(rnd) / 4)
	}
	if rnd.IntN(2) == 0 {
		time.Sleep(moment(rnd)) // it falls behind
	}
	sent := "\x88\x85\x00\x00\x00\x00\x03\xe8bye"
	if rnd.IntN(2) == 0 {
		sent = "\x89\x80\x00\x00\x00\x00" + sent // a ping before it
	}
	at := rnd.IntN(len(sent))
	for _, part := range []string{sent[:at], sent[at:]} {
		if _, err := io.WriteString(conn, part); err != nil {
			break // the server has closed the connection, and said why
		}
		time.Sleep(moment(rnd) / 4)
	}
	for {
		opcode, payload, err := nextFrame(r)
		if err != nil {
			return fmt.Errorf("no answer to the close frame: %w", err)
		}
		if opcode != 8 {
			continue
		}
		code := binary.BigEndian.Uint16([]byte(payload + "\x00\x00"))
		if payload != "\x03\xe8bye" && code != 1001 && code < 4000 {
			return fmt.Errorf("the answer to the close frame is %q", payload)
		}
		if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
			return fmt.Errorf("behind the close frame: %q, %w", rest, err)
		}
		return nil
	}
}

// nextFrame reads a frame of the server.
func nextFrame(r *bufio.Reader) (opcode byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, "", err
	}
	size := int(head[1])
	if size == 126 {
		var long [2]byte
		if _, err := io.ReadFull(r, long[:]); err != nil {
			return 0, "", err
		}
		size = int(binary.BigEndian.Uint16(long[:]))
	}
	p := make([]byte, size)
	_, err = io.ReadFull(r, p)
	return head[0] & 0xf, string(p), err
}
