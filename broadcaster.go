package gpoll

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Broadcaster owns one log of messages and the clients that read it. Set its fields before its first use; from then
// on they are read only. The zero value of each field means its default, and the zero Broadcaster is ready for use.
//
// A bad setting makes ListenAndBroadcast panic and Publish fail; both name the field. While the Broker cannot be
// followed, Publish fails and requests are answered with 500; the next use tries again. A Broadcaster has goroutines
// only while it has clients; Shutdown ends them (those of a Listener end with its Close). All methods may be called
// concurrently, also from inside the functions below and the Broker's methods, except while the Broker's Window or
// Subscribe is called: then they fail with an error that says so.
type Broadcaster struct {
	// RoutineMaxClients is how many clients one routine serves. Default 1000. A routine is one goroutine. Many small
	// routines spread the work over the processors; few large ones cost less for each message.
	RoutineMaxClients int

	// ClientBufferSize is how many messages wait for one client whose transport a goroutine serves. Beyond that, or beyond
	// 256 KiB, an attached client lags (it reads on from the log), and a client that polls without a cursor and stays away
	// is removed. It is also the length of GetChannel's channels. Default 100. gpoll takes the memory at its first use.
	ClientBufferSize int

	// RoutineBufferSize is how many messages a routine may be behind before Send, Publish and the Broker's deliveries wait
	// for it. Default 200.
	RoutineBufferSize int

	// SyncDelayMs is for how many milliseconds a routine gathers messages before it hands them out in one batch. Default
	// 0: messages that come while it writes are the next batch.
	SyncDelayMs int

	// PollWait is how long a poll waits for a message, ±10 % at random. Default 25 s (RFC 6202, section 5.5).
	PollWait time.Duration

	// Heartbeat is the time between two signs of life on SSE and WebSocket, ±10 % at random. Default 15 s.
	Heartbeat time.Duration

	// PongTimeout is how long a WebSocket may take to answer a ping. Default 10 s.
	PongTimeout time.Duration

	// WriteTimeout is the longest time for which a client may make no progress while something waits for it; then its
	// attach ends as slow. Default 10 s. A client makes progress if it takes 32 KiB in each WriteTimeout, or all that
	// waits, however long the whole takes. It makes none if it takes less than 8 KiB. "Takes" means that the client's
	// system acknowledges it, where this system says so: on Linux, on connections that gpoll has. Otherwise it means that
	// this system takes it. A poll whose batch was cut gets a smaller one the next time.
	//
	// The message that tells an end, after the frame that was begun, may take WriteTimeout altogether before gpoll gives
	// up the connection. WriteTimeout replaces the http.Server's for the answers that gpoll writes. The answer to a poll
	// may take a second longer.
	WriteTimeout time.Duration

	// ClientTTL is how long a client may stay unattached. Default 60 s.
	ClientTTL time.Duration

	// AttachTimeout is how long a new client may stay unattached. Default 15 s.
	AttachTimeout time.Duration

	// ShutdownSpread is the time over which Shutdown tells the clients to come back, from 1 s on. Default 10 s.
	ShutdownSpread time.Duration

	// MaxMessage is the largest payload in bytes. Default 64 KiB.
	MaxMessage int

	// MaxTopics is how many topics a client may name, 16 of them patterns. Default 128.
	MaxTopics int

	// Wildcards lets clients subscribe to patterns. Dots cut a topic into tokens: "sensors.*" is sensors and one token
	// more, "sensors.>" is sensors and one or more. Grant.Subscribe is asked with the pattern itself, and decides about
	// every topic that it matches. Where there is no Subscribe, ">" lets everybody read all topics. Default off, because a
	// Subscribe that was not written for patterns may say yes to one. Grant.Topics and Client.Subscribe may have
	// patterns in any case.
	Wildcards bool

	// MaxPresence is how many members of a topic the feed of presence names. Default 1,000. Of a topic with more it tells
	// the number only. Presence returns all of them.
	MaxPresence int

	// MaxClients is how many clients may be registered. Default 100,000. Further ones are told to come back later.
	MaxClients int

	// MaxClientsPerUser is how many clients one Grant.User may have. Default 16. A further one takes the place of the one
	// that has been away for longest; when all are attached it is refused.
	MaxClientsPerUser int

	// RegisterRate is how many clients may register by HTTP in a second, all together, and RegisterBurst how many at once.
	// Default 1,000 and 2,000. A negative RegisterRate is no limit.
	RegisterRate, RegisterBurst int

	// ClientIP returns the address from which a request comes. Each address (an IPv6 one: its /64) may register
	// RegisterRatePerIP clients in a second and RegisterBurstPerIP at once, within RegisterRate: a flood from one address
	// costs no other. The zero Addr counts against RegisterRate only. So do all registrations where ClientIP is nil:
	// behind a proxy a whole site shares one address. TrustedProxies makes such a function. ClientIP is called for each
	// registration by HTTP and may be called concurrently. A panic in it is a 500.
	ClientIP func(*http.Request) netip.Addr

	// RegisterRatePerIP and RegisterBurstPerIP are the limits of one address, where ClientIP is set. Default 10 and 50. A
	// negative RegisterRatePerIP is no limit.
	RegisterRatePerIP, RegisterBurstPerIP int

	// OnConnect is asked once for each client, before its first attach or command. Its error refuses and removes the
	// client, which is told the error's text, with "refused"; an error that wraps ErrTryLater, a net.Error or
	// context.DeadlineExceeded tells it to come back. A client is connected until it is removed: between two polls, and
	// from one transport to another, it stays so. OnConnect is not called for a client that has only GetChannel. After a
	// panic the client is removed with "internal".
	OnConnect func(c *Client) error

	// OnClose is called once for each client that OnConnect has accepted, when it has been removed, and after the other
	// functions have returned that run for this client. The reason is what Client.Close was given, or a code: "left" (the
	// client's own wish), "expired" (it was away for ClientTTL), "removed", "unauthorized" (see Revoke), "buffer-full",
	// "shutdown". Shutdown waits for OnClose. Calls for different clients are concurrent, each on a goroutine of its own.
	OnClose func(c *Client, reason string)

	// OnMessage hears what clients send to the application. m has Data, and ID if the client gave the message one. A
	// client's messages come one at a time and in its order, by whatever transport; while OnMessage has not returned,
	// gpoll reads no further from that client. Calls for different clients are concurrent. gpoll acknowledges a message
	// with an ID when OnMessage has returned, and calls OnMessage once for that ID within 2 minutes and 1,024 ids of the
	// client. m.Data is gpoll's memory, which gpoll uses again when OnMessage has returned: copy what is to stay
	// (string(m.Data), bytes.Clone). Publish copies. After a panic in OnMessage the client's attach ends with "internal".
	// nil refuses such messages.
	OnMessage func(c *Client, m Message)

	// OnRequest answers what clients ask, as OnMessage hears what they send. The client gets reply, which may be m.Data,
	// or "refused" with the error's text. nil refuses such requests.
	OnRequest func(c *Client, m Message) (reply []byte, err error)

	// PlainMessages hands OnMessage each data frame of a plain WebSocket, so that new WebSocket(url).send("hi") reaches
	// it. Otherwise such a frame closes the connection with 1003.
	PlainMessages bool

	// UpstreamRate is how many commands (send, publish, request) a client may send in a second, and UpstreamBurst how many
	// at once. Default 20 and 100. Further ones are refused with "rate"; after UpstreamBurst of those in a row a WebSocket
	// is closed. A negative UpstreamRate is no limit.
	UpstreamRate, UpstreamBurst int

	// History bounds the window of the log that can be replayed. Default 10,000 messages, 16 MiB, no age. Bytes is the
	// memory of the window: three quarters for the messages and one for their wire forms, which gpoll makes again when
	// they are missing.
	History Limits

	// TopicLimits gives a topic a window of its own, so that a busy topic does not push out the quiet ones. The zero
	// Limits means the shared window; a zero Count or Bytes means that of History. Bad limits (negative, or a Count or
	// Bytes above 2^31−1) are logged as an error, and the topic has the shared window. All windows of topics together hold
	// at most 16 times History.Count messages and History.Bytes: beyond that the oldest of their messages leaves first.
	//
	// gpoll calls it when a topic's first message is published, and again after the topic was forgotten. Only that Publish
	// waits for it. Messages from another server, and those that are published meanwhile, are in the shared window until
	// it has returned. It may be called concurrently.
	TopicLimits func(topic string) Limits

	// DisconnectSlow closes an SSE response or WebSocket that cannot keep up, with "slow", instead of letting it lag.
	DisconnectSlow bool

	// Authorize says who makes a request and what they may read. It is called for every request of every transport. When
	// an attach's Grant.Expires has come it is called again, with a request that has the first one's method, URL, Host,
	// RemoteAddr and AuthHeaders. The client gets 401 for its error; 403 where the error wraps ErrForbidden; and 503, with
	// a time to come back, where it wraps ErrTryLater, a net.Error or context.DeadlineExceeded. After such a 503 error an
	// open attach goes on, and gpoll asks again for 30 s. A panic in it is a 500. It may be called concurrently. nil lets
	// everybody in, without a user.
	Authorize func(*http.Request) (Grant, error)

	// AuthHeaders are the headers that Authorize sees when it is called again. Default Cookie and Authorization.
	AuthHeaders []string

	// AllowedOrigins are the other origins whose pages may read from here, each exactly as a browser sends it:
	// "https://app.example". Pages of the same origin always may. There is no wildcard.
	AllowedOrigins []string

	// AllowedHeaders are the application's own request headers, such as traceparent, that pages of AllowedOrigins may
	// send. They may also send the headers of gpoll, of EventSource polyfills and of AuthHeaders. A preflight lists them
	// all.
	AllowedHeaders []string

	// PublicOrigin is this server's own origin as browsers see it. Set it where a proxy makes that origin differ from the
	// request's Host. Empty means http and https of Host.
	PublicOrigin string

	// TrustForwarded takes this server's own origin from the header Forwarded (host and proto; RFC 7239) or from
	// X-Forwarded-Host and X-Forwarded-Proto where a request has them, and from Host otherwise. Set it where every request
	// comes through a proxy that writes them. Each proxy adds to their ends, so the last element counts: it is the word of
	// the proxy that connects to this server, and whatever stands before may be the client's. Two headers that contradict
	// each other are not believed. PublicOrigin, if set, counts alone.
	TrustForwarded bool

	// RefuseQueryID refuses a client id in the query, which proxies and browsers write to logs and histories. The header
	// Gpoll-Client-Id and the first frame of gpoll.v1 can carry the id instead.
	RefuseQueryID bool

	// Broker orders and carries the messages. nil is a new MemoryBroker, which Shutdown closes. A Broker that is set here
	// may serve other Broadcasters too: Shutdown ends only this Broadcaster's subscription, and the application closes the
	// Broker when no Broadcaster uses it.
	Broker Broker

	// Logger gets messages for the operator: errors, and why requests are refused. Whatever each request or message
	// could cause anew comes once in a minute at most, and then says how often it was left out. Logger never gets a
	// client id or a payload. nil means slog.Default() for warnings and errors. What its handler's own calls of the
	// Broadcaster would log is dropped.
	Logger *slog.Logger

	once       sync.Once
	badSetting error
	ready      atomic.Bool // the broker is followed
	trialMu    sync.Mutex  // guards trial
	trial      *trial      // under way; nil: none
	ownsBroker bool
	began      time.Time
	set        settings
	log        *slog.Logger
	quiet      quietLog
	notes      notes
	messages   *messageLog
	clients    registry
	topics     topicIndex
	present    presenceBook

	goroutines  group
	turns       chan *scratch // taken by the routines that hand out
	calling     atomic.Int32  // functions of the application that run
	conns       connIndex
	calendar    calendar
	arrivals    atomic.Uint64 // numbers the requests that may attach, as they arrive
	published   atomic.Uint64
	delivered   atomic.Uint64
	repeats     atomic.Uint64
	attachCount [transportCount]atomic.Int64
	counts      counters
	memory      *MemoryBroker // Broker, where it is one: nothing is encoded
	follower    *follower     // reads what the broker delivers
	unsubscribe func()        // ends that
	state       atomic.Int32  // open, draining, closed
	shut        chan struct{} // closed when the first Shutdown has told everybody to end
	shutErr     error         // of the first Shutdown; read after shut is closed
	ctx         context.Context
	cancel      context.CancelFunc
}

// NewBroadcaster returns a Broadcaster with the sizes of the 2015 package filled in: RoutineMaxClients 1000,
// ClientBufferSize 100, RoutineBufferSize 200, SyncDelayMs 0.
func NewBroadcaster() *Broadcaster {
	return &Broadcaster{
		RoutineMaxClients: defaultRoutineMaxClients,
		ClientBufferSize:  defaultClientBufferSize,
		RoutineBufferSize: defaultRoutineBufferSize,
	}
}

// DefaultBroadcaster is the one that the package's functions use.
var DefaultBroadcaster = NewBroadcaster()

// Send broadcasts msg with the DefaultBroadcaster. See [Broadcaster.Send].
func Send(msg string) { DefaultBroadcaster.Send(msg) }

// Send broadcasts msg to every client, whatever its transport and topics. It never waits for a client. It waits while a
// routine is RoutineBufferSize messages behind. A failure is logged and counted; use Publish to see it.
func (b *Broadcaster) Send(msg string) { b.send(&Message{Data: []byte(msg)}) }

func (b *Broadcaster) send(m *Message) {
	if _, err := b.publish(context.Background(), m, true); err != nil {
		const message = "gpoll: Send failed"
		b.tellOf(logKey{level: slog.LevelError, place: message + publishFailure(err)}, message, []any{"err", err})
	}
}

// Publish appends m to the log and returns the Position it was given. It returns once the broker has accepted the
// message and never waits for a client. m.Data and m.Except are copied.
//
// The error wraps ErrClosed after Shutdown, ErrTooLarge, ErrBadMessage, the cause of ctx, or the broker's own error,
// such as ErrUnavailable. errors.Is(err, ErrUnknown) means that the message may have been accepted; any other error
// means that it was not. Publish keeps the order of one goroutine's calls.
func (b *Broadcaster) Publish(ctx context.Context, m Message) (Position, error) {
	return b.publish(ctx, &m, false)
}

// publish is Publish. keeps says that m's memory becomes the broker's.
func (b *Broadcaster) publish(ctx context.Context, m *Message, keeps bool) (Position, error) {
	pos, err := b.tryPublish(ctx, m, keeps)
	if err != nil {
		b.counts.refused.add(publishFailure(err))
		return Position{}, err
	}
	b.published.Add(1)
	return pos, nil
}

func (b *Broadcaster) tryPublish(ctx context.Context, m *Message, keeps bool) (Position, error) {
	if err := b.start(); err != nil {
		return Position{}, err
	}
	if b.state.Load() == stateClosed {
		return Position{}, ErrClosed
	}
	if err := m.check(b.set.maxMessage); err != nil {
		return Position{}, err
	}
	if err := ctx.Err(); err != nil {
		return Position{}, context.Cause(ctx)
	}
	if err := b.messages.admit(ctx); err != nil {
		return Position{}, err
	}
	if m.Topic != "" {
		b.messages.askFirst(m.Topic)
	}
	if err := b.follower.refuses(); err != nil {
		return Position{}, fmt.Errorf("gpoll: publish: %w", err)
	}
	pos, err := b.give(ctx, m, keeps)
	if err != nil {
		return Position{}, fmt.Errorf("gpoll: publish: %w", err)
	}
	return pos, nil
}

// give gives m to the broker. A MemoryBroker loses nothing and gives no place twice: it gets the message without
// encoding and without a nonce.
func (b *Broadcaster) give(ctx context.Context, m *Message, keeps bool) (Position, error) {
	if b.memory == nil {
		return b.Broker.Publish(ctx, b.follower.seal(m))
	}
	data, except := m.Data, m.Except
	if !keeps {
		except = slices.Clone(except)
		data = make([]byte, len(m.Data))
		copy(data, m.Data)
	}
	r := Record{Kind: RecordMessage, decoded: true, ID: m.ID, Bytes: data, to: m.address(), except: except}
	err := b.memory.publish(ctx, &r)
	return r.Position, err
}

// A moment is a time on the monotonic clock: nanoseconds since the Broadcaster began, and never 0.
type moment int64

func (b *Broadcaster) now() moment { return moment(max(time.Since(b.began), 1)) }

// momentOf returns 0 for the zero time.
func (b *Broadcaster) momentOf(t time.Time) moment {
	if t.IsZero() {
		return 0
	}
	return moment(max(t.Sub(b.began), 1))
}

// topicLimits returns a function that calls TopicLimits, contains its panics and checks its limits; nil when there is
// no TopicLimits.
func (b *Broadcaster) topicLimits() func(string) Limits {
	if b.TopicLimits == nil {
		return nil
	}
	return func(topic string) (own Limits) {
		b.call("TopicLimits", func() { own = b.TopicLimits(topic) })
		if own.Count < 0 || own.Count > math.MaxInt32 || own.Bytes < 0 || own.Bytes > math.MaxInt32 || own.Age < 0 {
			b.log.Error("gpoll: TopicLimits returned limits that cannot be; the topic has the window that all share",
				"topic", topic, "count", own.Count, "bytes", own.Bytes, "age", own.Age)
			return Limits{}
		}
		return own
	}
}

// call runs one of the application's functions and reports whether it returned. It logs a panic in the function, and
// the process goes on.
func (b *Broadcaster) call(name string, f func()) (ok bool) {
	b.calling.Add(1)
	defer b.calling.Add(-1)
	defer func() {
		if v := recover(); v != nil {
			b.tellPanic("the application's "+name, v)
		}
	}()
	f()
	return true
}

// spawn runs f in a goroutine that Shutdown waits for. f ends by itself: with its attach, or after a bounded wait. A
// panic in f is logged; f itself ends what it served: see routine_rescue.go.
func (b *Broadcaster) spawn(f func()) {
	b.goroutines.start(f)
}
