//go:build !js

package gpoll_test

import (
	"net/http"

	"github.com/coder/websocket"
)

func dialOptions(client *http.Client, header http.Header, host string) *websocket.DialOptions {
	return &websocket.DialOptions{HTTPClient: client, HTTPHeader: header, Host: host}
}
