package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// Paths that gpoll itself serves, beside those of the mount.
const (
	sendPath    = "/send"
	statsPath   = "/stats"
	restartPath = "/restart"
	pagePath    = "/page/" // the page's style and scripts; the page is at /
)

// site is what one address serves: the page, the broadcast, /send, /stats and /restart, for the host names that are its
// own. It is read-only once newSite has returned, and safe for concurrent use.
type site struct {
	baseURL string // as this machine reaches it, without a slash at the end
	token   string // "": publishing needs none
	hosts   map[string]bool
	mux     *http.ServeMux

	tls        *tls.Config // nil: plain HTTP
	selfSigned bool        // nobody but the certificate itself vouches for it
}

// newSite builds the site that listens on addr. It is an error to be open to others than this machine without a
// publish token: anybody could speak to everybody.
func newSite(set *settings, b *gpoll.Broadcaster, addr net.Addr, cert *tls.Certificate) (*site, error) {
	s := &site{token: set.publishToken, hosts: map[string]bool{"localhost": true}, mux: http.NewServeMux()}
	if host, _, err := net.SplitHostPort(set.addr); err == nil && host != "" {
		s.hosts[strings.ToLower(host)] = true
	}
	for _, h := range set.allowHosts {
		s.hosts[strings.ToLower(h)] = true
	}
	if u, err := url.Parse(set.publicOrigin); err == nil && set.publicOrigin != "" {
		s.hosts[strings.ToLower(u.Hostname())] = true
	}
	if reason := openToOthers(set, addr); reason != "" && s.token == "" {
		return nil, fmt.Errorf("%s, so anybody could publish: give -publish-token or $%s, or listen on 127.0.0.1 only",
			reason, tokenVariable)
	}
	if cert != nil {
		for _, name := range cert.Leaf.DNSNames {
			s.hosts[strings.ToLower(name)] = true
		}
		s.selfSigned = bytes.Equal(cert.Leaf.RawIssuer, cert.Leaf.RawSubject)
		s.tls = &tls.Config{Certificates: []tls.Certificate{*cert}}
	}
	s.baseURL = baseURL(set.addr, addr, cert)

	if err := mount(b, set.path, s.mux); err != nil {
		return nil, err
	}
	send, err := newSendHandler(b, int64(set.maxMessage), s.authorized, set.publicOrigin)
	if err != nil {
		return nil, err
	}
	s.mux.Handle(sendPath, send)
	restart, err := newRestartHandler(b.Broker, s.authorized, set.publicOrigin)
	if err != nil {
		return nil, err
	}
	s.mux.Handle(restartPath, restart)
	s.mux.HandleFunc(statsPath, func(w http.ResponseWriter, r *http.Request) { s.serveStats(w, r, b) })
	if err := addPage(s.mux, set, s.token != "", b.Stats); err != nil {
		return nil, err
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "not-found",
			"there is nothing here: the page is at /, the broadcast at "+set.path+", and messages go to "+sendPath)
	})
	return s, nil
}

// mount puts the broadcast on mux. For a bad setting ListenAndBroadcast panics with a sentence that names the field.
// mount returns that sentence as an error.
func mount(b *gpoll.Broadcaster, path string, mux *http.ServeMux) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a setting is refused: %v", p)
		}
	}()
	b.ListenAndBroadcast(path, mux)
	return nil
}

// openToOthers says how others than this machine reach the server; "" if they do not.
func openToOthers(set *settings, addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return "the address " + set.addr + " is open to other machines"
	}
	if u, err := url.Parse(set.publicOrigin); err == nil && set.publicOrigin != "" && !localName(u.Hostname()) {
		return "-public-origin says that other machines come in through a proxy"
	}
	for _, h := range set.allowHosts {
		if !localName(h) {
			return "-allow-host " + h + " says that other machines come in through a proxy"
		}
	}
	return ""
}

func localName(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// ServeHTTP answers requests for the site's own names. Any other name in Host is DNS rebinding or a mistake: a page of
// that name would be "same origin" to the browser and could read and publish. An IP address cannot be rebound.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.ownHost(r.Host) {
		refuse(w, http.StatusForbidden, "host",
			"this server does not answer for the host name of the request: start it with -allow-host and that name")
		return
	}
	s.mux.ServeHTTP(w, r)
}

func (s *site) ownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return net.ParseIP(host) != nil || s.hosts[strings.ToLower(host)]
}

// newHTTPServer returns the server of s. There is no WriteTimeout and no ReadTimeout: polls and streams are long, and
// the Broadcaster and /send set a deadline for each read and write.
func newHTTPServer(s *site, logger *slog.Logger) *http.Server {
	srv := &http.Server{
		Handler:           s,
		TLSConfig:         s.tls,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		// A client over HTTP/2 whose machine vanishes, or that takes nothing.
		HTTP2:    &http.HTTP2Config{SendPingTimeout: 15 * time.Second, WriteByteTimeout: 10 * time.Second},
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	new(unused).watch(srv)
	return srv
}

// serve answers what comes in on ln until srv is shut down.
func serve(srv *http.Server, ln net.Listener) error {
	if srv.TLSConfig != nil {
		return srv.ServeTLS(ln, "", "")
	}
	return srv.Serve(ln)
}

// listen opens addr; its errors are sentences that say what to do.
func listen(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("the address %s is taken by another program: end that one, or choose another address "+
			"with -addr", addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("this user may not listen on %s: choose a port above 1023 with -addr", addr)
	}
	return nil, fmt.Errorf("cannot listen on %s, choose another address with -addr: %w", addr, err)
}

// baseURL is the URL at which this machine reaches a server that was asked to listen on asked and listens on addr. If
// there is a certificate, it uses a name of the certificate.
func baseURL(asked string, addr net.Addr, cert *tls.Certificate) string {
	host, _, _ := net.SplitHostPort(asked)
	_, port, _ := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http"
	if cert != nil {
		scheme = "https"
		if names := cert.Leaf.DNSNames; cert.Leaf.VerifyHostname(host) != nil && len(names) > 0 {
			host = names[0]
		}
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}
