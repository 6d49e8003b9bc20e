package eventloop

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
)

// ListenAndServe lets clients connect to addr, such as ":9000", and returns once it listens. It may be called several
// times.
func (l *Loop) ListenAndServe(addr string) error {
	_, err := l.Listen(addr, nil)
	return err
}

// ListenAndServeTLS is ListenAndServe with TLS.
func (l *Loop) ListenAndServeTLS(addr, certFile, keyFile string) error {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	_, err = l.Listen(addr, &tls.Config{Certificates: []tls.Certificate{cert}})
	return err
}

// Listen is ListenAndServe with a configuration of TLS; nil: none. It returns the address on which it listens, which
// tells the port where addr has port 0.
func (l *Loop) Listen(addr string, config *tls.Config) (net.Addr, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	if config != nil {
		config = config.Clone()
		config.NextProtos = []string{"http/1.1"} // a WebSocket needs it
		ln = tls.NewListener(ln, config)
	}
	if err := l.Serve(ln); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln.Addr(), nil
}

// Serve lets clients connect to ln, which it closes in the end, and returns at once.
func (l *Loop) Serve(ln net.Listener) error {
	l.mounted()
	srv := &http.Server{Handler: l, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return ErrClosed
	}
	l.servers = append(l.servers, srv)
	l.serving.Go(func() { // ends with Shutdown
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) && l.b.Logger != nil {
			l.b.Logger.Error("eventloop: a listener has failed", "err", err)
		}
	})
	return nil
}

// mounted puts the sessions in their place, once.
func (l *Loop) mounted() {
	l.mount.Do(func() {
		l.b.OnConnect, l.b.OnClose, l.b.OnMessage = l.connected, l.disconnected, l.heard
		l.b.ListenAndBroadcast("/poll", l.mux)
	})
}

// ServeHTTP lets a program mount the Loop on a server of its own: at the root, or with http.StripPrefix. A plain
// WebSocket is taken at any path, and sessions at /poll.
func (l *Loop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mounted()
	upgrade := strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
	if !upgrade || strings.Contains(strings.Join(r.Header["Sec-Websocket-Protocol"], ","), "gpoll.v1") {
		l.mux.ServeHTTP(w, r)
		return
	}
	if refused := l.refuses(r); refused != 0 {
		http.Error(w, http.StatusText(refused), refused)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: l.b.AllowedOrigins,
		CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // Accept has answered
	}
	if l.addRaw(ws) == 0 {
		_ = ws.Close(closeShutdown, "shutdown")
	}
}

// refuses returns the status by which a plain WebSocket is refused; 0: it is not.
func (l *Loop) refuses(r *http.Request) int {
	most := l.b.MaxClients
	if most == 0 {
		most = 100_000
	}
	if l.Conns() >= most {
		return http.StatusServiceUnavailable
	}
	if l.b.Authorize == nil {
		return 0
	}
	_, err := l.b.Authorize(r)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, gpoll.ErrForbidden):
		return http.StatusForbidden
	case errors.Is(err, gpoll.ErrTryLater), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	}
	return http.StatusUnauthorized
}
