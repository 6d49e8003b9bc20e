//go:build explore && linux

package explore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// addPublisher adds somebody who publishes messages of every kind.
func (w *world) addPublisher(i int) {
	rnd := w.own()
	count := 1 + rnd.IntN(12)
	large := w.narrow || rnd.IntN(3) == 0
	w.say("publisher %d: %d messages, large ones %v", i, count, large)
	w.actors = append(w.actors, func() {
		for n := range count {
			time.Sleep(moment(rnd))
			data := fmt.Sprintf("%d.%d", i, n)
			if large && rnd.IntN(3) == 0 {
				data += strings.Repeat(".", pick(rnd, 500, 5000))
			}
			w.publish(fmt.Sprintf("publisher %d", i), rnd, data)
		}
	})
}

// addReactor adds somebody who publishes a message, or a few at once, soon after a proxy has stirred.
func (w *world) addReactor() {
	rnd := w.own()
	large := rnd.IntN(2) == 0
	aimed := rnd.IntN(3) == 0 // not to everybody
	w.stirred = make(chan struct{}, 1)
	w.say("reactor: large ones %v, to some %v", large, aimed)
	w.actors = append(w.actors, func() {
		count := 0
		for range w.stirred { // until the proxies are over
			for range pick(rnd, 1, 1, 1, 1, 1, 1, 1, 3) {
				count++
				if rnd.IntN(8) > 0 {
					time.Sleep(instant(rnd, w.pace))
				}
				data := fmt.Sprintf("r.%d", count)
				if large && rnd.IntN(3) == 0 {
					data += strings.Repeat(".", pick(rnd, 500, 2000))
				}
				if aimed {
					w.publish("reactor", rnd, data)
					continue
				}
				pos, err := w.Publish(context.Background(), w.b, gpoll.Message{Data: []byte(data)})
				if !w.mayFail(err) {
					w.fault("reactor: %v", err)
				}
				w.newest.Store(pos.Seq)
			}
		}
	})
}

// publish publishes to somebody.
func (w *world) publish(who string, rnd *rand.Rand, data string) {
	m := gpoll.Message{Data: []byte(data)}
	switch rnd.IntN(6) {
	case 0, 1:
		m.Topic = pick(rnd, topics...)
	case 2:
		m.To = gpoll.ToUser("alice")
	case 3:
		if id := pick(rnd, w.clients...).publicID(); id != "" {
			m.To = gpoll.ToClient(id)
		}
	}
	for range rnd.IntN(3) {
		if id := pick(rnd, w.clients...).publicID(); id != "" { // the same one perhaps twice
			m.Except = append(m.Except, id)
		}
	}
	if _, err := w.Publish(context.Background(), w.b, m); !w.mayFail(err) {
		w.fault("%s: %v", who, err)
	}
}

// mayFail reports whether a publish may end so.
func (w *world) mayFail(err error) bool {
	return err == nil || w.ends && errors.Is(err, gpoll.ErrClosed)
}

// publicID is what others know of the client at the moment.
func (m *member) publicID() string { return m.session.PublicID() }

func (m *member) clientID() string { return m.session.ClientID() }

// addOperator adds somebody who puts clients out.
func (w *world) addOperator() {
	w.operated = true
	rnd := w.own()
	does := make([]int, 1+rnd.IntN(4))
	for i := range does {
		does[i] = rnd.IntN(6)
	}
	w.say("operator: %v (0 Revoke, 1 RemoveClient, 2 CleanUp, 3 Stats, 4 Client, 5 waits)", does)
	w.actors = append(w.actors, func() {
		for _, do := range does {
			time.Sleep(moment(rnd))
			m := pick(rnd, w.clients...)
			switch do {
			case 0:
				w.b.Revoke("alice")
			case 1:
				w.b.RemoveClient(m.clientID())
			case 2:
				w.b.CleanUp([]int{rnd.IntN(2)})
			case 3:
				w.b.Stats()
			case 4:
				if c, ok := w.b.Client(m.clientID()); ok {
					c.Topics()
					c.Transport()
				}
			case 5:
				time.Sleep(pick(rnd, time.Second, 70*time.Second))
			}
		}
	})
}

// addShutdown ends the server while the others go on.
func (w *world) addShutdown() {
	rnd := w.own()
	w.ends, w.exact = true, false
	wait := moment(rnd) + moment(rnd)
	w.say("Shutdown after %v", wait)
	w.actors = append(w.actors, func() {
		time.Sleep(wait)
		if err := w.b.Shutdown(context.Background()); err != nil {
			w.fault("Shutdown: %v", err)
		}
	})
}

// A channelReader is a consumer inside the process.
type channelReader struct {
	w    *world
	over chan struct{}
}

func (w *world) addChannel() {
	rnd := w.own()
	c := &channelReader{w: w, over: make(chan struct{})}
	trace := w.Trace("channel")
	w.channels = append(w.channels, c)
	w.say("a channel")
	w.actors = append(w.actors, func() {
		started := make(chan struct{})
		go func() { // ends when the channel is closed
			defer close(c.over)
			c.read(rnd, trace, started)
		}()
		<-started
	})
}

func (c *channelReader) read(rnd *rand.Rand, trace *gpolltest.Trace, started chan struct{}) {
	id, routine := c.w.b.AddClient()
	if routine < 0 {
		close(started)
		return
	}
	trace.Registered(fmt.Sprintf("%d$%s", routine, id), "")
	var ch, again chan string
	var err, errAgain error
	var both sync.WaitGroup
	both.Go(func() { ch, err = c.w.b.GetChannel(id, routine) })
	both.Go(func() { again, errAgain = c.w.b.GetChannel(id, routine) })
	both.Wait()
	close(started)
	if err == nil && errAgain == nil && ch != again && c.w.exact { // else a gap may have closed the first
		c.w.fault("GetChannel returned two channels")
	}
	if err != nil {
		if !errors.Is(err, gpoll.ErrUnknownClient) {
			c.w.fault("GetChannel: %v", err)
		}
		return
	}
	for msg := range ch {
		trace.DeliveredPlain(gpoll.Message{Data: []byte(msg)})
		if msg == "the end" {
			trace.Drained()
			return
		}
		time.Sleep(moment(rnd))
	}
	trace.Ended()
}

// wait returns when the reader has come to the end, or its channel was closed.
func (c *channelReader) wait() {
	late := time.NewTimer(longest)
	defer late.Stop()
	select {
	case <-c.over:
	case <-late.C:
		c.w.fault("the channel neither brought the end nor was closed")
	}
}
