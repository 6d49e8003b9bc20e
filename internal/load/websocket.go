package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// WebSocket speaks RFC 6455 as a client that never compresses.
type WebSocket struct {
	Host        string
	Path        string                 // with its query
	Query       func(c *Client) string // if set, what the path goes on with
	Headers     []string               // further lines of the request, without line ends
	Subprotocol string

	// Hello, if set, appends the first text that is sent after the handshake.
	Hello func(c *Client, dst []byte) []byte

	// Text, if set, is given each message that is no payload of the run, and appends its answer to dst. Without it a
	// client is ready after the handshake. With it a client is ready when Text has called c.Ready.
	Text func(c *Client, msg, dst []byte) ([]byte, error)

	// Packed says that a message may hold several payloads among other text.
	Packed bool
}

const (
	wsHandshake = iota
	wsOpen
)

// Start implements Protocol.
func (w *WebSocket) Start(c *Client, dst []byte) []byte {
	c.Phase = wsHandshake
	path := w.Path
	if w.Query != nil {
		path += w.Query(c)
	}
	dst = fmt.Appendf(dst, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", path, w.Host)
	if w.Subprotocol != "" {
		dst = fmt.Appendf(dst, "Sec-WebSocket-Protocol: %s\r\n", w.Subprotocol)
	}
	for _, h := range w.Headers {
		dst = append(append(dst, h...), "\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// Closed implements Protocol: a WebSocket is not opened again.
func (w *WebSocket) Closed(*Client) bool { return false }

// Receive implements Protocol.
func (w *WebSocket) Receive(c *Client, p []byte) (int, error) {
	used := 0
	if c.Phase == wsHandshake {
		end := bytes.Index(p, []byte("\r\n\r\n"))
		if end < 0 {
			return 0, nil
		}
		if err := w.upgraded(p, end); err != nil {
			return 0, err
		}
		c.Phase = wsOpen
		used = end + 4
		if w.Hello != nil {
			c.Send(AppendFrame(nil, opText, w.Hello(c, nil)))
		}
		if w.Text == nil {
			c.Ready()
		}
	}
	for {
		n, err := w.frame(c, p[used:])
		if n == 0 || err != nil {
			return used, err
		}
		used += n
	}
}

func (w *WebSocket) upgraded(p []byte, end int) error {
	if !bytes.HasPrefix(p, []byte("HTTP/1.1 101")) {
		return answered(p)
	}
	// The accept value that belongs to the key that every client here sends (RFC 6455, section 1.3).
	if v := Header(p[:end+2], "Sec-WebSocket-Accept"); string(v) != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		return errors.New("the server does not speak WebSocket: Sec-WebSocket-Accept is wrong")
	}
	if v := Header(p[:end+2], "Sec-WebSocket-Protocol"); string(v) != w.Subprotocol {
		return fmt.Errorf("the server does not speak the subprotocol %q", w.Subprotocol)
	}
	return nil
}

const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// maxWebSocketMessage bounds what is put together from fragments.
const maxWebSocketMessage = 1 << 20

// frame consumes one whole frame at the front of p and returns its length, 0 if it is not all there.
func (w *WebSocket) frame(c *Client, p []byte) (int, error) {
	if len(p) < 2 {
		return 0, nil
	}
	if p[0]&0x70 != 0 || p[1]&0x80 != 0 {
		return 0, errors.New("torn WebSocket stream: a frame is compressed or masked")
	}
	size, at := uint64(p[1]), 2
	switch size {
	case 126:
		if len(p) < 4 {
			return 0, nil
		}
		size, at = uint64(binary.BigEndian.Uint16(p[2:])), 4
	case 127:
		if len(p) < 10 {
			return 0, nil
		}
		size, at = binary.BigEndian.Uint64(p[2:]), 10
	}
	if size > maxWebSocketMessage {
		return 0, errors.New("torn WebSocket stream: a frame is too long")
	}
	end := at + int(size)
	if len(p) < end {
		return 0, nil
	}
	data, final := p[at:end], p[0]&0x80 != 0
	switch op := p[0] & 0xf; op {
	case opText, opBinary:
		if final {
			return end, w.message(c, data)
		}
		c.Part = append(c.Part[:0], data...)
	case opContinuation:
		c.Part = append(c.Part, data...)
		if len(c.Part) > maxWebSocketMessage {
			return 0, errors.New("a WebSocket message is too long")
		}
		if final {
			return end, w.message(c, c.Part)
		}
	case opPing:
		c.Send(AppendFrame(nil, opPong, data))
	case opPong:
	case opClose:
		if len(data) < 2 {
			return 0, errors.New("closed by the server without a code")
		}
		return 0, fmt.Errorf("closed by the server: %d %s", binary.BigEndian.Uint16(data), data[2:])
	default:
		return 0, fmt.Errorf("torn WebSocket stream: opcode %d", op)
	}
	return end, nil
}

func (w *WebSocket) message(c *Client, data []byte) error {
	if !w.Packed && c.Message(data) {
		return nil
	}
	if w.Packed && Scan(c, data) > 0 {
		return nil
	}
	if w.Text == nil {
		c.Foreign()
		return nil
	}
	answer, err := w.Text(c, data, nil)
	if len(answer) > 0 {
		c.Send(AppendFrame(nil, opText, answer))
	}
	return err
}

// AppendFrame appends a masked frame as a client sends it.
func AppendFrame(dst []byte, opcode byte, data []byte) []byte {
	dst = append(dst, 0x80|opcode)
	switch {
	case len(data) < 126:
		dst = append(dst, 0x80|byte(len(data)))
	case len(data) < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(len(data)))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(len(data)))
	}
	dst = append(dst, 0, 0, 0, 0) // a mask of zeros: the server has to unmask all the same
	return append(dst, data...)
}

// Scan verifies every payload of the run within data, where a quote or a line end follows each, and returns how many
// there were.
func Scan(c *Client, data []byte) (n int) {
	for {
		i := bytes.Index(data, c.stream.mark)
		if i < 0 {
			return n
		}
		data = data[i:]
		end := bytes.IndexAny(data, "\"\\\r")
		if end < 0 {
			end = len(data)
		}
		c.Message(data[:end])
		n++
		data = data[end:]
	}
}
