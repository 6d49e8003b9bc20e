package load

import (
	"errors"
	"fmt"
)

var (
	// ErrPlatform is what New returns where there is no epoll.
	ErrPlatform = errors.New("load: the generator needs Linux")
	// ErrDescriptors says that the process may not open as many files as there are to be clients.
	ErrDescriptors = errors.New("load: too few file descriptors")
	// ErrStalled says that clients did not get ready, or messages did not arrive, in the time given.
	ErrStalled = errors.New("load: the server stopped answering")
)

// Config says what an Engine holds.
type Config struct {
	Addr     string   // host:port; a name is looked up once
	Clients  int      // connections
	Protocol Protocol // what they speak
	Run      uint32   // the run whose messages count, see Payload; with streams, that of the first

	// Streams is the number of sequences, at least 1 (0 means 1). Client i belongs to sequence i % Streams, whose run
	// is Run + i % Streams.
	Streams int

	// Pending bounds how many connections are being opened at once. 0 is 256.
	Pending int
}

func (c *Config) check() error {
	if c.Clients < 1 {
		return fmt.Errorf("load: Clients is %d, it must be at least 1", c.Clients)
	}
	if c.Protocol == nil {
		return errors.New("load: Protocol is missing")
	}
	if c.Streams == 0 {
		c.Streams = 1
	}
	if c.Streams < 1 || c.Streams > c.Clients {
		return fmt.Errorf("load: Streams is %d, it must be between 1 and Clients (%d)", c.Streams, c.Clients)
	}
	if c.Pending == 0 {
		c.Pending = 256
	}
	return nil
}

// Protocol knows what a client of one kind of server sends and receives. One value serves all clients of an engine,
// from one goroutine. It keeps the state of a client in the Client.
type Protocol interface {
	// Start appends to dst what a new connection sends first.
	Start(c *Client, dst []byte) []byte

	// Receive is given the bytes that have arrived and have not been consumed. It reports each message with c.Message,
	// readiness with c.Ready, and answers with c.Send. It returns how many bytes of p it has consumed. The rest comes
	// again, in front of the bytes that arrive next. An error closes the client and is counted by its text.
	Receive(c *Client, p []byte) (int, error)

	// Closed is called when the server closed the connection in an orderly way. True: open it again.
	Closed(c *Client) bool
}

// Client is one connection. Its exported fields are the protocol's.
type Client struct {
	Index int

	Phase  int    // 0 on a new connection
	Left   int    // bytes of a body or a chunk still to come
	ID     []byte // what the server calls this client
	Cursor []byte // what the next request says about what has arrived
	Extra  []byte // whatever else is remembered between two answers
	Part   []byte // a line or a message that has not ended

	engine *Engine
	fd     int
	index  int32
	state  clientState
	ready  bool
	again  bool // Redial was called
	stream *stream
	sequence
	rest []byte // arrived and not consumed
	out  []byte // to be written when the socket takes it

	said  int    // messages of a flood
	asked uint64 // questions
}

type clientState uint8

const (
	stateNew clientState = iota
	stateDialing
	stateOpen
	stateClosed
)

// Ready says that from now on the server owes this client every message.
func (c *Client) Ready() {
	if !c.ready {
		c.ready = true
		c.engine.readyClients++
	}
}

// IsReady reports whether Ready was called.
func (c *Client) IsReady() bool { return c.ready }

// Redial has the connection closed when Receive returns and opened again.
func (c *Client) Redial() { c.again = true }

// Stream is the number of the sequence the client belongs to.
func (c *Client) Stream() int { return c.Index % len(c.engine.streams) }

// Gap counts a notice of the server that messages may be missing.
func (c *Client) Gap() { c.engine.tally.Gaps++ }

// Foreign counts a message that nobody of this run published.
func (c *Client) Foreign() { c.engine.tally.Foreign++ }

// Message verifies one whole message and reports whether it was one of this run.
func (c *Client) Message(p []byte) bool {
	e := c.engine
	if len(p) < MinSize || string(p[:markLen]) != string(c.stream.mark) {
		return false
	}
	seq, stamp, err := parsePayload(p)
	if err != nil || seq == 0 {
		e.tally.Damaged++
		return true
	}
	c.sequence.take(c.stream, e.tally, seq)
	t := e.tally
	if t.First == 0 || stamp < t.First {
		t.First = stamp
	}
	t.Last = e.now
	_ = t.Latency.RecordValue(min(max((e.now-stamp)/1000, 1), slowest)) // in range by min and max
	if e.up != nil {
		e.up.answered(c)
	}
	return true
}
