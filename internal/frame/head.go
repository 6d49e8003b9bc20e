package frame

import (
	"encoding/binary"
	"unicode/utf8"
)

// A Head is what stands before the payload of a client's frame (RFC 6455, section 5.2).
type Head struct {
	Opcode byte // of a message, or Continuation, or of a control frame: Close or above
	Final  bool // the message's last frame
	Size   uint64
	Key    [keyLen]byte
	Bytes  int // how long the head itself is
}

// A Fault is what a peer's frame has that RFC 6455 forbids. A server closes the connection with 1002.
type Fault string

func (f Fault) Error() string { return string(f) }

// The faults of a single frame. Those of the first byte are found without the second.
const (
	faultReserved   Fault = "no extension was agreed on: the reserved bits are 0 (RFC 6455, 5.2)"
	faultOpcode     Fault = "opcodes 3 to 7 and 11 to 15 are reserved (RFC 6455, 5.2)"
	faultFragment   Fault = "a control frame cannot be fragmented (RFC 6455, 5.5)"
	faultUnmasked   Fault = "a client masks its frames (RFC 6455, 5.1)"
	faultControl    Fault = "a control frame has at most 125 bytes (RFC 6455, 5.5)"
	faultLength     Fault = "a length has 63 bits (RFC 6455, 5.2)"
	faultCloseShort Fault = "a close frame has a code of two bytes, or nothing (RFC 6455, 5.5.1)"
	faultCloseCode  Fault = "this close code is not for the wire (RFC 6455, 7.4)"
)

// ReadHead reads the head at the front of p. need is 0 when all of it is there. Otherwise p has to have need bytes
// first, which the frame has. The error is a Fault.
func ReadHead(p []byte) (h Head, need int, err error) {
	if len(p) == 0 {
		return h, 1, nil
	}
	h.Opcode, h.Final = p[0]&0x0f, p[0]&fin != 0
	control := h.Opcode >= Close
	switch {
	case p[0]&0x70 != 0:
		return h, 0, faultReserved
	case h.Opcode > Binary && h.Opcode < Close || h.Opcode > Pong:
		return h, 0, faultOpcode
	case control && !h.Final:
		return h, 0, faultFragment
	case len(p) < 2:
		return h, 2, nil
	case p[1] < masked:
		return h, 0, faultUnmasked
	}
	h.Bytes, h.Size = 2, uint64(p[1]&^masked)
	switch h.Size {
	case 126:
		h.Bytes = 4
	case 127:
		h.Bytes = 10
	}
	h.Bytes += keyLen
	if len(p) < h.Bytes {
		return h, h.Bytes, nil
	}
	switch h.Size {
	case 126:
		h.Size = uint64(binary.BigEndian.Uint16(p[2:]))
	case 127:
		h.Size = binary.BigEndian.Uint64(p[2:])
	}
	h.Key = [keyLen]byte(p[h.Bytes-keyLen:])
	switch {
	case h.Size > 1<<63-1:
		return h, 0, faultLength
	case control && h.Size > maxControl:
		return h, 0, faultControl
	}
	return h, 0, nil
}

// Unmask unmasks p in place. at is the place of its first byte in the frame's payload.
func (h *Head) Unmask(p []byte, at int) {
	var key [keyLen]byte
	for i := range key {
		key[i] = h.Key[(at+i)%keyLen]
	}
	unmask(p, key)
}

// ErrNotUTF8 is what CheckClose finds in a reason that is no text. A server closes the connection with 1007.
const ErrNotUTF8 notUTF8 = "the reason of a close frame is UTF-8 (RFC 6455, 5.5.1)"

type notUTF8 string

func (e notUTF8) Error() string { return string(e) }

// CheckClose checks the payload of a peer's close frame. The error is a Fault or ErrNotUTF8. Without an error the
// answer is a close frame with the same payload.
func CheckClose(payload []byte) error {
	switch {
	case len(payload) == 0:
		return nil
	case len(payload) == 1:
		return faultCloseShort
	case !closeCode(binary.BigEndian.Uint16(payload)):
		return faultCloseCode
	case !utf8.Valid(payload[2:]):
		return ErrNotUTF8
	}
	return nil
}

// closeCode reports whether a peer may send a close code: those of RFC 6455, section 7.4.1, those that IANA has
// registered since, and those for libraries and applications.
func closeCode(code uint16) bool {
	switch code {
	case 1004, 1005, 1006: // reserved, or said of a connection that was closed without one
		return false
	}
	return code >= 1000 && code <= 1014 || code >= 3000 && code <= 4999
}
