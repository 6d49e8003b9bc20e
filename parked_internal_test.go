package gpoll

import (
	"runtime"
	"slices"
)

// HoldConnections takes stream.mu of every connection of Listener. Its reader, a handler, Close, or a goroutine that
// ends does so for a moment too. letGo gives the locks back.
func (b *Broadcaster) HoldConnections() (letGo func()) {
	b.conns.mu.RLock()
	defer b.conns.mu.RUnlock()
	var held []*pollConn
	for _, conn := range b.conns.byAddr {
		c := conn.(*pollConn)
		c.mu.Lock()
		held = append(held, c)
	}
	return func() {
		for _, c := range slices.Backward(held) {
			c.mu.Unlock()
		}
	}
}

// AwaitRounds returns when every routine has offered its clients what is in the log now.
func (b *Broadcaster) AwaitRounds() {
	end := b.messages.end()
	b.clients.each(func(r *routine) {
		for at := r.settled(); at.Epoch != end.Epoch || at.Seq < end.Seq; at = r.settled() {
			runtime.Gosched()
		}
	})
}
