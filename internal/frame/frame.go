// Package frame writes the frames of a WebSocket server and reads those of its clients (RFC 6455, section 5). Whole
// reads what most clients send, at once; ReadHead reads the head of every frame, and tells what is wrong with it.
package frame

import "encoding/binary"

// Opcodes (RFC 6455, section 11.8).
const (
	Continuation byte = 0
	Text         byte = 1
	Binary       byte = 2
	Close        byte = 8
	Ping         byte = 9
	Pong         byte = 10
)

const (
	fin    = 0x80 // of the first byte: the message's last frame
	masked = 0x80 // of the second byte
	keyLen = 4

	maxControl = 125 // bytes of payload (RFC 6455, section 5.5)
)

// Append appends a whole, unmasked frame to b.
func Append[T string | []byte](b []byte, opcode byte, payload T) []byte {
	b = append(b, fin|opcode)
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

// Whole looks at the frame at the front of p. It takes what most clients send and nothing else: a text or binary
// message in one frame, a ping or a pong, masked, with at most limit bytes of payload and its length in the shortest
// form.
//
// When such a frame is there, its first size bytes are p's. The payload is memory of p, unmasked in place: Whole must
// not look at these bytes again. An append to the payload does not reach what follows it.
//
// Otherwise the opcode is 0 and p is as it was. The frame may become such a one when it has at least size bytes,
// which p does not hold; with size 0 it is something else.
func Whole(p []byte, limit int) (opcode byte, payload []byte, size int) {
	const least = 2 // a first byte alone does not say whether there will be a key
	if len(p) == 0 {
		return 0, nil, least
	}
	switch p[0] {
	case fin | Text, fin | Binary:
	case fin | Ping, fin | Pong:
		limit = min(limit, maxControl)
	default: // a fragment, a close frame, a reserved bit, another opcode
		return 0, nil, 0
	}
	if len(p) < least {
		return 0, nil, least
	}
	if p[1] < masked {
		return 0, nil, 0
	}
	at, n := 2, int(p[1]&^masked)
	switch n {
	case 126:
		if at = 4; len(p) < at {
			return 0, nil, at + keyLen
		}
		if n = int(binary.BigEndian.Uint16(p[2:])); n < 126 { // which a shorter form carries
			return 0, nil, 0
		}
	case 127: // more than a caller has in memory at a time
		return 0, nil, 0
	}
	if n > limit {
		return 0, nil, 0
	}
	if size = at + keyLen + n; len(p) < size {
		return 0, nil, size
	}
	payload = p[size-n : size : size]
	unmask(payload, [keyLen]byte(p[at:]))
	return p[0] &^ fin, payload, size
}

// unmask applies the key to p, eight bytes at a time (RFC 6455, section 5.3).
func unmask(p []byte, key [keyLen]byte) {
	half := uint64(binary.LittleEndian.Uint32(key[:]))
	word := half<<32 | half
	for len(p) >= 32 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^word)
		binary.LittleEndian.PutUint64(p[8:], binary.LittleEndian.Uint64(p[8:])^word)
		binary.LittleEndian.PutUint64(p[16:], binary.LittleEndian.Uint64(p[16:])^word)
		binary.LittleEndian.PutUint64(p[24:], binary.LittleEndian.Uint64(p[24:])^word)
		p = p[32:]
	}
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^word)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= key[i%keyLen]
	}
}
