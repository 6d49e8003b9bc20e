package gpoll

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll/js"
)

// ClientModule returns the name, below the path of the broadcast, of the browser client of this release, like
// client-97eeff15.js. Browsers keep what has that name for ever; what is called client.js they look at each time.
func ClientModule() string { return "client-" + js.Version() + ".js" }

// serveClient serves the modules of the browser client.
func serveClient(w http.ResponseWriter, r *http.Request) *refusal {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return refuseNotGet
	}
	file, version := clientFile(r)
	if file == nil {
		return refuseNoModule
	}
	h := w.Header()
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Access-Control-Allow-Origin", "*") // its connections are another matter
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Add("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "no-cache")
	if version == js.Version() {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	content, etag := file.Text, js.Version()
	if acceptsGzip(r.Header) {
		h.Set("Content-Encoding", "gzip")
		content, etag = file.Gzip, etag+"-gzip"
	}
	h.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	return nil
}

// clientFile returns the module that r asks for, nil if there is none, and the version in its address. A page that
// another release has served, behind the same balancer, gets this release's parts.
func clientFile(r *http.Request) (file *js.File, version string) {
	dir, name := cutLast(r.URL.Path)
	switch {
	case name == ClientModule():
		version = js.Version()
	case slices.Contains(js.Modules(), name):
		return js.Part(name), ""
	case name != "client.js":
		dir, version = cutLast(dir)
		if _, folder := cutLast(dir); folder != "client" {
			return nil, ""
		}
		return js.Part(name), version
	}
	if r.URL.Query().Has("global") {
		return js.Global(), version
	}
	return js.Core(), version
}

// cutLast cuts the last element off a path.
func cutLast(path string) (rest, last string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// acceptsGzip reports whether Accept-Encoding (RFC 9110, section 12.5.3) names gzip and does not refuse it.
func acceptsGzip(h http.Header) bool {
	for element := range elements(h["Accept-Encoding"]) {
		coding, weight, _ := strings.Cut(element, ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q, weighted := strings.CutPrefix(strings.ToLower(strings.TrimSpace(weight)), "q=")
			n, err := strconv.ParseFloat(q, 64)
			return !weighted || err != nil || n > 0
		}
	}
	return false
}

var (
	refuseNotGet = &refusal{status: http.StatusMethodNotAllowed, code: "method", allow: "GET, HEAD",
		message: "the browser client comes by GET"}
	refuseNoModule = &refusal{status: http.StatusNotFound, code: "not-found",
		message: "there is no such module; the browser client is client.js below the path of the broadcast"}
)
