package gpoll

import (
	"net/http"
	"reflect"
)

// Middleware may hide what the server's ResponseWriter can do. By the rules of http.ResponseController a wrapper has
// the method itself, or has Unwrap. Some have both, and their method panics or fails when the wrapped ResponseWriter
// has none. So gpoll asks the innermost ResponseWriter that it can reach.

// canHijack reports whether a ResponseWriter gives its connection away.
func canHijack(w http.ResponseWriter) bool { _, ok := innermost(w).(http.Hijacker); return ok }

// canStream reports whether data can be sent before the handler returns.
func canStream(w http.ResponseWriter) bool {
	switch innermost(w).(type) {
	case http.Flusher, interface{ FlushError() error }:
		return true
	}
	return false
}

func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = outer.Unwrap()
	}
}

// isWrapped reports whether a ResponseWriter is not the server's own.
func isWrapped(w http.ResponseWriter) bool {
	t := reflect.TypeOf(w)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.PkgPath() {
	case "net/http", "net/http/internal/http2", "golang.org/x/net/http2":
		return false
	}
	return true
}
