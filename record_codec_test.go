package gpoll_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/corvuscrypto/gpoll"
)

const somebody = "0123456789abcdef0123456789abcdef"

// The bytes of form 1, which every later version reads: they lie in brokers.
func TestRecordForm(t *testing.T) {
	for _, tt := range []struct {
		message gpoll.Message
		want    string
	}{
		{gpoll.Message{}, "01" + "00" + "00" + "00"},
		{gpoll.Message{Data: []byte("hi")}, "01" + "00" + "00" + "00" + "6869"},
		{gpoll.Message{Topic: "ab", Data: []byte{0xff}}, "01" + "01" + "026162" + "00" + "ff"},
		{gpoll.Message{To: gpoll.ToClient(somebody)}, "01" + "02" + "20" + hex.EncodeToString([]byte(somebody)) + "00"},
		{gpoll.Message{To: gpoll.ToUser("é")}, "01" + "03" + "02c3a9" + "00"},
		{gpoll.Message{Except: []string{somebody}, Data: []byte("x")},
			"01" + "00" + "00" + "01" + "20" + hex.EncodeToString([]byte(somebody)) + "78"},
	} {
		r, err := gpoll.NewMessageRecord(tt.message)
		if got := hex.EncodeToString(r.Bytes); got != tt.want || err != nil {
			t.Errorf("%+v: %s, %v; want %s", tt.message, got, err, tt.want)
		}
	}
	r := gpoll.Record{Kind: 200, Nonce: 1, ID: "id", Bytes: []byte("b"),
		Prev: gpoll.Link{Position: gpoll.Position{Epoch: 2, Seq: 3}, Nonce: 4}}
	b, err := r.AppendBinary([]byte("before"))
	number := func(n byte) string { return strings.Repeat("\x00", 7) + string([]byte{n}) }
	want := "before" + "\x01\xc8" + number(1) + number(2) + number(3) + number(4) + "\x02id" + "b"
	if string(b) != want || err != nil {
		t.Errorf("%q, %v; want %q", b, err, want)
	}
	if _, err := (gpoll.Record{ID: strings.Repeat("x", 129)}).AppendBinary(nil); !errors.Is(err, gpoll.ErrBadMessage) {
		t.Errorf("an id of 129 bytes: %v", err)
	}
}

// A record comes back as it was; one that is cut off, damaged or in a later form is refused as such.
func TestRecordRefused(t *testing.T) {
	m := gpoll.Message{Topic: "news", Except: []string{somebody, somebody}, Data: []byte("data"), ID: "id"}
	r, err := gpoll.NewMessageRecord(m)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Message(); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%+v, %v; want %+v", got, err, m)
	}
	head := len(r.Bytes) - len(m.Data)
	for n := range head {
		cut := gpoll.Record{Kind: gpoll.RecordMessage, Bytes: r.Bytes[:n]}
		if got, err := cut.Message(); !errors.Is(err, gpoll.ErrBadMessage) {
			t.Errorf("%d bytes: %+v, %v", n, got, err)
		}
	}
	many := append([]byte{1, 0, 0, 0xe9, 0x07}, bytes.Repeat([]byte{0}, 1001)...)
	for name, b := range map[string][]byte{
		"a later form":           {2, 0, 0, 0},
		"an unknown address":     {1, 4, 1, 'a', 0},
		"everybody with a name":  {1, 0, 1, 'a', 0},
		"a topic without a name": {1, 1, 0, 0},
		"no topic":               {1, 1, 1, '"', 0},
		"1,001 in Except":        many,
		"an endless number":      append([]byte{1, 0, 0}, bytes.Repeat([]byte{0xff}, 20)...),
		"2^60 in Except":         {1, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10},
	} {
		bad := gpoll.Record{Kind: gpoll.RecordMessage, Bytes: b}
		if got, err := bad.Message(); !errors.Is(err, gpoll.ErrBadMessage) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	other := gpoll.Record{Kind: 9, Bytes: r.Bytes}
	if _, err := other.Message(); !errors.Is(err, gpoll.ErrBadMessage) {
		t.Errorf("another kind: %v", err)
	}
	whole, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) - len(r.Bytes) {
		if got, err := gpoll.DecodeRecord(whole[:n]); !errors.Is(err, gpoll.ErrBadMessage) {
			t.Errorf("%d bytes: %+v, %v", n, got, err)
		}
	}
	for name, change := range map[string]func([]byte){
		"a later form":   func(b []byte) { b[0] = 2 },
		"a long id":      func(b []byte) { b[34] = 129 },
		"an id too long": func(b []byte) { b[34] = 255 },
	} {
		b := append(slices.Clone(whole), bytes.Repeat([]byte{0}, 150)...)
		change(b)
		if got, err := gpoll.DecodeRecord(b); !errors.Is(err, gpoll.ErrBadMessage) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := gpoll.NewMessageRecord(gpoll.Message{Topic: "*"}); !errors.Is(err, gpoll.ErrBadMessage) {
		t.Errorf("a bad topic: %v", err)
	}
}

// What lies in a broker was written by somebody else: any bytes are refused, or are a record that says the same when
// it is written again, without more memory than the bytes take.
func FuzzRecord(f *testing.F) {
	for _, m := range []gpoll.Message{
		{Data: []byte("hi"), ID: "id"},
		{Topic: "news", Except: []string{somebody}, Data: []byte{0xff}},
		{To: gpoll.ToClient(somebody)},
		{To: gpoll.ToUser("alice")},
	} {
		r, err := gpoll.NewMessageRecord(m)
		if err != nil {
			f.Fatal(err)
		}
		r.Nonce, r.Prev = 1, gpoll.Link{Position: gpoll.Position{Epoch: 2, Seq: 3}, Nonce: 4}
		whole, err := r.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(whole, r.Bytes)
	}
	f.Fuzz(func(t *testing.T, whole, message []byte) {
		if r, err := gpoll.DecodeRecord(whole); err == nil {
			again, err := r.AppendBinary(nil)
			if err != nil || !bytes.Equal(again, whole) {
				t.Errorf("%x became %x, %v", whole, again, err)
			}
		} else if !errors.Is(err, gpoll.ErrBadMessage) {
			t.Errorf("%x: %v", whole, err)
		}
		r := gpoll.Record{Kind: gpoll.RecordMessage, Bytes: message}
		m, err := r.Message()
		if err != nil {
			if !errors.Is(err, gpoll.ErrBadMessage) {
				t.Errorf("%x: %v", message, err)
			}
			return
		}
		if cap(m.Data) > len(m.Data) {
			t.Errorf("%x: whoever appends to Data writes over what follows", message)
		}
		again, err := gpoll.NewMessageRecord(m)
		if errors.Is(err, gpoll.ErrBadMessage) {
			return // names that Publish would have refused
		}
		if back, err := again.Message(); err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("%+v became %+v, %v", m, back, err)
		}
	})
}
