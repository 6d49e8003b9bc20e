package gpoll

import (
	"cmp"
	"net/http"
	"strings"
)

// originAllowed reports whether a page that makes this request may read the answer. Every transport asks it, since a
// browser sends WebSocket upgrades and GETs across origins without asking first.
func (b *Broadcaster) originAllowed(r *http.Request) bool {
	switch origins := r.Header["Origin"]; len(origins) {
	case 0:
		// Browsers leave Origin out of a GET of the same origin, and of a navigation; other programs leave out both headers.
		switch first(r.Header, "Sec-Fetch-Site") {
		case "", "same-origin", "none":
			return true
		}
		return false
	case 1:
		return b.set.origins[origins[0]] || b.sameOrigin(origins[0], r)
	}
	return false
}

// sameOrigin reports whether origin is this server's own: PublicOrigin, or what r says.
func (b *Broadcaster) sameOrigin(origin string, r *http.Request) bool {
	if b.PublicOrigin != "" {
		return origin == b.PublicOrigin
	}
	own := b.addressIn(r)
	return own.is(origin)
}

// refuseOrigin says, to the client and to the operator, which header of r does not match what.
func (b *Broadcaster) refuseOrigin(r *http.Request) *refusal {
	return &refusal{status: http.StatusForbidden, code: "origin", message: b.mismatch(r)}
}

func (b *Broadcaster) mismatch(r *http.Request) string {
	origins := r.Header["Origin"]
	switch len(origins) {
	case 0:
		return "there is no Origin, and Sec-Fetch-Site is " + clip(first(r.Header, "Sec-Fetch-Site"), 200) +
			": a page of another site asks; it has to use fetch, EventSource or WebSocket, " +
			"and the server lists its origin in AllowedOrigins"
	case 1:
	default:
		return "the header Origin is there more than once; send it once"
	}
	const others = "; the server lists other origins in AllowedOrigins"
	origin := origins[0]
	said := "Origin " + clip(origin, 200)
	if b.PublicOrigin != "" {
		return said + " is not this server's PublicOrigin " + b.PublicOrigin + others
	}
	own := b.addressIn(r)
	switch {
	case own.doubt != "":
		return said + " cannot be compared: " + own.doubt
	case validOrigin(origin) && strings.HasSuffix(origin, "//"+own.host):
		if own.schemeBy == "" {
			return said + " is http, and this connection has TLS" + others
		}
		return said + " has another scheme than " + own.schemeBy + " says" + others
	}
	said += " is not " + own.by + " " + clip(cmp.Or(own.host, "(none)"), 200) +
		": if a page of this server's own asks, "
	if b.TrustForwarded {
		return said + "the proxy in front has to send the Host that it got, with its port, " +
			"as X-Forwarded-Host or in Forwarded" + others
	}
	return said + "the proxy in front has to pass on Host as it came, with its port, " +
		"or the server sets PublicOrigin or TrustForwarded" + others
}

// serialOrigin returns the origin of scheme and host without the scheme's own port.
func serialOrigin(scheme, host string) string {
	return scheme + "://" + strings.TrimSuffix(host, ":"+defaultPort(scheme))
}

// writeCORS lets a page of an allowed origin see the answer. It writes only origins of AllowedOrigins.
func (b *Broadcaster) writeCORS(h http.Header, r *http.Request) {
	if origin := first(r.Header, "Origin"); b.set.origins[origin] {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Expose-Headers", "Gpoll-Position, Gpoll-Gap, Gpoll-Error")
	}
}

// answerPreflight answers OPTIONS.
func (b *Broadcaster) answerPreflight(w http.ResponseWriter, r *http.Request) {
	b.writeHead(w, r)
	h := w.Header()
	if b.set.origins[r.Header.Get("Origin")] && r.Header.Get("Access-Control-Request-Method") != "" {
		h.Set("Access-Control-Allow-Methods", "GET, POST")
		h.Set("Access-Control-Allow-Headers", b.set.allowedHeaders)
		h.Set("Access-Control-Max-Age", "600")
	} else {
		h.Set("Allow", refuseMethod.allow)
	}
	w.WriteHeader(http.StatusNoContent)
}
