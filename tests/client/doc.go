// Package client runs the Go client of gpoll through toxiproxy, and beside it through an HTTP server that gets things
// wrong as proxies do. It is a module of its own, because the root module does not require toxiproxy.
package client
