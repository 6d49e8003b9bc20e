package gpoll

import (
	"bytes"
	"io"
	"os"
	"time"

	"github.com/corvuscrypto/gpoll/internal/socket"
)

// The reader of a kept connection. It answers each request that repeats a remembered poll. On any other bytes it gives
// the connection to the server, which accepts it anew. When the client has gone, or was idle for longer than the server
// allows, it closes the connection.
//
// There is one reader at a time. It is keep, a goroutine that waits; or, where a watch waits for many connections (see
// socket.Watch), the goroutine that raised pollConn.looks from 0.

// A keeping is what the reader of a kept connection has found.
type keeping struct {
	c         *pollConn
	some      *socket.Reader // of keep
	done      bool           // reading is over
	early     bool           // unmatched and err came while an answer was under way, and wait for it
	unmatched []byte         // what the server has to see
	err       error
}

// keep is the reader of a connection that has a goroutine of its own. It waits on a small stack: its other work is in
// functions of their own.
func (c *pollConn) keep() {
	k := keeping{c: c, some: socket.NewReader(requestBuffer)}
	defer k.rescue()
	for k.read(); !k.done; {
		c.drained() // not while the socket is held for reading: closing it would wait
		if k.goOn() {
			k.read()
		}
	}
	k.end()
}

// read reads until reading is over or an answer is under way.
func (k *keeping) read() {
	c := k.c
	if c.raw != nil {
		for k.readWaiting() {
		}
		return
	}
	buf := socket.Take()
	defer socket.Return(buf)
	for {
		if n, err := c.Conn.Read(buf); !k.next(buf[:n], err) {
			return
		}
	}
}

// readWaiting waits until something can be read, and reports whether to read on.
func (k *keeping) readWaiting() (more bool) {
	p, err := k.some.ReadSome(k.c.raw)
	if err != nil {
		return k.next(nil, err)
	}
	defer socket.Return(p)
	return k.next(p, nil)
}

// goOn looks at the bytes that came early, and reports whether to read on.
func (k *keeping) goOn() (more bool) {
	if !k.early {
		return true
	}
	p := k.unmatched
	k.early, k.unmatched = false, nil
	return k.take(p, k.err)
}

// next takes what has been read, and reports whether to read on. It does not keep p.
func (k *keeping) next(p []byte, err error) (more bool) {
	c := k.c
	if c.waits {
		c.waits = false
		if c.takeBack(err == io.EOF) {
			if len(p) > 0 { // else the client has gone, or will send no more
				k.unmatched = append(c.current.with(c.poll.after), p...)
			}
			k.err, k.done = err, true
			return false
		}
	}
	if c.stalled.Load() {
		k.unmatched, k.err, k.early = bytes.Clone(p), err, true
		return false
	}
	return k.take(p, err)
}

// take looks at what has been read while no answer is under way, and reports whether to read on.
func (k *keeping) take(p []byte, err error) (more bool) {
	c := k.c
	if err == nil && len(p) < requestBuffer {
		if rep, after := c.match(p); rep != nil {
			switch c.begin(rep, after) {
			case pollAnswered:
				return !c.stalled.Load()
			case pollParked:
				c.waits = true
				return true
			}
		}
	}
	if len(p) > 0 {
		k.unmatched = bytes.Clone(p)
	}
	k.err, k.done = err, true
	return false
}

// end gives the connection to the server, with the bytes that it has to see, or closes the connection.
func (k *keeping) end() {
	c := k.c
	c.drained() // an answer goes out whole before net/http writes
	if len(k.unmatched) == 0 {
		c.shut()
		return
	}
	c.unwatch()
	c.b.unwatchGone(c.Conn)
	c.idleUntil(time.Time{})
	s := newServedConn(c, k.unmatched)
	c.mu.Lock()
	c.served = s
	c.mu.Unlock()
	c.looks.Store(0)
	select {
	case c.listener.back <- s:
	case <-c.listener.closed:
		c.shut()
	}
}

// rescue is deferred by the reader. After a panic nobody knows what the client has sent: rescue ends its poll and the
// connection with "internal".
func (k *keeping) rescue() {
	if v := recover(); v != nil {
		k.c.b.logPanic("the reader of a connection of Listener", v)
		k.c.b.contained("a rescue", k.c.fail)
	}
}

// fail ends a kept connection, and its poll, after a panic.
func (c *pollConn) fail() {
	if a := c.poll.attach; a != nil {
		a.end(endInternal)
	}
	c.mu.Lock()
	c.dismissLocked(refuseInternal)
	last := !c.stalled.Load()
	c.mu.Unlock()
	if last { // else drain does
		c.shut()
	}
}

// idleUntil sets when the connection is closed if its client sends nothing; the zero time: never.
func (c *pollConn) idleUntil(t time.Time) {
	if c.watch == nil {
		_ = c.Conn.SetReadDeadline(t) // Read reports a closed connection
		return
	}
	c.idleEnd.Store(int64(c.b.momentOf(t)))
	switch {
	case t.IsZero():
		if c.idleTimer != nil {
			c.idleTimer.Stop()
		}
	case c.idleTimer == nil:
		c.idleTimer = time.AfterFunc(time.Until(t), c.look)
	default:
		c.idleTimer.Reset(time.Until(t))
	}
}

// keepLocked begins to keep the connection.
func (c *pollConn) keepLocked() {
	l := c.listener
	c.b.watchGone(c.Conn)
	c.watch = &l.watches[int(l.turn.Add(1))%len(l.watches)]
	c.hungUp.Store(false)
	if c.idle > 0 {
		_ = c.Conn.SetReadDeadline(time.Time{}) // a reader sees a closed connection
		c.idleAgain()
	}
	var ok bool
	if c.watched, ok = c.watch.Add(c, c.Conn, c.raw); ok {
		return
	}
	if c.idleTimer != nil {
		c.idleTimer.Stop()
	}
	c.watch = nil
	c.idleAgain()
	go c.keep() // ends when the client goes or sends something else, or when the listener is closed
}

// unwatch ends the watch over the connection, and reports whether there was one.
func (c *pollConn) unwatch() bool {
	c.mu.Lock()
	w, at := c.watch, c.watched
	c.mu.Unlock()
	if w == nil {
		return false
	}
	w.Remove(c, c.raw, at)
	return true
}

// Look is what the watch calls.
func (c *pollConn) Look(hungUp bool) {
	if hungUp {
		c.hungUp.Store(true)
	}
	c.look()
}

// look has the reader look at a connection that a watch waits for. It does not wait.
func (c *pollConn) look() {
	if c.looks.Add(1) == 1 { // else the reader looks once more
		c.lookNow()
	}
}

// lookNow is the reader. It goes on in a goroutine where it may have to wait.
func (c *pollConn) lookNow() {
	k := keeping{c: c}
	defer k.rescue()
	if c.b.Authorize != nil || !k.readReady() {
		later := k
		go later.lookOn() // ends when Authorize has returned, an answer has gone out and the server has the connection
	}
}

// lookOn goes on where readReady had to wait.
func (k *keeping) lookOn() {
	defer k.rescue()
	for !k.done {
		k.c.drained()
		if k.goOn() && k.readReady() {
			return
		}
	}
	k.end()
}

// readReady reads what there is. It reports false when reading is over or an answer is under way. After true another
// goroutine may be the reader.
func (k *keeping) readReady() (quiet bool) {
	c := k.c
	buf := socket.Take()
	defer socket.Return(buf)
	for {
		looks := c.looks.Load()
		for c.isKept() {
			n, err := socket.TryRead(c.raw, buf)
			if n == 0 && err == nil {
				if end := moment(c.idleEnd.Load()); end == 0 || c.b.now() < end {
					break
				}
				err = os.ErrDeadlineExceeded
			}
			if !k.next(buf[:n], err) {
				return false
			}
			if n < requestBuffer && !c.hungUp.Load() {
				break // there was no more
			}
		}
		if c.looks.CompareAndSwap(looks, 0) {
			return true
		}
	}
}

func (c *pollConn) isKept() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.served == nil
}

// requestBuffer is how much is read at a time: more than a remembered poll.
const requestBuffer = socket.BufferSize
