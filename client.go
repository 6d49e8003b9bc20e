package gpoll

import (
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/google/uuid"
)

// A Client is what a client id names: a cursor into the log with a topic filter, owned by one routine for its whole
// life. Between attaches it costs no queue and no goroutine. All methods may be called concurrently.
type Client struct {
	// Set when registered, then read-only.
	uuid    uuid.UUID
	public  string
	user    string
	routine *routine

	answering atomic.Bool              // the answer of its poll is being written; a hint for giveWay
	met       atomic.Bool              // OnConnect has accepted the client; set with the routine's mu
	watches   bool                     // it has a watcher in the presenceBook; guarded by routine.mu
	informed  bool                     // the presenceBook has its Info; guarded by routine.mu
	up        atomic.Pointer[upstream] // nil before its first command
	sess      atomic.Pointer[session]  // nil before it is needed

	// Guarded by routine.mu.
	slot      int32 // index in routine.clients and routine.hot; -1 once it is removed
	removed   bool
	attached  bool           // ever
	streamed  bool           // the last attach was a stream
	narrow    uint8          // how much smaller the next answer is: see cutLocked
	attach    *attach        // nil between attaches
	newest    uint64         // arrival of the newest attach there ever was
	named     []string       // topics that the client asked for
	topics    []string       // those, and what its Grant gives
	subs      []subscription // one for each topic
	queue     chan *record   // made when the routine first has to queue
	cursor    Position       // where an attach that brings no cursor begins
	kept      *keptCursor    // for polls that bring no cursor; nil before the first
	idleSince moment         // since when attach is nil
	err       *EndError
	remote    string // see RemoteAddr

	// The routine's present round: the addressed messages for this client, as a chain in scratch.due.
	first, end int32
}

// A hotClient is what a routine looks at for every client of every broadcast. A routine has them in one piece of
// memory, in the order of its clients: a visit costs a few nanoseconds, while a look at the Client would wait for the
// memory.
type hotClient struct {
	by        carrier     // of the modes from queued on
	direct    chan string // of the mode direct
	from      uint64      // the routine offers what is newer: the attach has read the rest from the log
	round     uint64      // last round in which something was addressed to the client
	collected uint64      // last round in which something was collected for its socket
	due       moment      // when a sweep has to look at the client; 0: never
	lease     uint32      // number of the stream's lease, of the mode inline
	mode      mode
	form      form // of the mode inline
}

// scheduleLocked sets when a sweep has to look at the client: when its attach is due or has to be authorised anew, or
// when it has been away for too long.
func (c *Client) scheduleLocked() {
	h := c.hot()
	a := c.attach
	switch {
	case a == nil && (c.attached || c.met.Load()):
		h.due = c.idleSince + moment(c.routine.b.set.clientTTL)
	case a == nil:
		h.due = c.idleSince + moment(c.routine.b.set.attachTimeout)
	case a.due == 0 || a.expires != 0 && a.expires < a.due:
		h.due = a.expires
	default:
		h.due = a.due
	}
}

// hot returns what the routine keeps for c. The client is registered and not removed; routine.mu is held, also while
// the result is used.
func (c *Client) hot() *hotClient { return &c.routine.hot[c.slot] }

// A keptCursor is what the server keeps for a client whose polls bring no cursor, or for a client of AddClient before
// its first attach.
type keptCursor struct {
	sent     Position // end of a response that the next such poll acknowledges; zero: none
	backfill []item   // what last=N owes
	backSent int      // how many of backfill that response carried
	backlog  int      // messages that came while mode was counting
	bytes    int      // of them
}

// A mode says who takes a client on from its cursor. A round passes over clients whose mode is before counting, counts
// for those in counting, and offers to those from queued on.
type mode uint8

const (
	away     mode = iota // nobody: the client is unattached and will bring its cursor or find it in Client.cursor
	reading              // the attach's goroutine reads the log
	resuming             // a goroutine is about to read the log for a poll that was parked
	counting             // nobody, but a poll without cursor, or GetChannel, is expected; too large a backlog removes it
	queued               // the routine queues for the attach's goroutine
	direct               // the routine sends on the channel that GetChannel returned
	inline               // the routine writes to the attach's socket
	parked               // the routine answers the poll on the attach's connection of Listener
)

// key is the name under which the registry has c.
func (c *Client) key() clientKey { return keyOf(c.uuid.String()) }

// ID returns the whole client id, `<routine>$<uuid>`. It is the client's secret: do not log it or show it to others.
func (c *Client) ID() string { return formatClientID(c.routine.id, c.uuid.String()) }

// PublicID returns the name by which others may know the client.
func (c *Client) PublicID() string { return c.public }

// User returns the Grant's user, or "".
func (c *Client) User() string { return c.user }

// Topics returns a copy of the topics and patterns that the client is subscribed to.
func (c *Client) Topics() []string {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	return slices.Clone(c.topics)
}

// Transport returns how the client is attached at the moment: "long-poll", "sse", "websocket", "channel", or "" when it
// is not.
func (c *Client) Transport() string {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	if c.attach == nil {
		return ""
	}
	return c.attach.transport.String()
}

// Err says why the last channel of GetChannel was closed: an *EndError, whose Gap is set when messages were lost. Err
// is nil while the client is registered and that channel is open.
func (c *Client) Err() error {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return c.err
}

// An EndError says why an attach ended.
type EndError struct {
	Code string // "removed", "expired", "superseded", "gap", "shutdown", …
	Gap  *Gap   // what was lost, for "gap"
}

func (e *EndError) Error() string {
	if e.Gap != nil {
		return "gpoll: the client's channel was closed: messages lost: " + e.Gap.String()
	}
	return "gpoll: the client's channel was closed: " + e.Code
}

// setTopicsLocked subscribes the client to the topics that it named and to those that its Grant gives, from the next
// offer on. named is a sorted set. setTopicsLocked reports whether the subscription has changed.
func (c *Client) setTopicsLocked(named, given []string) (changed bool) {
	c.named = named
	topics := union(union(named, given), c.ownTopicsLocked())
	if slices.Equal(c.topics, topics) {
		return false
	}
	before, old := c.topics, c.subs
	c.topics = topics
	c.routine.subscribeLocked(c)
	c.routine.unsubscribeLocked(old)
	if c.presentLocked() {
		c.movedLocked(before, topics)
	}
	return true
}

// interestLocked is what the client is owed now.
func (c *Client) interestLocked() interest {
	return interest{topics: c.topics, client: c.public, user: c.user}
}

// lagLocked makes the attach's goroutine read on from the log, because the queue is full or the log began anew.
func (c *Client) lagLocked() {
	c.hot().mode = reading
	c.attach.wake()
}

// AddClient registers a client and returns its bare uuid and the id of the routine that owns it, for GetChannel in this
// process or for a browser as `<routine>$<uuid>`. The client belongs to no user and to no topic. It expires if it is
// not attached within AttachTimeout, and is removed earlier when more than ClientBufferSize messages, or 256 KiB of
// them, have come. AddClient returns "" and -1 after Shutdown or when MaxClients are registered.
func (b *Broadcaster) AddClient() (string, int) {
	if err := b.start(); err != nil {
		if err != ErrClosed {
			b.tell(slog.LevelError, "gpoll: AddClient failed", "err", err)
		}
		return "", -1
	}
	c, refused := b.register(registration{fills: true})
	if refused != nil {
		b.tell(slog.LevelWarn, "gpoll: AddClient refused", "code", refused.code)
		return "", -1
	}
	return c.uuid.String(), c.routine.id
}

// Client returns the client that id names: a whole client id or a bare uuid.
func (b *Broadcaster) Client(id string) (*Client, bool) {
	if b.start() != nil {
		return nil, false
	}
	if routine, bare, ok := parseClientID(id); ok {
		c := b.clients.get(keyOf(bare))
		if c == nil || c.routine.id != routine {
			return nil, false
		}
		return c, true
	}
	c := b.clients.get(keyOf(id))
	return c, c != nil
}

// RemoveClient removes the client that id names (a whole client id or a bare uuid) and ends its attach with "removed".
// It reports whether there was one.
func (b *Broadcaster) RemoveClient(id string) bool {
	c, ok := b.Client(id)
	return ok && b.remove(c, endRemoved)
}

// GetChannel attaches to a client inside this process and returns the channel of its messages: ClientBufferSize long,
// filled by the client's routine. cid is the bare uuid and rid the routine that AddClient returned, as in the 2015
// package. A second call returns the same channel.
//
// While the channel is full the client lags and reads on from the log as room appears. If the log's window passes the
// client meanwhile, gpoll closes the channel, since a string cannot carry the gap, and Client.Err says what was lost.
// gpoll also closes it when the client is removed, superseded by another transport, or shut down. Only gpoll sends on
// the channel or closes it.
//
// The error is ErrUnknownClient.
func (b *Broadcaster) GetChannel(cid string, rid int) (chan string, error) {
	c, ok := b.Client(cid)
	if !ok || c.routine.id != rid {
		return nil, ErrUnknownClient
	}
	return c.openChannel()
}
