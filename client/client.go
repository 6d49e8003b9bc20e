package client

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// A Client is one client of a gpoll server. It stays one while connections break, transports change, servers restart:
// it comes back with its place in the stream, drops what comes twice, and hands on the server's word of what is lost.
//
// All methods may be called concurrently.
type Client struct {
	// Set by Dial, then read-only.
	opts     Options
	mount    *url.URL
	http     *http.Client
	free     func()
	log      *slog.Logger
	inbox    *inbox
	out      *outbox
	requests requests
	life     context.Context // ends with Close, or when the Client may not go on
	quit     context.CancelCauseFunc
	attached chan struct{} // closed when the first attach is open
	done     chan struct{} // closed when the session has ended
	turn     chan struct{} // has a token while a change of the topics is under way
	tokens   chan struct{} // has a token while Options.Token runs

	// Touched only by the session's goroutine, which run is.
	cursor    cursor
	ladder    ladder
	backoff   backoff
	dialed    sync.Once
	lastTopic string
	told      []string // the reasons for a fallback that the server knows
	heartbeat time.Duration
	pollWait  time.Duration
	strayed   time.Time // when the client last gave up an attach, which may still be on its way

	climbed atomic.Pointer[handshake] // has succeeded, and is to be used
	calling atomic.Bool               // OnStatus

	telling sync.Mutex // held while OnStatus runs

	mu      sync.Mutex // guards the fields below
	id      string     // "": none
	token   string
	renewed bool     // it has taken the place of one that was refused, and has not worked yet
	topics  []string // never altered in place
	change  *change
	unsure  *change // taken for granted, because nothing was said
	by      carrier
	status  Status
	lastErr error // why it waited last
	closing bool
	err     error          // why the session has ended
	group   sync.WaitGroup // the goroutines beside the session; Add is called under mu, and not once closing
}

// A Message is what Messages yields: a message, or a gap if Gap is not nil.
type Message struct {
	Topic    string // "": it went to everybody, to this client or to its user
	Data     []byte // the application's to keep
	Position gpoll.Position

	// Gap says which messages may be missing between the Message before and the one behind. Such a Message has no Topic
	// and no Data. A program that shows a state should fetch that state anew.
	Gap *gpoll.Gap
}

// Dial connects to the gpoll server whose mount has that address, such as https://example.org/poll, and returns once
// the Client is attached. As long as the server cannot be reached, Dial goes on trying until ctx ends: give it a
// deadline. The error is an *EndError if the server refuses the client; otherwise it says why no transport worked.
//
// ctx is for Dial alone: the Client lives until Close, or until the server's word ends it.
func Dial(ctx context.Context, address string, o Options) (*Client, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	mount, err := mountURL(address)
	if err != nil {
		return nil, err
	}
	o.Header, o.Transports = o.Header.Clone(), slices.Clone(o.Transports)
	c := &Client{
		opts:      o,
		mount:     mount,
		log:       o.Logger,
		inbox:     newInbox(o.After),
		out:       &outbox{prefix: newPrefix(), woken: make(chan struct{}, 1)},
		tokens:    make(chan struct{}, 1),
		attached:  make(chan struct{}),
		done:      make(chan struct{}),
		turn:      make(chan struct{}, 1),
		cursor:    cursor{at: o.After},
		ladder:    newLadder(o.Transports),
		heartbeat: firstHeartbeat,
		topics:    slices.Compact(slices.Sorted(slices.Values(o.Topics))),
	}
	c.requests.handler = o.OnRequest
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.http, c.free = o.httpClient()
	c.life, c.quit = context.WithCancelCause(context.Background())
	go c.run() // ends with Close, or by the server's word
	select {
	case <-c.attached:
		return c, nil
	case <-c.done:
		return nil, c.endErr()
	case <-ctx.Done():
		c.mu.Lock()
		last := c.lastErr
		c.mu.Unlock()
		c.Close()
		if last != nil {
			return nil, fmt.Errorf("client: not attached in time: %w (%w)", context.Cause(ctx), last)
		}
		return nil, fmt.Errorf("client: not attached in time: %w", context.Cause(ctx))
	}
}

// Messages yields messages and gaps in the order of the stream, as they come. It ends with an error: the cause of ctx,
// ErrClosed after Close, or an *EndError when the server has ended the Client for good, for example because a newer
// client has taken over its id. What was broken and is mended is not an error: see Options.OnStatus.
//
// A program that leaves the loop can begin another one later, which goes on with the next message. Two loops at once
// share the messages. While nobody takes them, up to 256 messages or 256 KiB wait in the Client, and then it reads
// nothing more from the network. The server keeps the rest as long as its window holds.
func (c *Client) Messages(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			m, err := c.inbox.take(ctx)
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// Position returns the Position up to which Messages has yielded all that the Client is owed. As Options.After it lets
// another Client go on from there.
func (c *Client) Position() gpoll.Position { return c.inbox.position() }

// ID returns the client id, which the server may replace by a new one when it has forgotten the Client. Whoever has the
// id can read what the Client would read.
func (c *Client) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// PublicID returns the name by which other clients know this one: what gpoll.ToClient and gpoll.Message.Except take.
func (c *Client) PublicID() string {
	if id := c.ID(); id != "" {
		return gpoll.PublicID(id)
	}
	return ""
}

// Close leaves the server and ends the Client. It returns when all goroutines of the Client have ended, except while
// OnStatus runs. Messages that were not taken are dropped. It always returns nil.
func (c *Client) Close() error {
	c.mu.Lock()
	by := c.by
	first := !c.closing
	c.closing = true
	c.mu.Unlock()
	if s, ok := by.(*socket); ok && first {
		s.leave()
	}
	c.quit(ErrClosed)
	if !c.calling.Load() {
		<-c.done
	}
	return nil
}

// endErr returns why the session has ended.
func (c *Client) endErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) everAttached() bool {
	select {
	case <-c.attached:
		return true
	default:
		return false
	}
}

// spawn runs f beside the session, and reports false if the Client is about to end.
func (c *Client) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.group.Go(f)
	return true
}
