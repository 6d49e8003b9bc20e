package gpoll

import (
	"net/http"
	"reflect"
)

// What is around a handler may hide what the server's ResponseWriter can do, by the rules of http.ResponseController: a
// wrapper has the method itself, or has Unwrap. Some have both, and a method that panics or fails where what they wrap
// has none: what counts is the innermost that can be reached.

// canHijack reports whether a ResponseWriter gives its connection away.
func canHijack(w http.ResponseWriter) bool { _, ok := innermost(w).(http.Hijacker); return ok }

// canStream reports whether what is written can be sent before the handler returns.
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

// isWrapped reports whether a ResponseWriter is somebody else's than the server's.
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
