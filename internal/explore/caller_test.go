//go:build explore && linux

package explore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// callbacks are the application's functions of a world. They keep count of what they are called for.
type callbacks struct {
	w  *world
	mu sync.Mutex // guards of
	of map[string]*heard
}

// heard is what they were called for one client.
type heard struct {
	connecting, connected, closed, busy bool
	done                                map[string]int // by id of the command
	order                               []string
}

// addCallbacks sets them. It draws from a source of its own, so that the other scripts are what they would be without.
func (w *world) addCallbacks(b *gpoll.Broadcaster) {
	rnd := rand.New(rand.NewPCG(w.seed, 0x4341_4c4c))
	if rnd.IntN(3) > 0 {
		return
	}
	cb := &callbacks{w: w, of: map[string]*heard{}}
	w.callbacks = cb
	slow := rnd.IntN(2) == 0
	wait := func() {
		if slow {
			time.Sleep(time.Duration(rnd64(&cb.mu, rnd) % uint64(2*time.Second)))
		}
	}
	b.OnConnect = func(c *gpoll.Client) error {
		cb.change(c, "OnConnect", func(h *heard) bool {
			was := h.connecting || h.connected || h.closed
			h.connecting = true
			return !was
		})
		wait()
		cb.change(c, "OnConnect's end", func(h *heard) bool { h.connected = true; return !h.closed })
		return nil
	}
	hear := func(c *gpoll.Client, m gpoll.Message) {
		cb.change(c, "a command", func(h *heard) bool {
			ok := h.connected && !h.closed && !h.busy
			h.busy = true
			h.done[m.ID]++
			h.order = append(h.order, m.ID)
			return ok
		})
		wait()
		if strings.HasSuffix(string(m.Data), "re-enter") {
			m := gpoll.Message{Data: []byte("an echo"), To: gpoll.ToClient(c.PublicID())}
			if _, err := w.Publish(context.Background(), b, m); !w.mayFail(err) {
				w.fault("from inside: %v", err)
			}
			c.Topics()
		}
		cb.change(c, "a command's end", func(h *heard) bool { h.busy = false; return !h.closed })
		switch {
		case strings.HasSuffix(string(m.Data), "panic"):
			panic("the application's")
		case strings.HasSuffix(string(m.Data), "exit"):
			runtime.Goexit()
		}
	}
	b.OnMessage = hear
	b.OnRequest = func(c *gpoll.Client, m gpoll.Message) ([]byte, error) {
		hear(c, m)
		return m.Data, nil
	}
	b.OnClose = func(c *gpoll.Client, _ string) {
		cb.change(c, "OnClose", func(h *heard) bool {
			ok := h.connected && !h.closed && !h.busy
			h.closed = true
			return ok
		})
	}
}

func rnd64(mu *sync.Mutex, rnd *rand.Rand) uint64 {
	mu.Lock()
	defer mu.Unlock()
	return rnd.Uint64()
}

// change notes a call, which ok says may come now.
func (cb *callbacks) change(c *gpoll.Client, what string, ok func(*heard) bool) {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	h := cb.of[c.ID()]
	if h == nil {
		h = &heard{done: map[string]int{}}
		cb.of[c.ID()] = h
	}
	if !ok(h) {
		cb.w.fault("%s comes at the wrong time: connecting %v, connected %v, closed %v, busy %v", what, h.connecting,
			h.connected, h.closed, h.busy)
	}
}

// judge is called after Shutdown.
func (cb *callbacks) judge() {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	for id, h := range cb.of {
		if h.connected != h.closed || h.busy {
			cb.w.fault("client %s: connected %v, closed %v, busy %v", id, h.connected, h.closed, h.busy)
		}
		for command, n := range h.done {
			if n != 1 {
				cb.w.fault("command %q of client %s had %d effects", command, id, n)
			}
		}
	}
}

// A caller is a client that sends commands by POST, each perhaps several times, and polls for what the server asks.
type caller struct {
	w    *world
	user string
	id   string
	gone bool // put out, or the server has ended
	mu   sync.Mutex
}

func (w *world) addCaller(authorized bool) {
	if w.callbacks == nil {
		return
	}
	rnd := rand.New(rand.NewPCG(w.seed, 0x4341_4c52))
	x := &caller{w: w}
	if authorized {
		x.user = pick(rnd, users...)
	}
	commands, asks := rnd.IntN(8), rnd.IntN(4)
	var each [3]*rand.Rand
	for i := range each {
		each[i] = rand.New(rand.NewPCG(w.seed, uint64(i)))
	}
	leaves := rnd.IntN(3)
	w.say("a caller of %q: %d commands, %d requests of the server, end %d", x.user, commands, asks, leaves)
	w.actors = append(w.actors, func() {
		status, body := x.do(http.MethodGet, "?client-id=0&format=json", "")
		var v struct {
			ClientID string `json:"client-id"`
			Position string
		}
		if status != http.StatusOK || json.Unmarshal([]byte(body), &v) != nil {
			if !w.ends && !w.operated {
				w.fault("caller: registration: %d %s", status, body)
			}
			return
		}
		x.id = v.ClientID
		over := make(chan struct{})
		var all, poller sync.WaitGroup
		poller.Go(func() { x.poll(each[0], v.Position, over) })
		all.Go(func() { x.command(each[1], commands) })
		all.Go(func() { x.ask(each[2], asks) })
		all.Wait()
		close(over)
		switch c, ok := w.b.Client(x.id); {
		case !ok:
		case leaves == 0:
			c.Close("enough")
		case leaves == 1:
			x.do(http.MethodPost, "/commands", `{"leave":true}`)
		}
		poller.Wait()
	})
}

// say is a POST of a command whose answer does not matter.
func (x *caller) say(command string) {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://gpoll.test/poll/commands",
		strings.NewReader(command))
	if err != nil {
		x.w.fault("caller: %v", err)
		return
	}
	r.Header.Set("User", x.user)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Gpoll-Client-Id", x.id)
	if resp, err := x.w.client.Do(r); err == nil {
		resp.Body.Close()
	}
}

// do makes a request. The status is 0 when there is no answer.
func (x *caller) do(method, path, body string) (status int, answer string) {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://gpoll.test/poll"+path, strings.NewReader(body))
	if err != nil {
		x.w.fault("caller: %v", err)
		return 0, ""
	}
	r.Header.Set("User", x.user)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Gpoll-Client-Id", x.id)
	}
	resp, err := x.w.client.Do(r)
	if err != nil {
		if !x.w.ends {
			x.w.fault("caller: %v", err)
		}
		return 0, ""
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data)
}

// lost reports whether the client was put out, or the server has ended, which may happen to any; else it is a fault.
func (x *caller) lost(did string, status int, body string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone = true
	if !x.w.ends && !x.w.operated {
		x.w.fault("caller: %s: %d %s", did, status, body)
	}
}

// lostBefore is lost, unless the client has left by itself.
func (x *caller) lostBefore(over <-chan struct{}, did string, status int, body string) {
	select {
	case <-over:
	default:
		x.lost(did, status, body)
	}
}

func (x *caller) isGone() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.gone
}

// command sends commands, one after the other, each at once or repeated. Each is acknowledged.
func (x *caller) command(rnd *rand.Rand, count int) {
	for n := range count {
		time.Sleep(moment(rnd))
		kind, want := "send", "sent"
		if rnd.IntN(3) == 0 {
			kind, want = "request", "reply"
		}
		how := pick(rnd, "", "", "re-enter", "re-enter", "panic", "exit")
		text := fmt.Sprintf(`{%q:{"data":"%d %s"},"id":"c%d"}`, kind, n, how, n)
		var all sync.WaitGroup
		for range 1 + rnd.IntN(3) {
			all.Go(func() {
				if how == "exit" { // net/http's goroutine ends: there may be no answer
					x.say(text)
					return
				}
				status, body := x.do(http.MethodPost, "/commands", text)
				if how == "panic" {
					if status != http.StatusInternalServerError && // and to who comes again it is an answer
						!strings.HasPrefix(body, `{"error":{"code":"internal"`) {

						x.lost("a command that fails", status, body)
					}
					return
				}
				if status != http.StatusOK || !strings.HasPrefix(body, fmt.Sprintf(`{%q:{"id":"c%d"`, want, n)) {
					x.lost("a command", status, body)
				}
			})
		}
		if all.Wait(); x.isGone() {
			return
		}
	}
}

// ask has the server ask, and compares the reply.
func (x *caller) ask(rnd *rand.Rand, count int) {
	for n := range count {
		time.Sleep(moment(rnd))
		c, ok := x.w.b.Client(x.id)
		if !ok {
			x.lost("the server looks for it", 0, "")
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), pick(rnd, longest, longest, moment(rnd)))
		reply, err := c.Request(ctx, fmt.Append(nil, n))
		late := ctx.Err() != nil
		cancel()
		switch {
		case err == nil && string(reply) == fmt.Sprint(n, "!"):
		case err != nil && late:
		case errors.Is(err, gpoll.ErrUnknownClient):
			x.lost("a request of the server", 0, err.Error())
			return
		default:
			x.w.fault("caller: request %d: %q, %v", n, reply, err)
		}
	}
}

// poll polls, and replies. It sees no request twice once it has said that it has it.
func (x *caller) poll(rnd *rand.Rand, after string, over <-chan struct{}) {
	asked := 0
	for {
		select {
		case <-over:
			return
		default:
		}
		query := fmt.Sprintf("?client-id=%s&format=json&asked=%d&after=%s", url.QueryEscape(x.id), asked, after)
		status, body := x.do(http.MethodGet, query, "")
		if status == http.StatusInternalServerError { // a command has failed
			continue
		}
		var v struct {
			Position string
			Requests []struct{ ID, Data string }
		}
		if status != http.StatusOK || json.Unmarshal([]byte(body), &v) != nil {
			x.lostBefore(over, "a poll", status, body)
			return
		}
		after = v.Position
		for _, q := range v.Requests {
			asked++
			if q.ID != fmt.Sprint(asked) {
				var n int
				if _, err := fmt.Sscan(q.ID, &n); err != nil || n < asked { // given up ones are left out
					x.w.fault("caller: request %s comes after %d", q.ID, asked-1)
				}
				asked = n
			}
			time.Sleep(time.Duration(rnd.IntN(2)) * moment(rnd))
			reply := fmt.Sprintf(`{"reply":{"data":"%s!"},"id":%q}`, q.Data, q.ID)
			status, body = x.do(http.MethodPost, "/commands", reply)
			if status != http.StatusOK && status != http.StatusGone {
				x.lostBefore(over, "a reply", status, body)
				return
			}
		}
	}
}
