package gpoll

import "time"

// sweep handles what is due: the ends of polls, heartbeats, expired Grants and clients that stayed away for too long.
func (r *routine) sweep(now moment) {
	defer r.rescue(r.at)
	b := r.b
	b.messages.expireSometimes(time.Now())
	gone, asked := r.dues(now)
	for _, a := range r.beats {
		a.by.overdue(r, a, now)
	}
	r.beats = emptied(r.beats)
	r.answerExpired(now)
	for _, c := range gone {
		b.expire(c, now)
	}
	for _, a := range asked {
		b.spawn(a.reauthorize)
	}
}

// dues looks at the clients whose time has come. It returns those that were away for too long and the attaches whose
// Grant has expired.
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
			a.by.elapsed(r, a)
		}
		if a.expires != 0 && now >= a.expires {
			a.expires = 0
			asked = append(asked, a)
		}
		c.scheduleLocked()
	}
	return gone, asked
}

// answerExpired answers the polls whose time is over and that no goroutine serves.
func (r *routine) answerExpired(now moment) {
	if len(r.expired) == 0 {
		return
	}
	r.scratch = <-r.b.turns
	for _, a := range r.expired {
		a.by.overdue(r, a, now)
	}
	r.expired = emptied(r.expired)
	r.writeAnswers()
	r.endTurn()
}
