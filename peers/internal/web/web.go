// Package web starts the ordinary http.Server that the peers in Go run in.
package web

import (
	"net"
	"net/http"
)

// Serve serves h at path on ln until the process ends.
func Serve(ln net.Listener, path string, h http.Handler) {
	mux := http.NewServeMux()
	mux.Handle(path, h)
	go func() { _ = (&http.Server{Handler: mux}).Serve(ln) }() // ends with the process
}
