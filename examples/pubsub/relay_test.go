package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll/eventloop"
	"github.com/corvuscrypto/gpoll/internal/freeport"
)

// open starts a relay, and returns its address and how many connections it has.
func open(t *testing.T) (addr string, conns func() int) {
	t.Helper()
	loop := eventloop.New(newRelay())
	ran := make(chan error, 1)
	go func() { ran <- loop.Run(context.Background()) }() // ends with Shutdown
	ln, err := loop.Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := loop.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	return ln.String(), loop.Conns
}

// A peer is a plain WebSocket.
type peer struct {
	t  *testing.T
	ws *websocket.Conn
}

func dial(t *testing.T, addr string) *peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return &peer{t, ws}
}

func (p *peer) say(message string) {
	p.t.Helper()
	if err := p.ws.Write(p.t.Context(), websocket.MessageText, []byte(message)); err != nil {
		p.t.Error(err)
	}
}

func (p *peer) hears(want ...string) {
	p.t.Helper()
	for _, want := range want {
		ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
		_, got, err := p.ws.Read(ctx)
		cancel()
		if err != nil || string(got) != want {
			p.t.Errorf("heard %q, not %q: %v", got, want, err)
			return
		}
	}
}

func TestProtocol(t *testing.T) {
	addr, conns := open(t)
	a, b := dial(t, addr), dial(t, addr)
	for _, tt := range []struct{ says, answer string }{
		{"subscribe:news", "OK"}, {"subscribe:news", "OK"}, {"unsubscribe:sport", "OK"}, {"subscribe:", "OK"},
		{"subscribe:a:b", "Invalid message"}, {"subscribe", "Invalid message"}, {"publish:news", "Invalid message"},
		{"publish", "Invalid message"}, {"unsubscribe-all:x", "Invalid message"}, {"unsubscribe:a:b", "Invalid message"},
		{"", "Invalid message"}, {"SUBSCRIBE:news", "Invalid message"}, {"\x00\xff", "Invalid message"},
	} {
		a.say(tt.says)
		a.hears(tt.answer)
	}
	b.say("publish:news:a body: with a colon")
	b.hears("OK")
	a.hears("a body: with a colon")
	a.say("publish:news:to myself")
	a.hears("to myself", "OK")
	b.say("subscribe:news")
	b.hears("OK")
	a.say("unsubscribe-all")
	a.hears("OK")
	a.say("publish:news:")
	a.hears("OK")
	b.hears("")
	if err := b.ws.Close(websocket.StatusNormalClosure, ""); err != nil { // which ends its subscriptions
		t.Error(err)
	}
	for deadline := time.Now().Add(time.Minute); conns() > 1; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection does not end")
		}
	}
	a.say("publish:news:to nobody")
	a.hears("OK")
}

// A thousand clients get what they subscribe to, in the order in which it was published.
func TestThousandClients(t *testing.T) {
	addr, _ := open(t)
	const clients, messages = 1000, 20
	var all sync.WaitGroup
	peers := make([]*peer, clients)
	for i := range peers {
		peers[i] = dial(t, addr)
		peers[i].say("subscribe:news")
		peers[i].say(fmt.Sprintf("subscribe:own-%d", i))
		peers[i].hears("OK", "OK")
	}
	for i, p := range peers {
		all.Go(func() {
			p.hears(fmt.Sprint("for ", i))
			for m := range messages {
				p.hears(fmt.Sprint("message ", m))
			}
		})
	}
	speaker := dial(t, addr)
	for i := range peers {
		speaker.say(fmt.Sprintf("publish:own-%d:for %d", i, i))
		speaker.hears("OK")
	}
	for m := range messages {
		speaker.say(fmt.Sprint("publish:news:message ", m))
		speaker.hears("OK")
	}
	all.Wait()
}

// It listens on several addresses, and ends when it is told to.
func TestServe(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var addrs []string
	for range 2 {
		addrs = append(addrs, freeport.Address(t))
	}
	served := make(chan error, 1)
	go func() { served <- serve(ctx, addrs, nil, "", "") }()
	for _, addr := range addrs {
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
			if c, err := net.Dial("tcp", addr); err == nil {
				_ = c.Close()
				break
			}
		}
		p := dial(t, addr)
		p.say("subscribe:x")
		p.hears("OK")
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := serve(t.Context(), []string{"127.0.0.1:99999"}, nil, "", ""); err == nil {
		t.Error("it listens on a port that there is not")
	}
}
