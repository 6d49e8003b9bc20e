package gpoll

import "time"

// sweep looks for what time has ended: polls, heartbeats, grants, clients that stay away.
func (r *routine) sweep(now moment) {
	defer r.rescue(r.at)
	b := r.b
	b.messages.expireSometimes(time.Now())
	gone, asked := r.dues(now)
	for _, a := range r.beats {
		a.socket.beat(r)
	}
	r.beats = emptied(r.beats)
	r.expireParked(now)
	for _, c := range gone {
		b.expire(c, now)
	}
	for _, a := range asked {
		b.spawn(a.reauthorize)
	}
}

// dues looks at the clients whose time has come. It returns those that were away for too long and the attaches whose Grant has expired.
func (r *routine) dues(now moment) (gone []*Client, asked []*attach) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.hot {
		if due := r.hot[i].due; due == 0 || now < due {
			continue
		}
		c := r.clients[i]
		a := c.attach
		if a == nil {
			gone = append(gone, c)
			continue
		}
		if a.due != 0 && now >= a.due {
			r.dueLocked(a)
		}
		if a.expires != 0 && now >= a.expires {
			a.expires = 0
			asked = append(asked, a)
		}
		c.scheduleLocked()
	}
	return gone, asked
}

// dueLocked tells the goroutine of an attach that its time has come. A WebSocket's heartbeat and a parked poll need no goroutine.
func (r *routine) dueLocked(a *attach) {
	if a.poll != nil {
		if a.client.hot().mode == parked { // else its reader is at it; it stays due
			r.expired = append(r.expired, a)
		}
		return
	}
	a.due = 0
	if a.socket != nil {
		r.beats = append(r.beats, a)
		return
	}
	a.isDue = true
	a.wake()
}
