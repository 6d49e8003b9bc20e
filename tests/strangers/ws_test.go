//go:build unix

package strangers

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	opContinue, opText, opBinary, opClose, opPing, opPong = 0, 1, 2, 8, 9, 10
)

// A socket is a client's end of a WebSocket, by RFC 6455.
type socket struct {
	l  *link
	mu sync.Mutex // one frame at a time
}

// handshake asks for the upgrade. It returns the refusal when there is one.
func handshake(l *link, q *request) (*socket, []item) {
	var nonce [16]byte
	for i := range nonce {
		nonce[i] = byte(rand.Uint32())
	}
	key := base64.StdEncoding.EncodeToString(nonce[:])
	fields := []field{{"Connection", "Upgrade"}, {"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"},
		{"Sec-WebSocket-Key", key}}
	target := "/poll/ws"
	if q.n%2 == 0 {
		target = "/poll"
	}
	if q.transport == "v1" {
		fields = append(fields, field{"Sec-WebSocket-Protocol", "gpoll.v1"})
		if q.byCookie {
			fields = append(fields, q.credentials()...)
		}
	} else {
		fields = append(fields, q.fields()...)
		target += q.query()
	}
	if err := l.send("GET", target, q.host, fields, nil); err != nil {
		return nil, []item{cut(l, err)}
	}
	h, err := l.head()
	if err != nil {
		return nil, []item{cut(l, err)}
	}
	if h.status != 101 {
		r, _, err := l.body(h)
		if err != nil {
			return nil, []item{cut(l, err)}
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return nil, []item{cut(l, err)}
		}
		return nil, refusal(h, body)
	}
	accept := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	protocol := ""
	if q.transport == "v1" {
		protocol = "gpoll.v1"
	}
	if h.get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(accept[:]) ||
		!strings.EqualFold(h.get("Upgrade"), "websocket") || !strings.EqualFold(h.get("Connection"), "Upgrade") ||
		h.get("Sec-WebSocket-Protocol") != protocol || h.get("Sec-WebSocket-Extensions") != "" {
		return nil, []item{bad("a wrong handshake: %v", h.fields)}
	}
	return &socket{l: l}, nil
}

// write sends one message, in two fragments where asked for.
func (s *socket) write(op byte, data []byte, pieces bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pieces && op < opClose && len(data) > 1 {
		half := len(data) / 2
		if err := s.frame(op, data[:half], false); err != nil {
			return err
		}
		op, data = opContinue, data[half:]
	}
	return s.frame(op, data, true)
}

func (s *socket) frame(op byte, data []byte, fin bool) error {
	if fin {
		op |= 0x80
	}
	b := []byte{op}
	switch n := len(data); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126, byte(n>>8), byte(n))
	default:
		b = append(b, 0x80|127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	var mask [4]byte
	binary.BigEndian.PutUint32(mask[:], rand.Uint32())
	b = append(b, mask[:]...)
	for i, c := range data {
		b = append(b, c^mask[i%4])
	}
	s.l.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, err := s.l.conn.Write(b)
	return err
}

// readFrame reads one frame, strictly.
func (s *socket) readFrame() (op byte, fin bool, data []byte, err error) {
	var b [8]byte
	if _, err = io.ReadFull(s.l.br, b[:2]); err != nil {
		return
	}
	op, fin = b[0]&15, b[0]&0x80 != 0
	n := uint64(b[1] & 0x7f)
	switch {
	case b[0]&0x70 != 0:
		err = &malformed{"reserved bits"}
	case b[1]&0x80 != 0:
		err = &malformed{"a masked frame from the server"}
	case op > opBinary && op < opClose || op > opPong:
		err = &malformed{fmt.Sprintf("opcode %d", op)}
	case op >= opClose && (!fin || n > 125):
		err = &malformed{"a long control frame"}
	}
	if err != nil {
		return
	}
	switch n {
	case 126:
		if _, err = io.ReadFull(s.l.br, b[:2]); err != nil {
			return op, fin, nil, torn(err)
		}
		if n = uint64(binary.BigEndian.Uint16(b[:2])); n < 126 {
			return op, fin, nil, &malformed{"a length that is not minimal"}
		}
	case 127:
		if _, err = io.ReadFull(s.l.br, b[:8]); err != nil {
			return op, fin, nil, torn(err)
		}
		if n = binary.BigEndian.Uint64(b[:8]); n < 1<<16 || n > 16<<20 {
			return op, fin, nil, &malformed{fmt.Sprintf("a frame of %d bytes", n)}
		}
	}
	data = make([]byte, n)
	if _, err = io.ReadFull(s.l.br, data); err != nil {
		return op, fin, nil, torn(err)
	}
	return op, fin, data, nil
}

// read returns the next message, or the item that ends the socket. It answers pings and the close.
func (s *socket) read() (text bool, data []byte, end *item) {
	var first byte
	stop := func(it item) (bool, []byte, *item) { return false, nil, &it }
	for {
		op, fin, part, err := s.readFrame()
		if err != nil {
			if err == io.EOF {
				err = fmt.Errorf("no close frame: %w", io.ErrUnexpectedEOF)
			} else {
				err = fmt.Errorf("in a frame or before one: %w", err)
			}
			return stop(cut(s.l, err))
		}
		switch op {
		case opPing:
			s.write(opPong, part, false)
		case opPong:
		case opClose:
			s.write(opClose, part, false)
			return stop(closeItem(s.l, part))
		default:
			if (op == opContinue) != (first != 0) {
				return stop(bad("opcode %d after %d", op, first))
			}
			if op != opContinue {
				first = op
			}
			data = append(data, part...)
			if !fin {
				continue
			}
			if first == opText && !utf8.Valid(data) {
				return stop(bad("a text frame that is not UTF-8"))
			}
			return first == opText, data, nil
		}
	}
}

// closeItem reads section 11's table.
func closeItem(l *link, payload []byte) item {
	if len(payload) < 2 || !utf8.Valid(payload[2:]) {
		return bad("a close frame %q", payload)
	}
	code, reason := int(binary.BigEndian.Uint16(payload)), string(payload[2:])
	it := item{kind: ended, at: time.Now(), status: code, code: reason}
	want := map[string]int{"slow": 4008, "unknown-client": 4010, "unauthorized": 4001, "topic-forbidden": 4001,
		"superseded": 4009, "removed": 4004, "shutdown": 1001, "too-large": 1009, "rate": 4029, "left": 1000,
		"internal": 1011}
	if g, err := parseGap(reason); err == nil {
		it.code, it.gap = "gap", g
		if code != 4010 {
			return bad("close %d with a gap", code)
		}
		return it
	}
	if rest, ok := strings.CutPrefix(reason, "shutdown;retry_ms="); ok {
		ms, err := strconv.Atoi(rest)
		if err != nil || code != 1001 {
			return bad("close %d %q", code, reason)
		}
		it.code, it.hasRetry, it.retry = "shutdown", true, time.Duration(ms)*time.Millisecond
		return it
	}
	if want[reason] != code {
		it.detail = fmt.Sprintf("close %d %q is not in the table", code, reason)
	}
	// After both closes the server closes the connection.
	l.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if b, err := l.br.ReadByte(); err == nil {
		return bad("byte %d after the close frame", b)
	}
	return it
}

// readPlainWS opens a plain WebSocket and hands its items to out until it ends.
func readPlainWS(l *link, q *request, out chan<- item) {
	defer close(out)
	s, refused := handshake(l, q)
	for _, it := range refused {
		out <- it
	}
	if s == nil {
		return
	}
	for first := true; ; first = false {
		text, data, end := s.read()
		if end != nil {
			out <- *end
			return
		}
		if first {
			var reg struct {
				ID string `json:"client-id"`
			}
			if err := decode(data, &reg); err != nil || !text || reg.ID == "" {
				out <- bad("the first frame is %.60q: %v", data, err)
			}
			out <- item{kind: started, at: time.Now(), id: reg.ID}
			continue
		}
		out <- item{kind: delivered, at: time.Now(), sum: sum(data), size: len(data), text: text}
	}
}

// readV1 opens a WebSocket of gpoll.v1, says hello and hands its items to out until it ends.
func readV1(l *link, q *request, out chan<- item, opened func(*socket)) {
	defer close(out)
	s, refused := handshake(l, q)
	for _, it := range refused {
		out <- it
	}
	if s == nil {
		return
	}
	hello := map[string]any{}
	if q.id != "" {
		hello["client-id"] = q.id
	} else if q.n%2 == 0 {
		hello["client-id"] = "0"
	}
	if len(q.topics) > 0 {
		hello["topics"] = q.topics
	}
	if !q.after.none() {
		hello["after"] = q.after.String()
	}
	if q.last > 0 {
		hello["last"] = q.last
	}
	if q.user != "" && !q.byCookie {
		hello["authorization"] = "Bearer " + q.user
	}
	if err := s.write(opText, encode(map[string]any{"hello": hello}), q.pieces); err != nil {
		out <- cut(l, fmt.Errorf("hello: %w", err))
		return
	}
	for first := true; ; first = false {
		text, data, end := s.read()
		if end != nil {
			out <- *end
			return
		}
		if !text {
			out <- bad("a binary frame")
			continue
		}
		it := v1Item(data)
		if first != (it.kind == started) {
			out <- bad("welcome first %v: %.80q", first, data)
		}
		if first {
			opened(s)
		}
		out <- it
	}
}

func v1Item(data []byte) item {
	var f struct {
		element
		Welcome *struct {
			ID        string `json:"client-id"`
			Position  string `json:"position"`
			Heartbeat int    `json:"heartbeat_ms"`
			Spread    *int   `json:"spread_ms"`
		} `json:"welcome"`
		Position     *string         `json:"position"`
		Subscribed   json.RawMessage `json:"subscribed"`
		Unsubscribed json.RawMessage `json:"unsubscribed"`
		Error        *struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := decode(data, &f); err != nil {
		return bad("frame %.80q: %v", data, err)
	}
	now := time.Now()
	switch {
	case f.Welcome != nil:
		pos, err := parsePosition(f.Welcome.Position)
		if err != nil || f.Welcome.Heartbeat <= 0 || f.Welcome.Spread == nil {
			return bad("welcome %q: %v", data, err)
		}
		return item{kind: started, at: now, pos: pos, id: f.Welcome.ID}
	case f.Position != nil:
		pos, err := parsePosition(*f.Position)
		if err != nil {
			return bad("%v", err)
		}
		return item{kind: scanned, at: now, pos: pos}
	case f.Subscribed != nil, f.Unsubscribed != nil:
		it, raw := item{kind: subscribed, at: now}, f.Subscribed
		if f.Unsubscribed != nil {
			it.kind, raw = unsubscribed, f.Unsubscribed
		}
		var s struct {
			Topics   []string `json:"topics"`
			Position string   `json:"position"`
		}
		err := decode(raw, &s)
		if err == nil {
			it.topics = s.Topics
			it.pos, err = parsePosition(s.Position)
		}
		if err != nil {
			return bad("%.80q: %v", data, err)
		}
		return it
	case f.Error != nil:
		return item{kind: refused, at: now, code: f.Error.Code, detail: f.Error.Message}
	}
	return f.item()
}
