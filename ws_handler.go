package gpoll

import (
	"crypto/sha1"
	"encoding/base64"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

// subprotocol is the JSON form on WebSocket.
const subprotocol = "gpoll.v1"

// upgrade makes a WebSocket of the connection. The streamConn goes on in a goroutine of its own, so that net/http frees
// its stack and buffers.
func (b *Broadcaster) upgrade(w http.ResponseWriter, r *http.Request, req *request) *refusal {
	shake, refused := readHandshake(r)
	if refused != nil {
		return refused
	}
	if !canHijack(w) {
		b.tell(slog.LevelError, "gpoll: a WebSocket through a ResponseWriter without Hijack: "+
			"the middleware around the mount needs a Hijack or an Unwrap method")
		return refuseNoUpgrade
	}
	if r.Header.Get("Origin") == "" && r.Header.Get("Cookie") != "" {
		// A browser sends Origin with every upgrade. This is another program: its cookies do not count.
		r = r.Clone(r.Context())
		r.Header.Del("Cookie")
	}
	s := &streamConn{b: b, form: formFrame}
	var arr arrival
	unknown := false
	if shake.protocol == subprotocol {
		s.form = formJSONFrame
		if req.id != "" || req.hasTopics || !req.after.IsZero() || req.last != 0 || req.asked != 0 || req.watch != nil {
			return refuseBad("bad-request", "with gpoll.v1 the client id, after, topics, last, asked and presence "+
				"go into the hello frame; leave them out of the request")
		}
		s.request = r.Clone(b.ctx)
		if b.state.Load() != stateOpen {
			return b.refuseShutdown()
		}
	} else {
		if req.watch != nil {
			return refusePlainPresence
		}
		if arr, refused = b.arrive(r, req); refused == nil && !arr.client.giveWay(r.Context().Done()) {
			refused = refuseHalfClosed
		}
		if refused == nil {
			refused = b.meet(arr.client, r)
		}
		if unknown = refused == refuseUnknownClient; refused != nil && !unknown {
			return refused
		}
	}
	if err := s.accept(w, r, &shake); err != nil {
		if arr.registered {
			b.remove(arr.client, endGone)
		}
		b.tell(slog.LevelError, "gpoll: the connection of a WebSocket cannot be taken over", "err", err)
		return refuseNoUpgrade
	}
	switch {
	case unknown:
		s.refuse(endUnknown)
	case s.form == formFrame:
		var o attachOptions
		arr.options(req, &o)
		s.begin(arr.client, o, nil)
	default:
		s.awaitHello()
	}
	b.spawn(s.run)
	return nil
}

// accept takes the connection from net/http and writes the 101 to it. A wrapper of net/http's ResponseWriter may keep a
// 101 back, as gin's does, or change it.
func (s *streamConn) accept(w http.ResponseWriter, r *http.Request, shake *handshake) error {
	if err := s.hijack(w); err != nil {
		return err
	}
	s.b.writeHead(w, r)
	h := w.Header()
	for _, name := range []string{"Content-Encoding", "Content-Length", "Transfer-Encoding", "Sec-Websocket-Extensions"} {
		h.Del(name) // middleware may have set it, but there is no body and no extension
	}
	shake.answer(h)
	_ = s.stream.SetWriteDeadline(time.Now().Add(s.b.set.writeTimeout))
	_, _ = s.stream.Write(headOf("101 Switching Protocols", h)) // the reader sees a closed connection
	_ = s.stream.SetWriteDeadline(time.Time{})
	return nil
}

// If the peer has gone altogether, nobody hears this.
var refuseHalfClosed = refuseBad("not-websocket", "the connection was closed in one direction; a WebSocket needs both")

var refuseNoUpgrade = &refusal{status: http.StatusNotImplemented, code: "not-websocket",
	message: "this server cannot upgrade a connection here; use long-poll or SSE"}

// A handshake is what a client's request says of the WebSocket that it asks for (RFC 6455, section 4.2.1).
type handshake struct {
	key      string
	protocol string // subprotocol, or "" where the client did not offer it
}

// readHandshake reads a handshake, or says what is wrong with it. It is the one place that reads these fields. The
// client's extensions do not matter: a server may agree to none.
func readHandshake(r *http.Request) (shake handshake, refused *refusal) {
	h := r.Header
	keys, versions := h["Sec-Websocket-Key"], h["Sec-Websocket-Version"]
	if refused := missesUpgrade(r); refused != nil {
		return shake, refused
	}
	switch {
	case r.Method != http.MethodGet:
		return shake, refuseBad("not-websocket", "a WebSocket handshake is a GET")
	case len(versions) == 0:
		return shake, refuseBad("not-websocket", "a WebSocket handshake has the header Sec-WebSocket-Version: 13")
	case len(versions) > 1 || strings.TrimSpace(versions[0]) != webSocketVersion:
		return shake, &refusal{status: http.StatusUpgradeRequired, code: "not-websocket", upgrade: true,
			message: "this server speaks the WebSocket of RFC 6455: send Sec-WebSocket-Version: 13"}
	case len(keys) != 1 || !validKey(strings.TrimSpace(keys[0])):
		return shake, refuseBad("not-websocket",
			"a WebSocket handshake has one Sec-WebSocket-Key, which is 16 random bytes in base64")
	}
	shake.key = strings.TrimSpace(keys[0])
	// Names of subprotocols are compared as they stand. A client that offers only others may still want the plain form,
	// and else goes away, as a browser does.
	if slices.Contains(slices.Collect(elements(h["Sec-Websocket-Protocol"])), subprotocol) {
		shake.protocol = subprotocol
	}
	return shake, nil
}

// answer sets the fields of the 101 (RFC 6455, section 4.2.2).
func (shake *handshake) answer(h http.Header) {
	digest := sha1.Sum([]byte(shake.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	h.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(digest[:]))
	if h.Del("Sec-WebSocket-Protocol"); shake.protocol != "" {
		h.Set("Sec-WebSocket-Protocol", shake.protocol)
	}
}

// validKey reports whether key is 16 bytes in base64.
func validKey(key string) bool {
	bytes, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(bytes) == 16
}
