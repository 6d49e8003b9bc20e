package gpoll

import (
	"fmt"
	"net/http"
	"strings"
)

// What proxies do to the requests that they pass on.

// missesUpgrade reports why a request cannot become a WebSocket. A proxy drops Upgrade and Connection, and often speaks
// HTTP/1.0, unless it is told otherwise; the key of the handshake still shows that a client meant one.
func missesUpgrade(r *http.Request) *refusal {
	connection, upgrade := hasToken(r.Header, "Connection", "upgrade"), hasToken(r.Header, "Upgrade", "websocket")
	newer := r.ProtoAtLeast(1, 1)
	if newer && r.ProtoMajor == 1 && connection && upgrade {
		return nil
	}
	refused := &refusal{status: http.StatusUpgradeRequired, code: "not-websocket", upgrade: r.ProtoMajor == 1}
	const instead = "; or use long-poll or SSE"
	switch {
	case r.ProtoMajor > 1:
		refused.message = "a WebSocket needs HTTP/1.1 here; over HTTP/2 use long-poll or SSE"
	case !newer:
		refused.message = "this request came by HTTP/1.0, and a WebSocket needs HTTP/1.1: the proxy in front has to " +
			"speak HTTP/1.1 to the server and to pass on the headers Upgrade and Connection" + instead
	case len(r.Header["Sec-Websocket-Key"]) == 0:
		refused.message = "this address speaks WebSocket; connect with ws:// or use the long-poll or SSE address"
	default:
		missing := "the headers Upgrade and Connection"
		if connection {
			missing = "the header Upgrade"
		} else if upgrade {
			missing = "the header Connection"
		}
		refused.message = "this WebSocket handshake came without " + missing + ": the proxy in front has to pass on " +
			"Upgrade: websocket and Connection: Upgrade" + instead
	}
	return refused
}

// An ownAddress is where browsers find this server, as a request tells.
type ownAddress struct {
	host        string
	by          string // the header that says host
	http, https bool   // the schemes that it may have
	schemeBy    string // the header that says the scheme; "": none does
	doubt       string // why a proxy's word cannot be used; then no origin is this server's own
}

// addressIn returns what r says: its Host, or with TrustForwarded what the proxy in front says instead.
func (b *Broadcaster) addressIn(r *http.Request) ownAddress {
	// A proxy may have ended TLS: a plain request counts for both schemes.
	a := ownAddress{host: r.Host, by: "Host", http: r.TLS == nil, https: true}
	if b.TrustForwarded {
		a.believe(r.Header)
	}
	a.host = strings.ToLower(a.host)
	return a
}

// is reports whether origin is at this address.
func (a *ownAddress) is(origin string) bool {
	return a.doubt == "" && a.host != "" && validOrigin(origin) &&
		(a.https && origin == serialOrigin("https", a.host) || a.http && origin == serialOrigin("http", a.host))
}

// believe takes over what a proxy says in Forwarded (RFC 7239), X-Forwarded-Host and X-Forwarded-Proto. Each proxy adds
// to their ends. Only the last one is known to be trusted, so only its word counts.
func (a *ownAddress) believe(h http.Header) {
	said, ok := lastForwarded(h["Forwarded"])
	if !ok {
		a.doubt = "Forwarded is not spelled as RFC 7239 asks; mend that in the proxy in front"
		return
	}
	host := a.choose("host", said.host, "X-Forwarded-Host", lastListed(h["X-Forwarded-Host"]))
	if host.value != "" {
		a.host, a.by = host.value, host.by
	}
	proto := a.choose("proto", said.proto, "X-Forwarded-Proto", lastListed(h["X-Forwarded-Proto"]))
	switch strings.ToLower(proto.value) {
	case "":
		return
	case "http", "ws": // some proxies name a WebSocket's own scheme
		a.http, a.https = true, false
	case "https", "wss":
		a.http, a.https = false, true
	default:
		a.doubt = fmt.Sprintf("%s says %s; the proxy in front has to say http or https", proto.by, clip(proto.value, 200))
	}
	a.schemeBy = proto.by
}

// A statement is what a proxy says, and the header that says it.
type statement struct{ value, by string }

// choose returns the value of the one header that has one. A proxy writes one of the two and may let through the other
// as a client sent it: two that differ are in doubt.
func (a *ownAddress) choose(pair, forwarded, name, value string) statement {
	switch {
	case forwarded != "" && value != "" && !strings.EqualFold(forwarded, value):
		a.doubt = fmt.Sprintf("Forwarded says %s=%s and %s says %s; the proxy in front has to remove the one that it does "+
			"not write", pair, clip(forwarded, 200), name, clip(value, 200))
		return statement{}
	case value != "":
		return statement{value, name}
	}
	return statement{forwarded, "Forwarded"}
}

// lastListed returns the last element of a header that lists values, "" when there is none.
func lastListed(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			comma := strings.LastIndexByte(rest, ',')
			if value := strings.Trim(rest[comma+1:], " \t"); value != "" {
				return value
			}
			if more = comma >= 0; more {
				rest = rest[:comma]
			}
		}
	}
	return ""
}

// A forwardedElement is what one proxy says in Forwarded, as far as it matters here.
type forwardedElement struct {
	host, proto string // "": not said
	pairs       int
}

// lastForwarded returns the last element of the header Forwarded, and the zero element when there is none. It reports
// false when the line with that element is malformed.
func lastForwarded(lines []string) (last forwardedElement, ok bool) {
	for i := len(lines) - 1; i >= 0; i-- {
		if last, ok = parseForwarded(lines[i]); !ok || last.pairs > 0 {
			return last, ok
		}
	}
	return forwardedElement{}, true
}

// parseForwarded returns the last element of one line of Forwarded (RFC 7239, section 4). It takes an unquoted value
// with characters that belong into quotes, as in host=app.example:8443, which many write.
func parseForwarded(line string) (last forwardedElement, ok bool) {
	const blank = " \t"
	var e forwardedElement
	for line = strings.Trim(line, blank); line != ""; line = strings.TrimLeft(line, blank) {
		switch line[0] {
		case ',':
			if e.pairs > 0 {
				last, e = e, forwardedElement{}
			}
			line = line[1:]
			continue
		case ';':
			line = line[1:]
			continue
		}
		name, rest, found := strings.Cut(line, "=")
		if !found || !validToken(name) {
			return forwardedElement{}, false
		}
		value, rest, good := forwardedValue(rest)
		line = strings.TrimLeft(rest, blank)
		if !good || line != "" && line[0] != ';' && line[0] != ',' {
			return forwardedElement{}, false
		}
		e.pairs++
		into := new(string) // for and by do not matter here
		switch {
		case strings.EqualFold(name, "host"):
			into = &e.host
		case strings.EqualFold(name, "proto"):
			into = &e.proto
		}
		if *into != "" { // an element says a thing once
			return forwardedElement{}, false
		}
		*into = value
	}
	if e.pairs > 0 {
		last = e
	}
	return last, true
}

// forwardedValue reads a token or a quoted string, which must not be empty, from the start of s.
func forwardedValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, "\t \",;")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], end > 0
	}
	var unquoted []byte
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return string(unquoted), s[i+1:], len(unquoted) > 0
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		unquoted = append(unquoted, s[i])
	}
	return "", "", false
}
