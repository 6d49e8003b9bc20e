package load

import (
	"bytes"
	"testing"
)

func TestPayloadRoundTrip(t *testing.T) {
	for _, size := range []int{MinSize, 128, 1000, MaxSize} {
		for _, seq := range []uint64{1, 63, 64, 1 << 53} {
			p := Payload(nil, 0xdeadbeef, seq, 1234567890123, size)
			if len(p) != size {
				t.Fatalf("a payload of %d bytes, want %d", len(p), size)
			}
			gotSeq, stamp, err := parsePayload(p)
			if err != nil || gotSeq != seq || stamp != 1234567890123 {
				t.Fatalf("size %d seq %d: parsed %d, %d, %v", size, seq, gotSeq, stamp, err)
			}
		}
	}
}

// Whatever byte changes behind the mark, the message counts as altered, or as another one: never as the same.
func TestPayloadDamage(t *testing.T) {
	p := Payload(nil, 1, 77, 42, 128)
	for i := markLen; i < len(p); i++ {
		q := bytes.Clone(p)
		q[i] ^= 1
		seq, stamp, err := parsePayload(q)
		if err == nil && seq == 77 && stamp == 42 {
			t.Errorf("byte %d was altered without notice", i)
		}
	}
	if _, _, err := parsePayload(p[:len(p)-90]); err == nil {
		t.Error("a payload without filler was taken")
	}
}

func TestPayloadsDiffer(t *testing.T) {
	a, b := Payload(nil, 1, 1, 5, 256), Payload(nil, 1, 2, 5, 256)
	if bytes.Equal(a[fillerAt:], b[fillerAt:]) {
		t.Error("two messages have the same filler")
	}
}
