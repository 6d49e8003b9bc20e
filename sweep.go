package gpoll

import "time"

// sweep looks for what time has ended: polls, heartbeats, grants, clients that stay away.
func (r *routine) sweep(now moment) {
	b := r.b
	b.messages.expireSometimes(time.Now())
	var gone []*Client
	var asked, polls []*attach
	r.mu.Lock()
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
			if a.poll == nil {
				r.dueLocked(a)
			} else if r.hot[i].mode == parked { // else its reader is at it
				polls = append(polls, a)
			}
		}
		if a.expires != 0 && now >= a.expires {
			a.expires = 0
			asked = append(asked, a)
		}
		c.scheduleLocked()
	}
	r.mu.Unlock()
	for _, a := range r.beats {
		a.socket.beat(r)
	}
	r.beats = emptied(r.beats)
	r.expireParked(polls)
	for _, c := range gone {
		b.expire(c, now)
	}
	for _, a := range asked {
		b.spawn(a.reauthorize)
	}
}

// dueLocked tells the goroutine of an attach that its time has come. A WebSocket's heartbeat needs no goroutine.
func (r *routine) dueLocked(a *attach) {
	a.due = 0
	if a.socket != nil {
		r.beats = append(r.beats, a)
		return
	}
	a.isDue = true
	a.wake()
}
