package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll/internal/wire"
)

const (
	subprotocol = "gpoll.v1"

	handshakeWait = 10 * time.Second // a handshake is given up
	silentWait    = 2 * time.Second  // another transport is tried beside the handshake
	welcomeWait   = 5 * time.Second  // the answer to the hello
	writeWait     = 10 * time.Second // the network takes a frame

	// mostBytes is what one frame, event or batch may have.
	mostBytes = 64 << 20
)

// A handshake is a WebSocket on its way. The server knows nothing of it but a connection: it is the hello that attaches
// the client, and so the client may have another attach meanwhile.
type handshake struct {
	done   chan struct{} // closed when conn or err is there
	conn   *websocket.Conn
	err    error
	cancel context.CancelFunc
	given  atomic.Bool              // up
	dog    atomic.Pointer[watchdog] // of the attach that it becomes

	mu   sync.Mutex // guards next
	next func()
}

// shake begins a handshake. Its goroutine ends with the handshake, after handshakeWait at the latest. It returns nil if
// the Client is about to end.
func (c *Client) shake(w wish) *handshake {
	ctx, cancel := context.WithTimeoutCause(c.life, handshakeWait,
		&silentError{"a WebSocket handshake had no answer", handshakeWait})
	h := &handshake{done: make(chan struct{}), cancel: cancel}
	if !c.spawn(func() {
		h.conn, h.err = c.dial(ctx, w, h)
		close(h.done)
		switch {
		case h.given.Load():
			h.give()
		case h.err == nil:
			h.succeed()
		}
	}) {
		cancel()
		return nil
	}
	return h
}

// then lets next follow when the handshake has succeeded, or at once if it has already. nil: nothing follows.
func (h *handshake) then(next func()) {
	h.mu.Lock()
	h.next = next
	h.mu.Unlock()
	select {
	case <-h.done:
		if h.err == nil {
			h.succeed()
		}
	default:
	}
}

func (h *handshake) succeed() {
	h.mu.Lock() // then(nil) waits for a next that has begun
	defer h.mu.Unlock()
	if next := h.next; next != nil {
		h.next = nil
		next()
	}
}

func (c *Client) dial(ctx context.Context, w wish, h *handshake) (*websocket.Conn, error) {
	u := *c.mount
	u.Path += "/ws"
	conn, resp, err := websocket.Dial(ctx, u.String(), c.dialOptions(w, func() {
		if dog := h.dog.Load(); dog != nil {
			dog.alive()
		}
	}))
	switch {
	case err == nil && conn.Subprotocol() != subprotocol:
		conn.CloseNow()
		return nil, &strangerError{status: http.StatusSwitchingProtocols, what: "a WebSocket without gpoll.v1"}
	case err == nil:
		conn.SetReadLimit(mostBytes)
		return conn, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols && resp.Body != nil:
		return nil, refusalOf(resp)
	}
	return nil, err
}

// give gives the handshake up, also when it has succeeded. Any goroutine may call it.
func (h *handshake) give() {
	h.given.Store(true)
	h.cancel()
	select {
	case <-h.done:
		if h.conn != nil {
			h.conn.CloseNow()
		}
	default:
	}
}

// A socket carries a client by gpoll.v1.
type socket struct {
	c    *Client
	a    *attach
	conn *websocket.Conn
	dog  *watchdog

	sent  atomic.Pointer[change] // the frame that has no answer yet
	frame io.Reader              // that is being read
}

// bySocket attaches by a WebSocket that the handshake has brought, and returns why the attach ended.
func (c *Client) bySocket(a *attach, h *handshake) error {
	s := &socket{c: c, a: a, conn: h.conn}
	defer h.give()
	defer context.AfterFunc(a.ctx, h.give)()
	s.dog = a.watch(&silentError{"the hello had no answer", welcomeWait})
	defer func() { s.dog.stop() }()
	w, err := a.wish()
	if err != nil {
		return err
	}
	if err := s.hello(w); err != nil {
		return s.cause(err)
	}
	f, err := s.next()
	if err != nil {
		return s.cause(err)
	}
	if f.Welcome == nil {
		return malformed("a welcome", f.ID+f.Position, nil)
	}
	s.dog.stop()
	heartbeat := time.Duration(f.Welcome.HeartbeatMS) * time.Millisecond
	s.dog = a.watch(c.silence(heartbeat))
	h.dog.Store(s.dog)
	c.backoff.spread = min(time.Duration(f.Welcome.SpreadMS)*time.Millisecond, mostBackoff)
	if err := c.scan(f.Welcome.Position); err != nil {
		return err
	}
	if w.last > 0 {
		c.cursor.replay(c.cursor.at)
	}
	a.open(w, f.Welcome.ClientID)
	c.carry(s, w.change)
	defer c.drop()
	for {
		if err := s.one(); err != nil {
			return err
		}
	}
}

func (s *socket) hello(w wish) error {
	var h struct {
		ClientID      string   `json:"client-id"`
		Topics        []string `json:"topics"`
		After         string   `json:"after,omitempty"`
		Last          int      `json:"last,omitempty"`
		Asked         uint64   `json:"asked"`
		Fallback      string   `json:"fallback,omitempty"`
		Authorization string   `json:"authorization,omitempty"`
	}
	h.ClientID, h.Topics, h.After, h.Last, h.Asked = w.id, w.topics, w.position(), w.last, w.asked
	h.Fallback = w.fallback
	if h.Topics == nil {
		h.Topics = []string{}
	}
	if inHello && w.token != "" {
		h.Authorization = "Bearer " + w.token
	}
	return s.write(map[string]any{"hello": h})
}

// write sends a frame. Any goroutine may call it. If the network does not take the frame, the connection ends.
func (s *socket) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.send(b)
}

func (s *socket) send(b []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeWait)
	defer cancel()
	return s.conn.Write(ctx, websocket.MessageText, b)
}

// alter sends the change. One is under way at a time.
func (s *socket) alter(ch *change) {
	s.sent.Store(ch)
	verb := "unsubscribe"
	if ch.add {
		verb = "subscribe"
	}
	_ = s.write(map[string][]string{verb: ch.named}) // the reader sees a broken connection, and the next hello has it
}

// leave lets the server forget the client. It does not wait for the answer.
func (s *socket) leave() {
	_ = s.write(map[string]bool{"leave": true})
}

// take takes a frame in.
func (s *socket) take(f *wire.Frame) error {
	switch {
	case f.ID != "" || f.Gap != nil:
		return s.c.deliver(&f.Element)
	case f.Position != "":
		s.c.cursor.replaying = false
		return s.c.scan(f.Position)
	case f.Subscribed != nil:
		return s.granted(f.Subscribed)
	case f.Unsubscribed != nil:
		return s.granted(f.Unsubscribed)
	case f.Request != nil:
		s.c.asked(f.Request)
	case f.Error != nil && f.Error.ID == "":
		s.c.settle(s.sent.Swap(nil), &EndError{Code: f.Error.Code, Message: f.Error.Message})
	case f.Error != nil:
		s.answered(f.Error.ID, &f.Outcome)
	default:
		if a := f.Answer(); a != nil {
			s.answered(a.ID, &f.Outcome)
		}
	}
	return nil // or a frame of a later version
}

func (s *socket) answered(id string, out *wire.Outcome) {
	s.c.out.answered(id, out, 1)
	s.c.pump()
}

func (s *socket) granted(t *wire.Topics) error {
	err := s.c.scan(t.Position)
	s.c.settle(s.sent.Swap(nil), nil)
	return err
}

// one reads a frame and takes it in.
func (s *socket) one() error {
	buf, err := s.read()
	if err != nil {
		return s.cause(err)
	}
	m, quick := s.c.quick(buf.Bytes())
	var f *wire.Frame
	if !quick {
		f = new(wire.Frame)
		err = decode("a frame", buf.Bytes(), f)
	}
	release(buf)
	if err != nil {
		return err
	}
	s.dog.rest()
	if quick {
		err = s.c.pass(m)
	} else {
		err = s.take(f)
	}
	s.dog.alive()
	return err
}

var frames = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// next reads a frame that is no message.
func (s *socket) next() (*wire.Frame, error) {
	buf, err := s.read()
	if err != nil {
		return nil, err
	}
	defer release(buf)
	f := new(wire.Frame)
	return f, decode("a frame", buf.Bytes(), f)
}

// read reads a frame. Release what it returns.
func (s *socket) read() (*bytes.Buffer, error) {
	// A context that can end would cost a goroutine's worth of bookkeeping a frame: a's end closes the connection.
	_, r, err := s.conn.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	buf := frames.Get().(*bytes.Buffer) // not before: a client to which nothing comes holds none
	s.frame = r
	if _, err := buf.ReadFrom(s); err != nil {
		return nil, err
	}
	return buf, nil
}

func release(buf *bytes.Buffer) {
	if buf.Cap() <= 64<<10 {
		buf.Reset()
		frames.Put(buf)
	}
}

// Read reads the frame. A long one on a slow network is a sign of life all the time.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.frame.Read(p)
	if n > 32<<10 {
		s.dog.alive()
	}
	return n, err
}

// cause makes of the error of a connection what ended it.
func (s *socket) cause(err error) error {
	if s.a.ctx.Err() != nil {
		return context.Cause(s.a.ctx)
	}
	if ce, ok := errors.AsType[websocket.CloseError](err); ok {
		return closeError(int(ce.Code), ce.Reason)
	}
	return err
}
