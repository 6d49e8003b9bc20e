package gpoll

import (
	"net"
	"net/http"

	"github.com/corvuscrypto/gpoll/internal/socket"
)

// A machine that vanishes without a word closes nothing, and the heartbeats that are under way to it hold keep-alive
// off. So the system gives up a connection when its peer's system acknowledges nothing for gone. With the heartbeat
// that begins it, that is 40 s after the machine vanished at the latest. A WebSocket has pings beside that.
//
// On connections of net/http it is in force only while gpoll has them: another handler's client may stop reading for as
// long as it likes.

// watchGone has the system give up a connection that is gpoll's from now on.
func (b *Broadcaster) watchGone(conn net.Conn) {
	if raw := socket.Below(conn); raw != nil {
		socket.GiveUpAfter(raw, b.set.gone)
	}
}

// unwatchGone takes watchGone back.
func (b *Broadcaster) unwatchGone(conn net.Conn) {
	if raw := socket.Below(conn); raw != nil {
		socket.GiveUpAfter(raw, 0)
	}
}

// watchRequest is watchGone for the connection of a request, where Listener knows it. The returned function takes it
// back.
func (b *Broadcaster) watchRequest(r *http.Request) (unwatch func()) {
	c, ok := b.conns.of(r).(*pollConn)
	if !ok {
		return func() {}
	}
	b.watchGone(c.Conn)
	return func() { b.unwatchGone(c.Conn) }
}
