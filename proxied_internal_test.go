package gpoll

import (
	"strings"
	"testing"
)

// FuzzForwarded parses any line, and that line after which a proxy has said its own word: if the parser takes the
// result at all, it is the proxy's word.
func FuzzForwarded(f *testing.F) {
	for _, line := range []string{
		"", ",", ";", "=", `"`, `\`, "host", "host=", `host="`, `host=""`, `host="a\`, `host="a\"b"`, "host=a;host=b",
		"for=192.0.2.60;proto=http;by=203.0.113.43", `For="[2001:db8:cafe::17]:4711"`,
		"for=192.0.2.43, for=198.51.100.17", `host="a, b";proto=https , ;`, "host = a", "host=a b", "\thost=a\t;\tproto=b\t",
	} {
		f.Add(line, "app.example:8443")
	}
	f.Fuzz(func(t *testing.T, line, host string) {
		e, ok := parseForwarded(line)
		if !ok && e != (forwardedElement{}) || e.pairs == 0 && e != (forwardedElement{}) {
			t.Fatalf("%q: %+v %v", line, e, ok)
		}
		if host == "" {
			return
		}
		quoted := `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(host) + `"`
		last, taken := parseForwarded(line + ", proto=https;HOST=" + quoted)
		if want := (forwardedElement{host: host, proto: "https", pairs: 2}); taken && last != want {
			t.Fatalf("%q and %q: %+v", line, quoted, last)
		}
		if ok && !taken {
			t.Fatalf("%q is good, and with %q behind it it is not", line, quoted)
		}
	})
}
