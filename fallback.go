package gpoll

import (
	"net/http"
	"strings"
)

// A client that uses a transport because better ones do not work says why, in the first request by which it attaches:
// the header Gpoll-Fallback, or the field fallback of the hello. What it says is counted, and nothing else depends on
// it.

// fallbacks are the reasons that are counted by name. Others count as "other".
var fallbacks = map[string]bool{
	"ws_refused": true, "ws_silent": true, "ws_died_young": true,
	"sse_refused": true, "sse_buffered": true, "sse_died_young": true,
	"poll_blocked": true, "unreachable": true,
}

// At most so many reasons of one request are counted.
const mostFallbacks = 4

// noteFallback counts what a request says of why it does not use another transport.
func (b *Broadcaster) noteFallback(r *http.Request) {
	text := first(r.Header, "Gpoll-Fallback")
	for range mostFallbacks {
		if text == "" {
			return
		}
		var reason string
		reason, text, _ = strings.Cut(text, ",")
		if reason = strings.TrimSpace(reason); !fallbacks[reason] {
			reason = "other"
		}
		b.counts.fallbacks.add(reason)
	}
}
