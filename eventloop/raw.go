package eventloop

import (
	"bytes"
	"context"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

const (
	closeShutdown = websocket.StatusGoingAway
	closeSlow     = websocket.StatusCode(4008) // as gpoll's: docs/protocol.md, section 11

	// What a plain WebSocket has not taken.
	mostMessages = 4096
	mostBytes    = 1 << 20

	writeWait = 10 * time.Second // the network takes a message
)

// A rawConn is a plain WebSocket. A goroutine reads; another one writes while there is something to write.
type rawConn struct {
	loop  *Loop
	ws    *websocket.Conn
	id    uint64
	slots chan struct{} // one for each message that waits for the handler

	mu      sync.Mutex // guards the fields below
	queue   [][]byte
	bytes   int
	writing bool
	over    bool // nothing is queued any more
}

// AddConn adds a WebSocket that the program has dialed, and returns its id; 0 after Shutdown. It belongs to the Loop
// from then on.
func (l *Loop) AddConn(ws *websocket.Conn) uint64 { return l.addRaw(ws) }

func (l *Loop) addRaw(ws *websocket.Conn) uint64 {
	limit := int64(l.b.MaxMessage)
	if limit == 0 {
		limit = 64 << 10
	}
	ws.SetReadLimit(limit)
	c := &rawConn{loop: l, ws: ws, slots: make(chan struct{}, unhandled)}
	l.serving.Add(1)
	if c.id = l.add(c); c.id == 0 {
		l.serving.Done()
		return 0
	}
	go func() { // ends with the connection
		defer l.serving.Done()
		c.read()
	}()
	return c.id
}

func (c *rawConn) read() {
	defer func() {
		_ = c.ws.CloseNow()
		c.mu.Lock()
		c.over = true
		c.mu.Unlock()
		c.loop.remove(c.id)
	}()
	for {
		_, data, err := c.ws.Read(context.Background())
		if err != nil {
			return
		}
		select {
		case c.slots <- struct{}{}:
		case <-c.loop.ended:
			return
		}
		c.loop.push(event{kind: received, id: c.id, data: data, done: c.free})
	}
}

func (c *rawConn) free() { <-c.slots }

func (c *rawConn) write(message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over:
		return ErrNoConn
	case len(c.queue) >= mostMessages || c.bytes+len(message) > mostBytes && len(c.queue) > 0:
		c.endLocked(closeSlow, "slow")
		return nil
	}
	c.queue = append(c.queue, bytes.Clone(message))
	c.bytes += len(message)
	if !c.writing {
		c.writing = true
		c.loop.serving.Go(c.flush) // ends when nothing is queued
	}
	return nil
}

// flush writes what is queued.
func (c *rawConn) flush() {
	for {
		c.mu.Lock()
		queue := c.queue
		if len(queue) == 0 {
			c.writing = false
			c.mu.Unlock()
			return
		}
		c.queue, c.bytes = nil, 0
		c.mu.Unlock()
		for _, message := range queue {
			ctx, cancel := context.WithTimeout(context.Background(), writeWait)
			typ := websocket.MessageText
			if !utf8.Valid(message) {
				typ = websocket.MessageBinary
			}
			err := c.ws.Write(ctx, typ, message)
			cancel()
			if err != nil {
				_ = c.ws.CloseNow() // the reader sees it
				return
			}
		}
	}
}

func (c *rawConn) close(reason string) { c.end(websocket.StatusNormalClosure, reason) }

// end tells the peer why the connection ends. It does not wait.
func (c *rawConn) end(code websocket.StatusCode, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(code, reason)
}

func (c *rawConn) endLocked(code websocket.StatusCode, reason string) {
	if c.over {
		return
	}
	c.over, c.queue = true, nil
	c.loop.serving.Go(func() { _ = c.ws.Close(code, reason) }) // ends after 10 s at most; then the reader sees it
}
