package gpoll

import (
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

// sameOrigin reports whether origin is this server's own: PublicOrigin, or what r's Host and scheme say. A proxy in
// front may have ended TLS, so a plain request counts for both schemes.
func (b *Broadcaster) sameOrigin(origin string, r *http.Request) bool {
	if b.PublicOrigin != "" {
		return origin == b.PublicOrigin
	}
	host := strings.ToLower(r.Host)
	if host == "" || !validOrigin(origin) {
		return false
	}
	return origin == serialOrigin("https", host) || r.TLS == nil && origin == serialOrigin("http", host)
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
