// Command melody measures github.com/olahol/melody with its default settings.
package main

import (
	"bytes"
	"net"
	"net/http"

	"github.com/olahol/melody"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
	"github.com/corvuscrypto/gpoll/peers/internal/web"
)

func main() {
	m := melody.New()
	serve.Main(serve.Peer{Start: func(ln net.Listener) (func([]byte) error, error) {
		web.Serve(ln, "/ws", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = m.HandleRequest(w, r) // the connection's end
		}))
		return func(p []byte) error { return m.Broadcast(bytes.Clone(p)) }, nil
	}})
}
