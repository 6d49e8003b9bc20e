//go:build explore && linux

package explore

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
	"github.com/corvuscrypto/gpoll/internal/wire"
)

// A handover is a client that opens one plain WebSocket after another, each while the last is still open, and reads all
// of them to their ends. Together they bring each message once and in order: what one was not given the next is.
type handover struct {
	w      *world
	rnd    *rand.Rand
	trace  *gpolltest.Trace
	user   string
	id     string // the whole client id
	conns  []*plainConn
	failed bool
}

// A plainConn is one of its connections. Its reader alone touches messages and end until over is closed.
type plainConn struct {
	conn     *websocket.Conn
	over     chan struct{}
	messages []string
	end      error
}

// addHandover adds one. It draws from a source of its own, so that the other scripts are what they would be without.
func (w *world) addHandover(authorized bool) {
	rnd := rand.New(rand.NewPCG(w.seed, 0x4841_4e44))
	if often := w.narrow && rnd.IntN(4) > 0; !often && rnd.IntN(8) > 0 {
		return
	}
	x := &handover{w: w, rnd: rnd, trace: w.Trace("handover")}
	if authorized {
		x.user = pick(rnd, users...)
	}
	count := 2 + rnd.IntN(6)
	w.handovers = append(w.handovers, x)
	w.say("%d plain WebSockets of one client of %q", count, x.user)
	w.actors = append(w.actors, func() {
		for range count {
			if !x.open() {
				return
			}
			time.Sleep(moment(rnd))
		}
	})
}

// open opens the next connection and begins to read it.
func (x *handover) open() bool {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	id := x.id
	if id == "" {
		id = "0"
	}
	conn, _, err := websocket.Dial(ctx, "http://gpoll.test/poll/ws?client-id="+url.QueryEscape(id),
		&websocket.DialOptions{HTTPClient: x.w.client, HTTPHeader: http.Header{"User": {x.user}}})
	if err != nil {
		return x.fail("dial", err)
	}
	_, first, err := conn.Read(ctx)
	if err != nil {
		return x.fail("the registration", err)
	}
	if x.id == "" {
		if x.id, err = wire.ParseRegistration(first); err != nil {
			return x.fail("the registration", err)
		}
		x.trace.Registered(x.id, x.user)
	}
	c := &plainConn{conn: conn, over: make(chan struct{})}
	x.conns = append(x.conns, c)
	slow := time.Duration(0)
	if x.rnd.IntN(2) == 0 {
		slow = moment(x.rnd)
	}
	go c.read(slow) // ends with the connection
	return true
}

// read reads to the end. It is no faster than slow.
func (c *plainConn) read(slow time.Duration) {
	defer close(c.over)
	for {
		time.Sleep(slow)
		_, data, err := c.conn.Read(context.Background())
		if err != nil {
			c.end = err
			return
		}
		if c.messages = append(c.messages, string(data)); string(data) == "the end" {
			return
		}
	}
}

// fail ends the client for what may happen to any: the server has ended, an operator put it out, it was too slow or its
// window passed it. Everything else is a fault.
func (x *handover) fail(did string, err error) bool {
	x.failed = true
	code := closeCode(err)
	putOut := code == "removed" || code == "unauthorized" || code == "unknown-client"
	switch {
	case x.w.ends, putOut && x.w.operated, code == "slow" && x.w.b.DisconnectSlow, code == "gap" && !x.w.exact:
	default:
		x.w.fault("handover: %s: %v", did, err)
	}
	return false
}

// closeCode is the code that the server's close frame tells; "" without one.
func closeCode(err error) string {
	e, ok := errors.AsType[websocket.CloseError](err)
	if !ok {
		return ""
	}
	return wire.ParseClose(int(e.Code), e.Reason).Code
}

// drain tells the trace what came on all connections, up to the end.
func (x *handover) drain() {
	late := time.NewTimer(longest)
	defer late.Stop()
	for i, c := range x.conns {
		select {
		case <-c.over:
		case <-late.C:
			x.w.fault("handover: connection %d of %d neither came to the end nor was closed", i, len(x.conns))
			return
		}
		for _, m := range c.messages {
			x.trace.DeliveredPlain(gpoll.Message{Data: []byte(m)})
		}
		if c.end != nil && closeCode(c.end) != "superseded" { // what comes later comes after a gap
			x.fail("the end", c.end)
			break
		}
	}
	if x.failed {
		x.trace.Ended()
	} else {
		x.trace.Drained()
	}
}

func (x *handover) cut() {
	var all sync.WaitGroup
	for _, c := range x.conns {
		all.Go(func() {
			_ = c.conn.CloseNow() // it may have gone
			<-c.over
		})
	}
	all.Wait()
}
