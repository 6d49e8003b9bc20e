// Package eventloop serves clients by callbacks that one goroutine makes, one after the other: a program needs no lock
// for what its clients share. It has the model of gowsev, on all transports of gpoll.
//
//	loop := eventloop.New(handler)
//	if err := loop.ListenAndServe(":9000"); err != nil {
//		return err
//	}
//	return loop.Run(ctx)
//
// A connection is a plain WebSocket at any path, a WebSocket that the program has dialed (AddConn), or a session of
// gpoll (gpoll.v1, SSE or long-poll at /poll), which stays one connection while its transport changes.
package eventloop

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// A Handler is told what happens. Its methods are called in one goroutine, never two at once, and a connection's in
// order: ConnAccepted, its messages, ConnClosed. They may call every method of the Loop but Step and Run.
type Handler interface {
	// ConnAccepted is called for each connection. ids are never used again.
	ConnAccepted(loop *Loop, id uint64)

	// ConnClosed is called when a connection has ended, whoever ended it.
	ConnClosed(loop *Loop, id uint64)

	// EventLoopTimeout is called when nothing has happened for the Loop's timeout.
	EventLoopTimeout(loop *Loop)

	// MessageReceived is called with each message, which is the handler's to keep.
	MessageReceived(loop *Loop, id uint64, message []byte)
}

var (
	// ErrClosed is returned after Shutdown.
	ErrClosed = errors.New("eventloop: the loop is shut down")

	// ErrNoConn is returned for an id of no connection, or of one that has ended.
	ErrNoConn = errors.New("eventloop: there is no such connection")

	// ErrRunning is returned by Step and Run while another call of them runs.
	ErrRunning = errors.New("eventloop: the loop runs already; the handler is never entered twice at once")
)

// A connection holds up its peer while so many of its messages wait for the handler.
const unhandled = 64

// A Loop calls a Handler. All methods may be called concurrently.
type Loop struct {
	handler Handler
	b       *gpoll.Broadcaster
	mux     *http.ServeMux // of the sessions
	mount   sync.Once
	running sync.Mutex // held by Step and Run

	wake  chan struct{} // the queue is not empty, or the loop has ended
	ended chan struct{} // closed by Shutdown

	mu      sync.Mutex // guards the fields below
	queue   []event
	conns   map[uint64]conn
	last    uint64 // id
	timeout time.Duration
	servers []*http.Server
	closing bool
	serving sync.WaitGroup // the goroutines of the servers and of the connections

	taken []event // from the queue; touched by the one that holds running
}

// An event is one call of the handler.
type event struct {
	kind kind
	id   uint64
	data []byte
	done func() // is called afterwards
}

type kind uint8

const (
	accepted kind = iota
	received
	closed
)

// A conn is one connection.
type conn interface {
	// write hands message on, which stays the caller's, and does not wait for the peer.
	write(message []byte) error

	// close ends the connection; its closed event follows. It does not wait.
	close(reason string)
}

// New returns a Loop that calls h. Nothing is called before Step or Run.
func New(h Handler) *Loop {
	l := &Loop{handler: h, b: gpoll.NewBroadcaster(), mux: http.NewServeMux(), wake: make(chan struct{}, 1),
		ended: make(chan struct{}), conns: map[uint64]conn{}}
	l.b.DisconnectSlow = true
	return l
}

// Broadcaster carries the sessions. Its settings may be changed before the first ListenAndServe or request, except
// OnConnect, OnClose and OnMessage, which are the Loop's; AllowedOrigins, Authorize, MaxClients and MaxMessage hold for
// plain WebSockets, too.
func (l *Loop) Broadcaster() *gpoll.Broadcaster { return l.b }

// GetTimeout returns after how long without an event EventLoopTimeout is called; 0: never.
func (l *Loop) GetTimeout() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.timeout
}

// SetTimeout changes the timeout, from the next wait on.
func (l *Loop) SetTimeout(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timeout = d
}

// Write sends message to a connection: as text if it is UTF-8, else as bytes. It copies message and does not wait for
// the peer. A connection that does not take what is written is closed with "slow": a plain one when more than 1 MiB or
// 4,096 messages wait, a session when it is further behind than its server's window. The error is ErrNoConn, ErrClosed
// or that of gpoll.Broadcaster.Publish.
func (l *Loop) Write(id uint64, message []byte) error {
	c := l.conn(id)
	if c == nil {
		return ErrNoConn
	}
	return c.write(message)
}

// Close ends a connection, if there is one. ConnClosed follows.
func (l *Loop) Close(id uint64) {
	if c := l.conn(id); c != nil {
		c.close("closed by the application")
	}
}

// Conns returns how many connections there are.
func (l *Loop) Conns() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

func (l *Loop) conn(id uint64) conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[id]
}

// add makes c a connection. It returns 0 after Shutdown.
func (l *Loop) add(c conn) (id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return 0
	}
	l.last++
	l.conns[l.last] = c
	l.pushLocked(event{kind: accepted, id: l.last})
	return l.last
}

// remove tells the handler that a connection has ended.
func (l *Loop) remove(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[id] != nil {
		delete(l.conns, id)
		l.pushLocked(event{kind: closed, id: id})
	}
}

func (l *Loop) push(e event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pushLocked(e)
}

func (l *Loop) pushLocked(e event) {
	l.queue = append(l.queue, e)
	l.signal()
}

func (l *Loop) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Step waits for one event, or for the timeout, and calls the handler. The error is the cause of ctx, ErrRunning, or
// ErrClosed when the loop is shut down and the handler knows everything.
func (l *Loop) Step(ctx context.Context) error {
	if !l.running.TryLock() {
		return ErrRunning
	}
	defer l.running.Unlock()
	return l.step(ctx)
}

// Run calls Step until it fails, and returns why; after Shutdown it returns nil.
func (l *Loop) Run(ctx context.Context) error {
	if !l.running.TryLock() {
		return ErrRunning
	}
	defer l.running.Unlock()
	for {
		if err := l.step(ctx); err == ErrClosed {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (l *Loop) step(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	var late <-chan time.Time
	for len(l.taken) == 0 {
		over := l.take()
		if len(l.taken) > 0 {
			break
		}
		if over {
			l.signal() // for the next call
			return ErrClosed
		}
		if d := l.GetTimeout(); d > 0 && late == nil {
			timer := time.NewTimer(d)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late:
			l.handler.EventLoopTimeout(l)
			return nil
		case <-l.wake:
		}
	}
	e := l.taken[0]
	l.taken[0] = event{}
	l.taken = l.taken[1:]
	if e.done != nil {
		defer e.done()
	}
	switch e.kind {
	case accepted:
		l.handler.ConnAccepted(l, e.id)
	case received:
		l.handler.MessageReceived(l, e.id, e.data)
	case closed:
		l.handler.ConnClosed(l, e.id)
	}
	return nil
}

// take takes what is in the queue. It reports whether nothing can come any more.
func (l *Loop) take() (over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken, l.queue = l.queue, nil
	return l.closing && len(l.conns) == 0 && len(l.taken) == 0
}

// Shutdown ends the loop: the listeners close, every connection is told "shutdown" and ends. Then Run calls the handler
// with what is left, and returns. Shutdown waits until all goroutines of the Loop but that of Run have ended, or ctx
// has; its error is the cause of ctx.
func (l *Loop) Shutdown(ctx context.Context) error {
	l.mu.Lock()
	if !l.closing {
		l.closing = true
		close(l.ended)
	}
	conns := make([]conn, 0, len(l.conns))
	for _, c := range l.conns {
		conns = append(conns, c)
	}
	servers := l.servers
	l.mu.Unlock()
	l.mounted() // so that the Broadcaster ends what it has begun, and nothing else
	for _, c := range conns {
		if raw, ok := c.(*rawConn); ok {
			raw.end(closeShutdown, "shutdown")
		}
	}
	failed := l.b.Shutdown(ctx)
	for _, s := range servers {
		if err := s.Shutdown(ctx); failed == nil {
			failed = err
		}
	}
	done := make(chan struct{})
	go func() { // ends with the connections
		l.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		failed = context.Cause(ctx)
	}
	l.signal()
	return failed
}
