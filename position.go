package gpoll

import (
	"errors"
	"fmt"
	"strconv"
)

// A Position names a place in a Broadcaster's log. Seq counts 1, 2, 3, … inside an epoch, at most 2^53−1, and Epoch is
// 64 random bits that name one life of the log. A Position contains no time and tells a client how many
// messages exist, never what they are.
//
// The zero Position is no place: IsZero reports it and the log never assigns it.
type Position struct {
	Epoch uint64
	Seq   uint64
}

// maxSeq is the largest seq: JavaScript has no larger exact integer.
const maxSeq = 1<<53 - 1

// errPosition is the cause of every refused Position.
var errPosition = errors.New("a position is sixteen lower-case hexadecimal digits, a hyphen " +
	"and a decimal number below 2^53, " +
	"as in 9f86d081884c7d65-41")

// IsZero reports whether p is the zero Position.
func (p Position) IsZero() bool { return p == Position{} }

// String returns p as it stands on the wire: `<16 hex>-<decimal>`.
func (p Position) String() string { return string(p.append(make([]byte, 0, 37))) }

func (p Position) append(b []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[p.Epoch>>shift&15])
	}
	b = append(b, '-')
	return strconv.AppendUint(b, p.Seq, 10)
}

// ParsePosition is the inverse of [Position.String]. It accepts that spelling only: no upper case, sign,
// leading zero, space, or Seq beyond 2^53−1. It does not allocate unless it fails.
func ParsePosition(s string) (Position, error) {
	if len(s) < 18 || len(s) > 37 || s[16] != '-' {
		return Position{}, errPosition
	}
	var p Position
	for i := range 16 {
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			p.Epoch = p.Epoch<<4 | uint64(c-'0')
		case 'a' <= c && c <= 'f':
			p.Epoch = p.Epoch<<4 | uint64(c-'a'+10)
		default:
			return Position{}, errPosition
		}
	}
	seq, ok := parseSeq(s[17:])
	if !ok {
		return Position{}, errPosition
	}
	p.Seq = seq
	return p, nil
}

// parseSeq reads the digits of a Seq.
func parseSeq[T string | []byte](s T) (uint64, bool) {
	seq, ok := parseDecimal(s)
	return seq, ok && seq <= maxSeq
}

// assignable reports whether a broker may give p to a message.
func (p Position) assignable() bool { return p.Epoch != 0 && p.Seq > 0 && p.Seq <= maxSeq }

// parseDecimal reads an unsigned decimal number without sign or leading zero. It refuses the other spellings that
// strconv accepts, and numbers beyond 64 bits.
func parseDecimal[T string | []byte](s T) (uint64, bool) {
	if len(s) == 0 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	var n uint64
	for i := range len(s) {
		d := uint64(s[i] - '0')
		if s[i] < '0' || s[i] > '9' || n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// The reasons of a Gap.
const (
	gapEvicted = "evicted" // the window's count or bytes moved on
	gapExpired = "expired" // the window's age moved on
	gapEpoch   = "epoch"   // the log began a new life
	gapBroker  = "broker"  // the broker lost or withheld messages
	gapFuture  = "future"  // the cursor was beyond the log's end
)

// A Gap says that the messages From..To of an epoch may be missing. To is 0 when the rest of that epoch,
// and any epoch between it and the present one, may be missing. A gap of reason "future" has no range:
// the cursor was beyond the end of the log, and reading goes on from that end.
type Gap struct {
	Epoch    uint64
	From, To uint64
	Reason   string // "evicted", "expired", "epoch", "broker" or "future"
}

// bounds returns the two Positions of g as they stand on the wire, empty for a gap without a range.
func (g *Gap) bounds() (from, to string) {
	if g.Reason == gapFuture {
		return "", ""
	}
	return Position{g.Epoch, g.From}.String(), Position{g.Epoch, g.To}.String()
}

// String returns g as the Gpoll-Gap header and the reason of a WebSocket's close spell it: `<from>..<to>;<reason>`.
func (g *Gap) String() string {
	from, to := g.bounds()
	return fmt.Sprintf("%s..%s;%s", from, to, g.Reason)
}

func maxPosition(p Position, seq uint64) Position {
	p.Seq = max(p.Seq, seq)
	return p
}
