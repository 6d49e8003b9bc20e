package wire

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func all(r io.Reader) (got []Event, err error) {
	e := NewEvents(r, 64)
	for {
		ev, err := e.Next()
		if err != nil {
			return got, err
		}
		got = append(got, ev)
	}
}

// The examples and rules of the HTML standard, section 9.2.6.
func TestEvents(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []Event
	}{
		"lines of data": {"data: YHOO\ndata: +2\ndata: 10\n\n", []Event{{Data: "YHOO\n+2\n10", HasData: true}}},
		"comments and ids": {": test\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n", []Event{
			{Data: "first", HasData: true, ID: "1", HasID: true},
			{Data: "second", HasData: true, HasID: true},
			{Data: " third", HasData: true}}},
		"empty data": {"data\n\ndata\ndata\n\ndata:", []Event{{HasData: true}, {Data: "\n", HasData: true}}},
		"an id without data": {"event: position\nid: 7\n\ndata: a\n\n", []Event{
			{Name: "position", ID: "7", HasID: true}, {Data: "a", HasData: true, ID: "7"}}},
		"every line end": {"data: a\rdata: b\r\ndata: c\n\r\n\rdata: d\r\r", []Event{
			{Data: "a\nb\nc", HasData: true}, {Data: "d", HasData: true}}},
		"a name alone":      {"event: x\n\ndata: a\n\n", []Event{{Data: "a", HasData: true}}},
		"retry":             {"retry: 10\n\nretry: 1x\ndata: a\n\n", []Event{{Retry: "10"}, {Data: "a", HasData: true}}},
		"an id with NUL":    {"id: 1\x00\ndata: a\n\n", []Event{{Data: "a", HasData: true}}},
		"a byte order mark": {"\ufeffdata: a\n\n\ufeffdata: b\n\n", []Event{{Data: "a", HasData: true}}},
		"a partial event":   {"data: a\n\ndata: b\n", []Event{{Data: "a", HasData: true}}},
	} {
		for how, r := range map[string]io.Reader{
			"at once": strings.NewReader(test.text), "byte by byte": iotest.OneByteReader(strings.NewReader(test.text)),
		} {
			if got, err := all(r); err != io.EOF || !reflect.DeepEqual(got, test.want) {
				t.Errorf("%s, %s: %+v, %v; want %+v", name, how, got, err, test.want)
			}
		}
	}
}

func TestEventTooLong(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 65), "data: " + strings.Repeat("x", 40) + "\ndata: " +
		strings.Repeat("y", 40) + "\n\n"} {
		if _, err := all(strings.NewReader(text)); !errors.Is(err, ErrTooLong) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func TestParseClose(t *testing.T) {
	for _, test := range []struct {
		code   int
		reason string
		want   Refusal
	}{
		{1001, "shutdown;retry_ms=1500", Refusal{"shutdown", "shutdown;retry_ms=1500", 1500 * time.Millisecond}},
		{4010, "unknown-client", Refusal{Code: "unknown-client", Message: "unknown-client"}},
		{4010, "0000000000000001-1..0000000000000001-2;evicted",
			Refusal{Code: "gap", Message: "0000000000000001-1..0000000000000001-2;evicted"}},
		{4999, "retry_ms=-1", Refusal{Code: "close-4999", Message: "retry_ms=-1"}},
	} {
		if got := ParseClose(test.code, test.reason); got != test.want {
			t.Errorf("%d %q: %+v, want %+v", test.code, test.reason, got, test.want)
		}
	}
}

// What is no refusal, registration or gap is an error that shows it.
func TestParseOthers(t *testing.T) {
	_, err1 := ParseRefusal([]byte("<html>"))
	_, err2 := ParseRegistration([]byte(`{"client":"<html>"}`))
	_, err3 := ParseGap("<html>")
	for _, err := range []error{err1, err2, err3} {
		if err == nil || !strings.Contains(err.Error(), "<html>") {
			t.Errorf("%v", err)
		}
	}
}

// A stream is the same events wherever TCP cuts it, and no stream takes more memory than its limit.
func FuzzEvents(f *testing.F) {
	f.Add("id: 1\nevent: a\r\ndata: b\r\r\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		whole, err := all(strings.NewReader(text))
		pieces, err2 := all(iotest.OneByteReader(strings.NewReader(text)))
		if !reflect.DeepEqual(whole, pieces) || err != err2 {
			t.Fatalf("%+v, %v at once; %+v, %v byte by byte", whole, err, pieces, err2)
		}
	})
}
