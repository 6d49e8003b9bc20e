package gpoll

import (
	"encoding/base64"
	"log/slog"
	"net/http"
	"slices"
	"strings"
)

// subprotocol is the JSON form on WebSocket.
const subprotocol = "gpoll.v1"

// upgrade makes a WebSocket of the connection. coder/websocket does the handshake. The session goes on in a goroutine
// of its own, so that net/http frees its stack and buffers.
func (b *Broadcaster) upgrade(w http.ResponseWriter, r *http.Request, req *request) *refusal {
	if refused := checkUpgrade(r); refused != nil {
		return refused
	}
	if !servesWebSocket {
		return refuseNoUpgrade
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
	s := &session{b: b, form: formFrame}
	var arr arrival
	unknown := false
	if slices.Contains(offeredProtocols(r.Header), subprotocol) {
		s.form = formJSONFrame
		if req.id != "" || req.hasTopics || !req.after.IsZero() || req.last != 0 {
			return refuseBad("bad-request", "with gpoll.v1 the client id, after, topics and last "+
				"go into the hello frame; leave them out of the request")
		}
		s.request = r.Clone(b.ctx)
		if b.state.Load() != stateOpen {
			return b.refuseShutdown()
		}
	} else {
		var refused *refusal
		if arr, refused = b.arrive(r, req); refused == nil && !arr.client.giveWay(r.Context().Done()) {
			refused = refuseHalfClosed
		}
		if unknown = refused == refuseUnknownClient; refused != nil && !unknown {
			return refused
		}
	}
	b.writeHead(w, r)
	if err := s.accept(w, r); err != nil {
		if arr.registered {
			b.remove(arr.client, endGone)
		}
		b.log.Debug("gpoll: WebSocket handshake failed", "err", err)
		return nil // coder/websocket has answered
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

var refuseNoUpgrade = &refusal{status: http.StatusNotImplemented, code: "not-websocket",
	message: "this server cannot upgrade a connection here; use long-poll or SSE"}

// If the peer has gone altogether, nobody hears this.
var refuseHalfClosed = refuseBad("not-websocket", "the connection was closed in one direction; a WebSocket needs both")

// checkUpgrade reports what is wrong with a handshake (RFC 6455, section 4.2.1).
func checkUpgrade(r *http.Request) *refusal {
	h := r.Header
	switch {
	case r.ProtoMajor != 1 || !r.ProtoAtLeast(1, 1):
		return &refusal{status: http.StatusUpgradeRequired, code: "not-websocket",
			message: "a WebSocket needs HTTP/1.1 here; over HTTP/2 use long-poll or SSE"}
	case !hasToken(h, "Connection", "upgrade") || !hasToken(h, "Upgrade", "websocket"):
		return &refusal{status: http.StatusUpgradeRequired, code: "not-websocket", upgrade: true,
			message: "this address speaks WebSocket; connect with ws:// or use the long-poll or SSE address"}
	case r.Method != http.MethodGet || h.Get("Sec-Websocket-Version") != "13" || !validKey(h["Sec-Websocket-Key"]):
		return refuseBad("not-websocket",
			"the WebSocket handshake needs GET, one Sec-WebSocket-Key and Sec-WebSocket-Version: 13")
	}
	return nil
}

// validKey reports whether a handshake has one key of 16 bytes in base64.
func validKey(keys []string) bool {
	if len(keys) != 1 {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(keys[0]))
	return err == nil && len(key) == 16
}

func offeredProtocols(h http.Header) []string {
	var offered []string
	for _, line := range h["Sec-Websocket-Protocol"] {
		for part := range strings.SplitSeq(line, ",") {
			offered = append(offered, strings.TrimSpace(part))
		}
	}
	return offered
}
