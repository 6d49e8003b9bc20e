package load

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// A payload is
//
//	gpl-<run, 8 hex>-<seq, 16 hex>-<nanoseconds, 16 hex>-<filler>
//
// in ASCII without quotes or backslashes, so that it passes unchanged through JSON, an SSE line and a text frame.
const (
	markLen   = len("gpl-") + 8 + 1
	seqAt     = markLen
	stampAt   = seqAt + 16 + 1
	fillerAt  = stampAt + 16 + 1
	fillerLen = 64 // letters that repeat
)

// MinSize is the length in bytes of the shortest payload.
const MinSize = fillerAt + 1

// filler is read from a place that depends on the sequence number, so that two payloads of one length differ
// everywhere.
var filler = func() []byte {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_."
	b := make([]byte, 0, 1<<16+2*fillerLen)
	for len(b) < cap(b) {
		b = append(b, letters[:min(fillerLen, cap(b)-len(b))]...)
	}
	return b
}()

// MaxSize is the length in bytes of the longest payload.
const MaxSize = fillerAt + 1<<16

// Payload appends to dst the message of a run with number seq, made at stamp (see Now), and returns the result. The
// message is size bytes long. Payload panics if size is not in MinSize..MaxSize.
func Payload(dst []byte, run uint32, seq uint64, stamp int64, size int) []byte {
	if size < MinSize || size > MaxSize {
		panic(fmt.Sprintf("load: a payload has %d to %d bytes, not %d", MinSize, MaxSize, size))
	}
	dst = appendMark(dst, run)
	dst = append(appendHex(dst, seq), '-')
	dst = append(appendHex(dst, uint64(stamp)), '-')
	at := seq % fillerLen
	return append(dst, filler[at:at+uint64(size-fillerAt)]...)
}

func appendMark(dst []byte, run uint32) []byte {
	dst = append(dst, "gpl-"...)
	var b [8]byte
	hex.Encode(b[:], []byte{byte(run >> 24), byte(run >> 16), byte(run >> 8), byte(run)})
	return append(append(dst, b[:]...), '-')
}

func appendHex(dst []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[v>>shift&15])
	}
	return dst
}

var errDamaged = errors.New("a message arrived altered")

// parsePayload reads what Payload wrote, whose mark the caller has found at the front of p.
func parsePayload(p []byte) (seq uint64, stamp int64, err error) {
	if len(p) < MinSize || p[stampAt-1] != '-' || p[fillerAt-1] != '-' {
		return 0, 0, errDamaged
	}
	seq, ok1 := parseHex(p[seqAt : seqAt+16])
	t, ok2 := parseHex(p[stampAt : stampAt+16])
	at := seq % fillerLen
	if !ok1 || !ok2 || len(p) > MaxSize || string(p[fillerAt:]) != string(filler[at:at+uint64(len(p)-fillerAt)]) {
		return 0, 0, errDamaged
	}
	return seq, int64(t), nil
}

// hexValue is 0xff for a byte that is no lower-case hexadecimal digit.
var hexValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	return t
}()

func parseHex(p []byte) (v uint64, ok bool) {
	var bad byte
	for _, c := range p {
		d := hexValue[c]
		bad |= d
		v = v<<4 | uint64(d&15)
	}
	return v, bad < 16
}

var (
	startTime  = time.Now()
	startStamp = monotonic()
)

// Now is the monotonic clock of the machine in nanoseconds: the same in every process of it.
func Now() int64 { return startStamp + int64(time.Since(startTime)) }
