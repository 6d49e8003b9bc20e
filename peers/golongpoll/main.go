// Command golongpoll measures github.com/jcuga/golongpoll with its default settings.
package main

import (
	"net"
	"net/http"

	"github.com/jcuga/golongpoll"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
	"github.com/corvuscrypto/gpoll/peers/internal/web"
)

func main() {
	serve.Main(serve.Peer{Start: func(ln net.Listener) (func([]byte) error, error) {
		m, err := golongpoll.StartLongpoll(golongpoll.Options{})
		if err != nil {
			return nil, err
		}
		web.Serve(ln, "/lp", http.HandlerFunc(m.SubscriptionHandler))
		return func(p []byte) error { return m.Publish("bench", string(p)) }, nil
	}})
}
