package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/corvuscrypto/gpoll"
)

func TestPublishLines(t *testing.T) {
	for _, c := range []struct {
		name, in string
		limit    int
		want     []string
		long     []int
	}{
		{"nothing", "", 8, nil, nil},
		{"one line", "abc\n", 8, []string{"abc"}, nil},
		{"no end", "abc\ndef", 8, []string{"abc", "def"}, nil},
		{"blank lines are lines", "\n\na\n\n", 8, []string{"", "", "a", ""}, nil},
		{"CRLF", "a\r\nb\rc\r\n\r\n", 8, []string{"a", "b\rc", ""}, nil},
		{"a CR at the very end is content", "a\r", 8, []string{"a\r"}, nil},
		{"exactly the limit", "12345678\nx\n", 8, []string{"12345678", "x"}, nil},
		{"exactly the limit, CRLF", "12345678\r\nx\r\n", 8, []string{"12345678", "x"}, nil},
		{"exactly the limit, no end", "12345678", 8, []string{"12345678"}, nil},
		{"one more", "123456789\nx\n", 8, []string{"12345678", "9", "x"}, []int{1}},
		{"twice the limit", "1234567812345678\n", 8, []string{"12345678", "12345678"}, []int{1}},
		{"twice the limit, no end", "x\n1234567812345678", 8, []string{"x", "12345678", "12345678"}, []int{2}},
		{"characters stay whole", "1234567é9\n", 8, []string{"1234567", "é9"}, []int{1}},
		{"long characters stay whole", "🙂🙂🙂\n", 6, []string{"🙂", "🙂", "🙂"}, []int{1}},
		{"not UTF-8", strings.Repeat("\xbf", 10) + "\n", 4,
			[]string{"\xbf\xbf\xbf\xbf", "\xbf\xbf\xbf\xbf", "\xbf\xbf"}, []int{1}},
		{"beyond the read buffer", strings.Repeat("y", 100_000) + "\nz\n", 70_000,
			[]string{strings.Repeat("y", 70_000), strings.Repeat("y", 30_000), "z"}, []int{1}},
		{"within the limit, beyond the read buffer", strings.Repeat("y", 100_000) + "\r\nz\n", 100_000,
			[]string{strings.Repeat("y", 100_000), "z"}, nil},
		{"limit 1", "ab\n\nc\n", 1, []string{"a", "b", "", "c"}, []int{1}},
	} {
		for reader, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader,
			"error beside data": iotest.DataErrReader,
		} {
			t.Run(c.name+"/"+reader, func(t *testing.T) {
				var got []string
				var long []int
				lines, err := publishLines(wrap(strings.NewReader(c.in)), c.limit,
					func(line []byte) error { got = append(got, string(line)); return nil },
					func(line int) { long = append(long, line) })
				if err != nil || !slices.Equal(got, c.want) || !slices.Equal(long, c.long) {
					t.Errorf("got %.60q, %v, error %v, want %.60q, %v", got, long, err, c.want, c.long)
				}
				if want := len(strings.SplitAfter(strings.TrimSuffix(c.in, "\n"), "\n")); c.in != "" && lines != want {
					t.Errorf("%d lines, want %d", lines, want)
				}
			})
		}
	}
}

func TestPublishLinesEndsWithItsErrors(t *testing.T) {
	broken := errors.New("broken")
	var got []string
	publish := func(line []byte) error { got = append(got, string(line)); return nil }
	in := io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken))
	if lines, err := publishLines(in, 8, publish, nil); lines != 2 || !errors.Is(err, broken) ||
		!slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("a reader that breaks: %d lines, error %v, published %q", lines, err, got)
	}
	n := 0
	refuse := func([]byte) error {
		if n++; n == 2 {
			return gpoll.ErrClosed
		}
		return nil
	}
	if lines, err := publishLines(strings.NewReader("a\nb\nc\n"), 8, refuse, nil); lines != 1 ||
		!errors.Is(err, gpoll.ErrClosed) {
		t.Errorf("a publisher that refuses: %d lines, error %v", lines, err)
	}
}

// closing is a publisher that takes some messages and is then shut down.
type closing struct{ left int }

func (c *closing) Publish(context.Context, gpoll.Message) (gpoll.Position, error) {
	if c.left--; c.left < 0 {
		return gpoll.Position{}, gpoll.ErrClosed
	}
	return gpoll.Position{}, nil
}

func TestInputSaysWhatWasNotBroadcast(t *testing.T) {
	var stderr bytes.Buffer
	broadcastInput(t.Context(), &closing{2}, &settings{maxMessage: 10}, strings.NewReader("a\nb\nc\nd\n"), &stderr,
		slog.New(slog.DiscardHandler))
	const want = "gpoll: standard input was not broadcast after line 2: the server is shutting down\n"
	if got := stderr.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzPublishLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n\nlong line of text\n"), uint16(4))
	f.Add([]byte("grüße\xff\r"), uint16(1))
	f.Fuzz(func(t *testing.T, in []byte, max uint16) {
		limit := int(max)%64 + 1
		var all []byte
		_, err := publishLines(bytes.NewReader(in), limit, func(line []byte) error {
			if len(line) > limit || bytes.Contains(line, []byte("\n")) {
				t.Errorf("limit %d: the message %q", limit, line)
			}
			all = append(all, line...)
			return nil
		}, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.ReplaceAll(bytes.ReplaceAll(in, []byte("\r\n"), nil), []byte("\n"), nil)
		if !bytes.Equal(all, want) {
			t.Errorf("limit %d: %q became %q", limit, in, all)
		}
	})
}
