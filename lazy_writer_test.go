package gpoll_test

import (
	"net/http"
	"testing"
)

// A lazyWriter keeps the head of an answer back until something is written, as gin's does, and says that it will be
// compressed, as compressing middleware does.
type lazyWriter struct {
	http.ResponseWriter
	status int
}

func (w *lazyWriter) WriteHeader(status int)      { w.status = status }
func (w *lazyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *lazyWriter) Write(p []byte) (int, error) {
	if w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
		w.status = 0
	}
	return w.ResponseWriter.Write(p)
}

// A WebSocket is shaken hands with whatever the middleware around the mount does with heads.
func TestUpgradeBehindLazyWriter(t *testing.T) {
	s := start(t, setup{wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Middleware", "was here")
			next.ServeHTTP(&lazyWriter{ResponseWriter: w}, r)
		})
	}})
	c, res, err := s.trySocket(t, "/poll/ws", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if res.header.Get("Middleware") != "was here" || res.header.Get("Content-Encoding") != "" {
		t.Errorf("%v", res.header)
	}
	idOf(t, frame(t, c))
	s.Send("m")
	if got := frame(t, c); got != "m" {
		t.Errorf("%q", got)
	}
}
