package client

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corvuscrypto/gpoll/internal/wire"
)

// How many commands may be under way on a WebSocket. The server reads the next one when the application is done with
// the one before: what is under way waits in the network, and has to fit in there.
const (
	pipelined      = 32
	pipelinedBytes = 32 << 10
)

// What fits into one request, and into one frame: the server closes a WebSocket that brings more.
const (
	batchCommands = 100
	batchBytes    = 48 << 10
	frameBytes    = 60 << 10
)

// An outbox keeps the commands of a client, in their order, until they are answered. One goroutine sends them: it is
// there while there is something to send (Client.pump).
//
// There are two doors, and one of them is open at a time. Through the WebSocket many commands are under way. Through
// path/commands a batch is under way, and the next one follows its answer. After a refusal for the rate, both doors let
// commands through at the pace that the server has named, until none waits.
//
// Commands that are under way together have no order: one of them may be refused, and the one behind it done. So a
// program that wants an order waits for the answer, which Send and its like do.
type outbox struct {
	prefix string
	last   atomic.Uint64 // id
	woken  chan struct{} // has a token when another door is open

	mu      sync.Mutex // guards the fields below, and those of the commands
	queue   []*command
	away    int                     // how many of queue are under way
	bytes   int                     // of those
	pumping bool                    // the goroutine runs
	open    bool                    // the client is attached
	client  string                  // its id
	socket  *socket                 // by which; nil: by another transport
	posting context.CancelCauseFunc // of the request under way

	pace    time.Duration // between two commands; 0: as fast as it goes
	due     time.Time     // the next one, with a pace
	wait    backoff       // after failures of requests
	until   time.Time     // nothing is sent before
	alone   bool          // one command a request: to learn which of a batch is to blame
	patient time.Duration // how long a request may be without an answer; 0: commandWait
}

func (o *outbox) newID() string { return o.prefix + strconv.FormatUint(o.last.Add(1), 10) }

func (o *outbox) add(cmd *command) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, cmd)
	o.outdateLocked(cmd)
}

// outdateLocked ends a reply that was for an earlier client id.
func (o *outbox) outdateLocked(cmd *command) {
	if cmd.client != "" && cmd.client != o.client {
		cmd.err = &EndError{Code: "no-request", Message: "the server has forgotten the client that it asked"}
		o.doneLocked(cmd)
	}
}

// withdraw says that nobody waits for the answer. What is under way keeps its place, which it has in the network too.
func (o *outbox) withdraw(cmd *command) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if cmd.withdrawn = true; cmd.by == nil {
		o.removeLocked(cmd)
	}
}

func (o *outbox) removeLocked(cmd *command) {
	if i := slices.Index(o.queue, cmd); i >= 0 {
		o.bringLocked(cmd, nil)
		o.queue = slices.Delete(o.queue, i, i+1)
	}
	if len(o.queue) == 0 {
		o.queue, o.pace, o.due = nil, 0, time.Time{}
	}
}

// through says which door is open to a client id: that of socket, or path/commands if it is nil, or none.
func (o *outbox) through(socket *socket, client string, open bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if open && o.client != client {
		o.client = client
		for _, cmd := range slices.Clone(o.queue) {
			o.outdateLocked(cmd)
		}
	}
	if old := o.socket; old != nil && old != socket {
		o.againLocked(old)
	}
	if socket != nil && o.socket == nil {
		// What is under way by a request comes again by the socket, as it does after each change of the transport.
		o.until = time.Time{}
		if o.posting != nil {
			o.posting(errClimb)
		}
	}
	o.socket, o.open = socket, open
	token(o.woken)
}

// start reports whether the caller has to run the goroutine.
func (o *outbox) start() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok, _ := o.firstLocked()
	if o.pumping || !ok {
		return false
	}
	o.pumping = true
	return true
}

// next returns the commands to send now, by the socket if that is not nil. Without one to send, it returns how long to
// wait, or that the goroutine has to end: start tells when another one is needed.
func (o *outbox) next() (batch []*command, by *socket, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first, ok, post := o.firstLocked()
	if !ok {
		o.pumping = false
		return nil, nil, 0
	}
	now := time.Now()
	if wait = max(o.until.Sub(now), o.due.Sub(now)); wait > 0 {
		return nil, nil, wait
	}
	most := batchCommands
	switch {
	case !post || o.alone:
		most = 1
	case o.pace > 0:
		most = int(min(1+now.Sub(o.due)/o.pace, batchCommands))
	}
	size := 0
	for _, cmd := range o.queue[first:] {
		if size += len(cmd.frame) + 1; cmd.by != nil || len(batch) == most || len(batch) > 0 && size > batchBytes {
			break
		}
		batch = append(batch, cmd)
	}
	if o.pace > 0 {
		o.due = now.Add(o.pace)
	}
	if !post {
		o.bringLocked(batch[0], o.socket)
		return batch, o.socket, 0
	}
	for _, cmd := range batch {
		o.bringLocked(cmd, postDoor)
	}
	return batch, nil, 0
}

// bringLocked says what brings cmd; nil: it has to be sent.
func (o *outbox) bringLocked(cmd *command, by *socket) {
	if cmd.by != nil {
		o.away--
		o.bytes -= len(cmd.frame)
	}
	if cmd.by, cmd.as = by, o.client; by != nil {
		o.away++
		o.bytes += len(cmd.frame)
	}
}

// postDoor is the command.by of one that a request has brought.
var postDoor = new(socket)

// firstLocked returns the place of the first command that is not under way, whether it may be sent, and whether by a
// request.
func (o *outbox) firstLocked() (first int, ok, post bool) {
	if !o.open || o.away == len(o.queue) || o.away >= pipelined {
		return 0, false, false
	}
	first = slices.IndexFunc(o.queue, func(cmd *command) bool { return cmd.by == nil })
	size := len(o.queue[first].frame)
	post = o.socket == nil || size > frameBytes
	return first, o.away == 0 || !post && o.pace == 0 && o.bytes+size <= pipelinedBytes, post
}

// againLocked lets what by has brought be sent again.
func (o *outbox) againLocked(by *socket) {
	for _, cmd := range slices.Clone(o.queue) {
		if cmd.by == by {
			o.retryLocked(cmd)
		}
	}
}

func (o *outbox) retryLocked(cmd *command) {
	if o.bringLocked(cmd, nil); cmd.withdrawn {
		o.removeLocked(cmd)
	}
}

// laterLocked lets nothing be sent for d; 0: for a while.
func (o *outbox) laterLocked(d time.Duration) {
	if d <= 0 {
		d = o.wait.next()
	}
	o.until = time.Now().Add(d)
}

// answered takes in what came of a command that came to the server in a batch of so many. It does not wait.
func (o *outbox) answered(id string, out *wire.Outcome, batch int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.queue, func(cmd *command) bool { return cmd.id == id })
	if i < 0 {
		return // withdrawn, and on its way when its connection broke
	}
	cmd := o.queue[i]
	if e := out.Error; e != nil {
		retry := time.Duration(e.RetryMS) * time.Millisecond
		switch {
		case e.Code == "rate":
			if o.pace == 0 {
				o.pace = min(max(retry, time.Millisecond), mostBackoff)
			}
			// Others that were refused meanwhile are not to come all at once either.
			o.due = time.Now().Add(max(retry, o.pace))
			o.retryLocked(cmd)
			return
		case passes(e.Code):
			o.laterLocked(retry)
			o.retryLocked(cmd)
			return
		case e.Code == "internal" && batch > 1:
			// This command has failed, or one before it in the batch, and then nothing behind that one was done.
			o.alone = true
			o.retryLocked(cmd)
			return
		}
		cmd.err = &EndError{Code: e.Code, Message: e.Message}
	} else if cmd.answer = out.Answer(); cmd.answer == nil {
		o.retryLocked(cmd) // not of this protocol
		o.laterLocked(0)
		return
	}
	o.doneLocked(cmd)
}

func (o *outbox) doneLocked(cmd *command) {
	o.wait.reset()
	o.alone = false
	o.removeLocked(cmd)
	close(cmd.done)
}

// passes reports whether a command that was refused with code may be done later.
func passes(code string) bool {
	switch code {
	case "rate", "unavailable", "unknown-outcome", "shutdown", "closed", "unknown-client":
		return true
	}
	return false
}
