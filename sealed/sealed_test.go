package sealed_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/sealed"
)

func newKey(t testing.TB) []byte {
	t.Helper()
	key := make([]byte, sealed.KeySize)
	_, _ = rand.Read(key)
	return key
}

func newBox(t testing.TB, key []byte, further ...[]byte) *sealed.Box {
	t.Helper()
	b, err := sealed.New(key, further...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealAndOpen(t *testing.T) {
	b := newBox(t, newKey(t))
	for _, data := range []string{"", "x", "two\nlines \x00\xff", string(bytes.Repeat([]byte("long"), 1<<16))} {
		payload := b.Seal("news", []byte(data))
		if len(payload) != len(data)+sealed.Overhead {
			t.Errorf("%d bytes became %d", len(data), len(payload))
		}
		if len(data) > 1 && bytes.Contains(payload, []byte(data)) {
			t.Errorf("%.20q can be read", data)
		}
		if got, err := b.Open("news", payload); err != nil || string(got) != data {
			t.Errorf("%.20q was opened as %.20q, %v", data, got, err)
		}
	}
	if bytes.Equal(b.Seal("", nil), b.Seal("", nil)) {
		t.Error("two payloads are the same")
	}
}

// A bit that was changed anywhere, another topic, another key and a part of a payload are each refused, with a reason.
func TestForged(t *testing.T) {
	key := newKey(t)
	b := newBox(t, key)
	payload := b.Seal("news", []byte("hello"))
	for i := range payload {
		for bit := range 8 {
			forged := bytes.Clone(payload)
			forged[i] ^= 1 << bit
			want := sealed.ErrForged
			switch {
			case i == 0:
				want = sealed.ErrForm
			case i < 5:
				want = sealed.ErrKey
			}
			if got, err := b.Open("news", forged); err != want || got != nil {
				t.Errorf("bit %d of byte %d was changed: %q, %v, want %v", bit, i, got, err, want)
			}
		}
	}
	for n := range payload {
		if _, err := b.Open("news", payload[:n]); err == nil {
			t.Errorf("the first %d bytes were opened", n)
		}
	}
	for _, topic := range []string{"", "new", "news2", "News"} {
		if _, err := b.Open(topic, payload); err != sealed.ErrForged {
			t.Errorf("it was moved to %q: %v", topic, err)
		}
	}
	if _, err := newBox(t, newKey(t)).Open("news", payload); err != sealed.ErrKey {
		t.Errorf("with another key: %v", err)
	}
	if _, err := b.Open("news", append(bytes.Clone(payload), 0)); err != sealed.ErrForged {
		t.Errorf("with a byte more: %v", err)
	}
}

func TestReplayed(t *testing.T) {
	b := newBox(t, newKey(t))
	one, two := b.Seal("a", []byte("1")), b.Seal("a", []byte("2"))
	o := b.NewOpener()
	for i, c := range []struct {
		topic   string
		payload []byte
		want    error
	}{{"a", two, nil}, {"a", two, sealed.ErrReplayed}, {"b", one, sealed.ErrForged}, {"a", one, nil},
		{"a", one, sealed.ErrReplayed}, {"a", two, sealed.ErrReplayed}} {
		if _, err := o.Open(c.topic, c.payload); err != c.want {
			t.Errorf("step %d: %v, want %v", i, err, c.want)
		}
	}
	if _, err := b.NewOpener().Open("a", one); err != nil {
		t.Errorf("another receiver: %v", err)
	}
}

// While the key changes, programs with the old key, with both in either order, and with the new one understand each
// other as the package documentation says.
func TestRotation(t *testing.T) {
	older, newer := newKey(t), newKey(t)
	boxes := []*sealed.Box{newBox(t, older), newBox(t, older, newer), newBox(t, newer, older), newBox(t, newer)}
	for from := range boxes {
		for to := range boxes {
			_, err := boxes[to].Open("t", boxes[from].Seal("t", []byte("x")))
			ok := to == 1 || to == 2 || (from <= 1) == (to == 0)
			if want := map[bool]error{true: nil, false: sealed.ErrKey}[ok]; err != want {
				t.Errorf("from stage %d to stage %d: %v, want %v", from, to, err, want)
			}
		}
	}
}

func TestBadKeys(t *testing.T) {
	key := newKey(t)
	for name, keys := range map[string][][]byte{"none": {nil}, "short": {key[:16]}, "long": {append(newKey(t), 0)},
		"zero": {make([]byte, 32)}, "twice": {key, newKey(t), key}} {
		if _, err := sealed.New(keys[0], keys[1:]...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	given := bytes.Clone(key)
	b := newBox(t, given)
	clear(given)
	if _, err := newBox(t, key).Open("t", b.Seal("t", nil)); err != nil {
		t.Errorf("the Box has kept the caller's memory: %v", err)
	}
}

// Neither the server nor whoever reads its log sees what two clients tell each other.
func TestThroughAServer(t *testing.T) {
	b := gpoll.NewBroadcaster()
	b.Authorize = func(*http.Request) (gpoll.Grant, error) {
		return gpoll.Grant{Publish: func(string) bool { return true }}, nil
	}
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	srv := httptest.NewServer(mux)
	defer srv.Close()
	defer b.Shutdown(context.Background())

	key := newKey(t)
	dial := func() *client.Client {
		c, err := client.Dial(t.Context(), srv.URL+"/poll", client.Options{Topics: []string{"private", "other"}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	from, to := dial(), dial()
	defer from.Close()
	defer to.Close()
	payload := newBox(t, key).Seal("private", []byte("a secret"))
	for _, topic := range []string{"private", "private", "other"} {
		if _, err := from.Publish(t.Context(), topic, payload); err != nil {
			t.Fatal(err)
		}
	}
	opener, n := newBox(t, key).NewOpener(), 0
	want := []string{`"a secret" <nil>`, `"" ` + sealed.ErrReplayed.Error(), `"" ` + sealed.ErrForged.Error()}
	for m, err := range to.Messages(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(m.Data, []byte("secret")) {
			t.Errorf("the server has %q", m.Data)
		}
		data, err := opener.Open(m.Topic, m.Data)
		if got := fmt.Sprintf("%q %v", data, err); got != want[n] {
			t.Errorf("message %d: %s, want %s", n, got, want[n])
		}
		if n++; n == len(want) {
			break
		}
	}
}

func FuzzOpen(f *testing.F) {
	b := newBox(f, []byte("0123456789abcdef0123456789ABCDEF"))
	f.Add("news", b.Seal("news", []byte("x")))
	f.Add("", []byte{1})
	o := b.NewOpener()
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		data, err := b.Open(topic, payload)
		if err == nil && len(data) != len(payload)-sealed.Overhead {
			t.Errorf("%d bytes from %d", len(data), len(payload))
		}
		_, _ = o.Open(topic, payload)
	})
}

func BenchmarkSeal(b *testing.B) {
	box := newBox(b, []byte("0123456789abcdef0123456789ABCDEF"))
	data := make([]byte, 128)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		box.Seal("news", data)
	}
}

func BenchmarkOpen(b *testing.B) {
	box := newBox(b, []byte("0123456789abcdef0123456789ABCDEF"))
	payload := box.Seal("news", make([]byte, 128))
	b.SetBytes(128)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := box.Open("news", payload); err != nil {
			b.Fatal(err)
		}
	}
}
