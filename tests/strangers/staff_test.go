//go:build unix

package strangers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// payload makes data of 0 bytes to 60 KB: text, lines, binary, CR, broken UTF-8.
func payload(rng *rand.Rand, n int) []byte {
	if rng.IntN(40) == 0 {
		return nil
	}
	size := rng.IntN(200)
	switch x := rng.IntN(100); {
	case x < 2:
		size = 20000 + rng.IntN(40000)
	case x < 10:
		size = rng.IntN(10000)
	case x < 40:
		size = rng.IntN(2000)
	}
	b := fmt.Appendf(nil, "%d:", n)
	switch rng.IntN(8) {
	case 0: // binary
		for len(b) < size {
			b = append(b, byte(rng.Uint32()))
		}
	case 1:
		for len(b) < size {
			b = append(b, "a line\r\nand one more\r"...)
		}
	case 2:
		b = append(append([]byte(" \n"), b...), "\n\ndata: x\nid: 7\n:\n"...)
		for len(b) < size {
			b = append(b, "\n line"...)
		}
	case 3:
		for len(b) < size {
			b = append(b, "é€😀\u2028\x00\t\"<&>\\"...)
		}
	case 4:
		b = append(b, 0xff, 0xfe, 0xc0, 0x80)
	default:
		for len(b) < size {
			b = append(b, "plain words, "...)
		}
	}
	return b
}

// publish is one publisher. It stops at the draining.
func (r *run) publish(rng *rand.Rand, clients []*client, first int, gap time.Duration, stop <-chan struct{}) {
	burst := 0
	for n := first; ; n += 10 {
		if burst > 0 {
			burst--
		} else {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rng.Int64N(int64(2 * gap)))):
			}
			if rng.IntN(150) == 0 {
				burst = 30 + rng.IntN(150)
			}
		}
		select {
		case <-stop:
			return
		default:
		}
		data := payload(rng, n)
		m := &message{sum: sum(data), size: len(data), utf8: utf8.Valid(data), cr: strings.Contains(string(data), "\r")}
		someone := func() string {
			if p := clients[rng.IntN(len(clients))].current.Load(); p != nil {
				return *p
			}
			return ""
		}
		switch x := rng.IntN(100); {
		case x < 35:
		case x < 80:
			m.topic = topicPool[rng.IntN(len(topicPool))]
		case x < 84:
			m.topic = "secret.x"
		case x < 88:
			m.topic = "perk"
		case x < 94:
			m.user = "u" + strconv.Itoa(rng.IntN(users))
		case x < 98:
			m.client = someone()
		default:
			for range 3 {
				if id := someone(); id != "" {
					m.except = append(m.except, id)
				}
			}
		}
		srv := r.server()
		m.began = time.Now()
		rep, err := srv.call(command{Op: "publish", Topic: m.topic, User: m.user, Client: m.client, Except: m.except,
			Data: data})
		m.done = time.Now()
		switch {
		case err == errGone:
		case err != nil:
			m.rejected = true
		default:
			if m.pos, err = parsePosition(rep.Pos); err != nil {
				r.violate("Publish: %v", err)
			}
		}
		r.mu.Lock()
		r.messages = append(r.messages, m)
		r.mu.Unlock()
		if err == errGone {
			for r.server() == srv {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}
	}
}

const users = 40

// act is the application: it removes, revokes, bans and forbids.
func (r *run) act(rng *rand.Rand, clients []*client, every time.Duration, stop <-chan struct{}) {
	var later sync.WaitGroup
	defer later.Wait()
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rng.Int64N(int64(2 * every)))):
		}
		var a action
		c := command{}
		id := ""
		if p := clients[rng.IntN(len(clients))].current.Load(); p != nil {
			id = *p
		}
		switch x := rng.IntN(10); {
		case x < 4 && id != "":
			a = action{what: "remove", id: id}
			c = command{Op: "remove", Client: id}
		case x < 5 && id != "":
			routine, _, _ := strings.Cut(id, "$")
			n, _ := strconv.Atoi(routine)
			a = action{what: "cleanup", routine: n}
			c = command{Op: "cleanup", Routine: n}
		case x < 7:
			a = action{what: "revoke", user: "u" + strconv.Itoa(4+rng.IntN(users-4))}
			c = command{Op: "revoke", User: a.user}
		case x < 9:
			a = action{what: "ban", user: "u" + strconv.Itoa(4+rng.IntN(users-4))}
			c = command{Op: "ban", User: a.user}
		default:
			a = action{what: "forbid", user: "u" + strconv.Itoa(rng.IntN(4)), topic: "t" + strconv.Itoa(rng.IntN(8))}
			c = command{Op: "forbid", User: a.user, Topic: a.topic}
		}
		if r.bannedNow(a.user) { // its end would be that of the one before
			continue
		}
		srv := r.server()
		a.from = time.Now()
		_, err := srv.call(c)
		a.done = time.Now()
		if err != nil {
			a.done = a.done.Add(time.Hour) // it may not have been done
		}
		r.mu.Lock()
		r.actions = append(r.actions, a)
		i := len(r.actions) - 1
		r.mu.Unlock()
		if a.what == "ban" || a.what == "revoke" {
			later.Go(func() {
				select {
				case <-stop:
				case <-time.After(4500 * time.Millisecond):
				}
				until := time.Now()
				if _, err := srv.call(command{Op: "unban", User: a.user}); err != nil {
					return // the ban has ended with its server
				}
				r.mu.Lock()
				if r.actions[i].until.IsZero() {
					r.actions[i].until = until
				}
				r.mu.Unlock()
			})
		}
	}
}

// bannedNow says that a ban of user has not ended.
func (r *run) bannedNow(user string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.actions, func(a action) bool {
		return user != "" && a.user == user && (a.what == "ban" || a.what == "revoke") && a.until.IsZero()
	})
}
