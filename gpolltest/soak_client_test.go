package gpolltest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
)

// programs are the Go clients of a soak, beside the raw ones. Each receives, sends, asks and is asked.
type programs struct {
	t     *testing.T
	all   []*program
	heard effects
	sum   struct {
		sync.Mutex
		sent, replies, asked int
		by                   map[client.Transport]int // how often each was the transport of a new Status
	}
}

// effects counts what the application heard, by the id of the command.
type effects struct {
	mu sync.Mutex
	of map[string]int
}

func (e *effects) add(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of[id]++
}

// A program is one of them.
type program struct {
	*programs
	name      string
	rnd       *rand.Rand
	options   client.Options
	trace     *Trace
	delivered int
}

// listen is the application of a soak.
func (p *programs) listen(b *gpoll.Broadcaster) {
	p.heard.of = map[string]int{}
	p.sum.by = map[client.Transport]int{}
	b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) { p.heard.add(m.ID) }
	b.OnRequest = func(_ *gpoll.Client, m gpoll.Message) ([]byte, error) {
		p.heard.add(m.ID)
		return append([]byte("re: "), m.Data...), nil
	}
}

// add adds a program. Some have fewer transports than the others.
func (p *programs) add(i int, k soak, h *History, hc *http.Client, rnd *rand.Rand) {
	ways := [][]client.Transport{nil, {client.SSE, client.LongPoll}, {client.LongPoll}, {client.WebSocket}}
	x := &program{programs: p, name: fmt.Sprintf("program %d", i), rnd: rnd}
	x.trace = h.Trace(x.name)
	x.options = client.Options{
		HTTPClient: hc,
		Transports: ways[i%len(ways)],
		OnStatus: func(s client.Status) {
			if s.State == client.Connected {
				p.sum.Lock()
				p.sum.by[s.Transport]++
				p.sum.Unlock()
			}
		},
		OnRequest: func(_ context.Context, data []byte) ([]byte, error) { return append(data, '!'), nil },
	}
	for range 3 {
		x.options.Topics = append(x.options.Topics, k.topic(rnd))
	}
	p.all = append(p.all, x)
}

// run receives, and speaks until stop. Then it receives up to the final Position.
func (x *program) run(ctx context.Context, b *gpoll.Broadcaster, address string, stop <-chan struct{},
	final chan gpoll.Position) {

	c, err := client.Dial(ctx, address, x.options)
	if err != nil {
		x.t.Errorf("%s: Dial: %v", x.name, err)
		return
	}
	defer c.Close()
	id := c.ID()
	x.trace.Registered(id, "")
	x.trace.Scanned(c.Position())
	for _, topic := range x.options.Topics {
		x.trace.Subscribed(topic, c.Position())
	}
	reading, enough := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		for m, err := range c.Messages(reading) {
			switch {
			case err != nil:
				if reading.Err() == nil {
					x.t.Errorf("%s: %v", x.name, err)
				}
				return
			case m.Gap != nil:
				x.trace.Gap(*m.Gap)
			default:
				if now := c.ID(); now != id {
					id = now
					x.trace.Registered(id, "")
				}
				x.trace.Delivered(gpoll.Message{Topic: m.Topic, Data: m.Data, Position: m.Position})
				x.delivered++
			}
		}
	})
	for n := 0; x.speak(ctx, b, c, n, stop); n++ {
	}
	end := <-final
	final <- end
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && c.Position() != end {
		<-tick.C
	}
	if ctx.Err() != nil {
		x.t.Errorf("%s: the run was not over in time: at %v of %v, %v", x.name, c.Position(), end, c.Status())
	}
	enough()
	group.Wait()
	x.trace.Drained()
}

// speak says something, or has the server ask something. It reports false after stop.
func (x *program) speak(ctx context.Context, b *gpoll.Broadcaster, c *client.Client, n int, stop <-chan struct{}) bool {
	pause := time.NewTimer(time.Duration(x.rnd.ExpFloat64() * float64(200*time.Millisecond)))
	defer pause.Stop()
	select {
	case <-stop:
		return false
	case <-pause.C:
	}
	text := fmt.Sprint(x.name, " ", n)
	var err error
	switch x.rnd.IntN(3) {
	case 0:
		if err = c.Send(ctx, []byte(text)); err == nil {
			x.count(&x.sum.sent)
		}
	case 1:
		var reply []byte
		if reply, err = c.Request(ctx, []byte(text)); err == nil && string(reply) != "re: "+text {
			err = fmt.Errorf("the reply to %q is %q", text, reply)
		}
		x.count(&x.sum.replies)
	case 2:
		at, ok := b.Client(c.ID())
		if !ok {
			return true // it registers anew
		}
		var reply []byte
		reply, err = at.Request(ctx, []byte(text))
		switch {
		case errors.Is(err, gpoll.ErrUnknownClient):
			return true
		case err == nil && string(reply) != text+"!":
			err = fmt.Errorf("the client's reply to %q is %q", text, reply)
		}
		x.count(&x.sum.asked)
	}
	if err != nil {
		x.t.Errorf("%s: %v", x.name, err)
	}
	return true
}

func (p *programs) count(n *int) {
	p.sum.Lock()
	defer p.sum.Unlock()
	*n++
}

// judge says whether each command took effect once.
func (p *programs) judge() {
	p.heard.mu.Lock()
	defer p.heard.mu.Unlock()
	delivered := 0
	for _, x := range p.all {
		delivered += x.delivered
	}
	p.t.Logf("%d programs: %d delivered, %d sent, %d asked the server, %d asked by it; attaches %v", len(p.all), delivered,
		p.sum.sent, p.sum.replies, p.sum.asked, p.sum.by)
	for id, n := range p.heard.of {
		if n != 1 || id == "" {
			p.t.Errorf("command %q took effect %d times", id, n)
		}
	}
	if done := p.sum.sent + p.sum.replies; done != len(p.heard.of) {
		p.t.Errorf("%d commands were acknowledged, %d took effect", done, len(p.heard.of))
	}
	for _, transport := range []client.Transport{client.WebSocket, client.SSE, client.LongPoll} {
		if p.sum.by[transport] == 0 {
			p.t.Errorf("no program used %s: the test shows nothing", transport)
		}
	}
}
