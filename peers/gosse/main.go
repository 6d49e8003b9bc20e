// Command gosse measures github.com/tmaxmax/go-sse with its default provider.
package main

import (
	"net"
	"net/http"

	"github.com/tmaxmax/go-sse"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
	"github.com/corvuscrypto/gpoll/peers/internal/web"
)

func main() {
	s := &sse.Server{OnSession: func(w http.ResponseWriter, _ *http.Request) ([]string, bool) {
		// Without this a client learns only with the first message that it is connected.
		w.Header().Set("Content-Type", "text/event-stream")
		return []string{sse.DefaultTopic}, http.NewResponseController(w).Flush() == nil
	}}
	serve.Main(serve.Peer{Start: func(ln net.Listener) (func([]byte) error, error) {
		web.Serve(ln, "/sse", s)
		return func(p []byte) error {
			m := &sse.Message{}
			m.AppendData(string(p))
			return s.Publish(m)
		}, nil
	}})
}
