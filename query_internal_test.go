package gpoll

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

// parseQuery reads and refuses what url.ParseQuery does.
func FuzzQuery(f *testing.F) {
	for _, raw := range []string{
		"", "&", "&&", "=", "a", "client-id", "client-id=0",
		"client-id=0%246ba7b811-9dad-41d1-80b4-00c04fd430c8&after=9f86d081884c7d65-41",
		"client-id=a&client-id=b", "last=1&last=", "after=%24", "after=%24%24", "after=%25%32%34", "after=%2",
		"after=%", "after=%zz", "after=%24%zz",
		"after=a+b", "after=%24+", "after=+%24", "%61fter=1", "aft%65r=%24", "topic", "topic=", "topic=a&topic=b",
		"a;b", "topic=a;topic=b", "topic=%3b",
		"format=json=plain", "format==", "x=%zz", "%zz=x", "%24=%24", "=&=", "\x00=\xff", "client-id=%2",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if len(raw) > maxQuery {
			return
		}
		q, ok := parseQuery(raw)
		want, err := url.ParseQuery(raw)
		if ok != (err == nil) {
			t.Fatalf("%q: ok is %v, url.ParseQuery says %v", raw, ok, err)
		}
		if !ok {
			return
		}
		if q.escaped {
			if !strings.Contains(q.id.value, escapedDollar) {
				t.Errorf("%q: there is no %s in the id %q", raw, escapedDollar, q.id.value)
			}
			q.id.value = strings.Replace(q.id.value, escapedDollar, "$", 1)
		}
		for name, got := range map[string]parameter{"client-id": q.id, "after": q.after, "last": q.last, "format": q.format} {
			if got.value != want.Get(name) || got.count != len(want[name]) {
				t.Errorf("%q: %s is %+v, want %q", raw, name, got, want[name])
			}
		}
		if !slices.Equal(q.topics, want["topic"]) || (q.topics == nil) != !want.Has("topic") {
			t.Errorf("%q: topics are %q, want %q", raw, q.topics, want["topic"])
		}
	})
}
