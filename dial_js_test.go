package gpoll_test

import (
	"net/http"

	"github.com/coder/websocket"
)

// dialOptions: a JavaScript engine dials WebSockets in its own way.
func dialOptions(*http.Client, http.Header, string) *websocket.DialOptions {
	return &websocket.DialOptions{}
}
