package client

import (
	"context"
	"sync"

	"github.com/corvuscrypto/gpoll"
)

// The bounds of an inbox. A batch of a poll is 500 messages; the rest of it waits with the reader.
const (
	inboxMessages = 256
	inboxBytes    = 256 << 10
)

// An inbox holds what has arrived until the application takes it. If it is full, put waits, and so nothing more is read
// from the network.
type inbox struct {
	more chan struct{} // has a token if there may be something to take
	room chan struct{} // has a token if put may have room again

	mu     sync.Mutex // guards the fields below
	queue  []arrival  // from head on
	head   int
	bytes  int
	full   bool // put waits
	open   int  // how many callers wait for an answer that comes behind the messages: there are no bounds
	passed gpoll.Position
	err    error // why nothing more comes
	now    bool  // err comes before what is queued
}

// An arrival is a message or a gap, or a scanned Position alone.
type arrival struct {
	Message
	scanned bool
}

func newInbox(passed gpoll.Position) *inbox {
	return &inbox{more: make(chan struct{}, 1), room: make(chan struct{}, 1), passed: passed}
}

// put appends a message. It waits for room, at most until ctx ends.
func (in *inbox) put(ctx context.Context, m Message) error {
	for {
		in.mu.Lock()
		if n := len(in.queue) - in.head; in.open > 0 || n == 0 ||
			n < inboxMessages && in.bytes+len(m.Data) <= inboxBytes {
			in.appendLocked(arrival{Message: m})
			in.bytes += len(m.Data)
			in.mu.Unlock()
			token(in.more)
			return nil
		}
		in.full = true
		in.mu.Unlock()
		select {
		case <-in.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// scan notes that all that the client is owed up to p has been put.
func (in *inbox) scan(p gpoll.Position) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch last := len(in.queue) - 1; {
	case last < in.head:
		in.passed = p
	case in.queue[last].scanned:
		in.queue[last].Position = p
	default:
		in.appendLocked(arrival{Message{Position: p}, true})
	}
}

func (in *inbox) appendLocked(a arrival) {
	if len(in.queue) == cap(in.queue) && in.head > len(in.queue)/2 {
		n := copy(in.queue, in.queue[in.head:])
		clear(in.queue[n:])
		in.queue, in.head = in.queue[:n], 0
	}
	in.queue = append(in.queue, a)
}

// take returns the oldest message, or why there will be none. It waits until ctx ends.
func (in *inbox) take(ctx context.Context) (Message, error) {
	for {
		if m, ok, err := in.pop(); ok || err != nil {
			return m, err
		}
		select {
		case <-in.more:
		case <-ctx.Done():
			return Message{}, context.Cause(ctx)
		}
	}
}

func (in *inbox) pop() (m Message, ok bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil && (in.now || in.head == len(in.queue)) {
		token(in.more) // for another caller
		return m, false, in.err
	}
	for in.head < len(in.queue) {
		a := in.queue[in.head]
		in.queue[in.head] = arrival{}
		if in.head++; in.head == len(in.queue) {
			in.queue, in.head = in.queue[:0], 0
		}
		in.bytes -= len(a.Data)
		if !a.Position.IsZero() {
			in.passed = a.Position
		}
		if a.scanned {
			continue
		}
		n := len(in.queue) - in.head
		if in.full && n <= inboxMessages/2 && in.bytes <= inboxBytes/2 {
			in.full = false
			token(in.room)
		}
		if n > 0 {
			token(in.more)
		}
		return a.Message, true, nil
	}
	if cap(in.queue) > 32 {
		in.queue = nil // a quiet client keeps no memory of a busy time
	}
	if in.full {
		in.full = false
		token(in.room)
	}
	return m, false, in.err
}

// position returns the Position up to which the application has taken everything.
func (in *inbox) position() gpoll.Position {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.passed
}

// unbound lifts the bounds until the function that it returns is called.
func (in *inbox) unbound() (bound func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.open++
	token(in.room)
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.open--
	}
}

// end says that nothing more comes. If now, what is queued does not come either.
func (in *inbox) end(err error, now bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil {
		in.err = err
	}
	in.now = in.now || now
	token(in.more)
}

// token puts a token into a channel of one.
func token(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
