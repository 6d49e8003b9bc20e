//go:build !js

// coder/websocket, the judge of these tests, has no server in js.

package frame

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

var someKey = [4]byte{0xa1, 0x02, 0x93, 0x44}

// A head is read once all of it is there, and not before. need brings it forward and is never more than the head has.
func TestReadHead(t *testing.T) {
	for _, first := range []byte{Text, fin | Text, Binary, fin | Binary, Continuation, fin | Continuation,
		fin | Close, fin | Ping, fin | Pong} {
		for _, n := range []int{0, 1, 125, 126, 1<<16 - 1, 1 << 16} {
			if first&0x0f >= Close && n > maxControl {
				continue
			}
			text := strings.Repeat("0123456789abcdef", n/16+1)[:n]
			sent := client(first, text, someKey)
			whole := len(sent) - n
			for cut := range sent[:whole] {
				if _, need, err := ReadHead(sent[:cut]); need <= cut || need > whole || err != nil {
					t.Fatalf("%x with %d bytes, cut at %d: need %d, %v", first, n, cut, need, err)
				}
			}
			h, need, err := ReadHead(sent[:whole])
			want := Head{first & 0x0f, first&fin != 0, uint64(n), someKey, whole}
			if h != want || need != 0 || err != nil {
				t.Fatalf("%x with %d bytes: %+v, %d, %v, want %+v", first, n, h, need, err, want)
			}
			for _, size := range []int{1, 3, 8, 1000} { // unmasked piece by piece
				payload := bytes.Clone(sent[whole:])
				for at := 0; at < n; at += size {
					h.Unmask(payload[at:min(at+size, n)], at)
				}
				if string(payload) != text {
					t.Fatalf("%x with %d bytes, %d at a time: unmasked to %q", first, n, size, payload)
				}
			}
		}
	}
}

// What is wrong with a head is found when its byte is there, and is the same thing wherever the head is cut.
func TestReadHeadFaults(t *testing.T) {
	long := []byte{fin | Text, masked | 127, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4}
	for name, c := range map[string]struct {
		sent  []byte
		after int // so many bytes it is found
		want  Fault
	}{
		"reserved bit 1":        {client(fin|0x40|Text, "x", someKey), 1, faultReserved},
		"reserved bit 2":        {client(fin|0x20|Ping, "x", someKey), 1, faultReserved},
		"reserved bit 3":        {client(0x10|Binary, "x", someKey), 1, faultReserved},
		"opcode 3":              {client(fin|3, "x", someKey), 1, faultOpcode},
		"opcode 7":              {client(7, "x", someKey), 1, faultOpcode},
		"opcode 11":             {client(fin|11, "x", someKey), 1, faultOpcode},
		"opcode 15":             {client(fin|15, "x", someKey), 1, faultOpcode},
		"fragment of a ping":    {client(Ping, "x", someKey), 1, faultFragment},
		"fragment of a close":   {client(Close, "", someKey), 1, faultFragment},
		"unmasked":              {Append(nil, Text, "hello"), 2, faultUnmasked},
		"unmasked and empty":    {Append(nil, Pong, ""), 2, faultUnmasked},
		"large ping":            {client(fin|Ping, strings.Repeat("x", 126), someKey), 8, faultControl},
		"huge close":            {client(fin|Close, strings.Repeat("x", 1<<16), someKey), 14, faultControl},
		"negative length":       {long, 14, faultLength},
		"unmasked, wrong twice": {[]byte{fin | 3, 1, 'x'}, 1, faultOpcode},
	} {
		for cut := range len(c.sent) + 1 {
			_, need, err := ReadHead(c.sent[:cut])
			if cut < c.after && (err != nil || need <= cut) || cut >= c.after && err != c.want {
				t.Errorf("%s, cut at %d: need %d, %v", name, cut, need, err)
			}
		}
	}
}

func TestCheckClose(t *testing.T) {
	good := []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999}
	for code := range uint16(1<<16 - 1) {
		for _, reason := range []string{"", "bye"} {
			err := CheckClose(append([]byte{byte(code >> 8), byte(code)}, reason...))
			known := slices.Contains(good, code) || code >= 3000 && code <= 4999
			if known && err != nil || !known && err != faultCloseCode {
				t.Fatalf("%d %q: %v", code, reason, err)
			}
		}
	}
	for payload, want := range map[string]error{"": nil, "\x03": faultCloseShort, "\x03\xe8\xff": ErrNotUTF8,
		"\x03\xed\xff": faultCloseCode, "\x03\xe8\xc3": ErrNotUTF8, "\x03\xe8ä": nil} {
		if err := CheckClose([]byte(payload)); err != want {
			t.Errorf("%q: %v, want %v", payload, err, want)
		}
	}
}

// A close frame that says what is wrong has room for it.
func TestFaultsFitIntoACloseFrame(t *testing.T) {
	for _, f := range []Fault{faultReserved, faultOpcode, faultFragment, faultUnmasked, faultControl, faultLength,
		faultCloseShort, faultCloseCode, Fault(ErrNotUTF8)} {
		if size := 2 + len("bad-frame: ") + len(f); size > maxControl {
			t.Errorf("%q: %d bytes", f, size)
		}
	}
}

// ReadHead and Whole agree about every frame that Whole takes.
func FuzzReadHead(f *testing.F) {
	f.Add(client(fin|Text, "hello", someKey))
	f.Add(client(fin|Ping, "", someKey))
	f.Add([]byte{fin | Text, masked | 126, 0, 1, 0, 0, 0, 0, 'x'})
	f.Fuzz(func(t *testing.T, p []byte) {
		h, need, err := ReadHead(p)
		fault := Fault("")
		if need != 0 && (need <= len(p) || err != nil) || err != nil && !errors.As(err, &fault) {
			t.Fatalf("need %d of %d, %v", need, len(p), err)
		}
		whole := bytes.Clone(p)
		opcode, payload, size := Whole(whole, 1024)
		if opcode == 0 {
			return
		}
		mine := bytes.Clone(p[h.Bytes:][:h.Size])
		h.Unmask(mine, 0)
		same := h.Opcode == opcode && h.Final && h.Bytes+int(h.Size) == size && bytes.Equal(mine, payload)
		if err != nil || need != 0 || !same {
			t.Fatalf("%+v %d %v, but Whole takes opcode %d of %d bytes", h, need, err, opcode, size)
		}
	})
}
