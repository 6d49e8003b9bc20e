//go:build explore && linux

package explore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
	"github.com/corvuscrypto/gpoll/internal/step"
)

// A world is one server with its clients and what they saw.
type world struct {
	result
	gpolltest.History
	rnd    *rand.Rand // of the script; each actor has one of its own
	seed   uint64
	b      *gpoll.Broadcaster
	ln     *gpolltest.Listener
	client *http.Client
	srv    *http.Server
	served chan error

	wishes    []string // what clients subscribe to
	exact     bool     // without a fault and inside the window: no gap
	narrow    bool     // streams, and messages that do not fit the sockets
	ends      bool     // Shutdown comes while the actors run: nobody can receive everything
	operated  bool     // somebody puts clients out
	sessions  []*member
	clients   []client // the sessions, and those of proxies
	channels  []*channelReader
	handovers []*handover
	watchers  []*watcher
	callbacks *callbacks // nil: the application has none
	actors    []func()

	proxies []*proxy
	polling atomic.Int32  // how many proxies are not over
	pace    float64       // the longest instant of proxies and of the reactor, in nanoseconds
	seen    int           // messages and
	told    int           // gaps that proxies have read, also again
	whole   bool          // there is nobody else, and each answer was read whole
	newest  atomic.Uint64 // seq of the last message of the reactor to everybody
	stirred chan struct{} // holds one; closed when all proxies are over

	mu  sync.Mutex // guards log
	log strings.Builder
}

// A client is what publishers and operators know of one at the moment. The id is "" while there is none.
type client interface {
	publicID() string
	clientID() string
}

var users = []string{"", "alice", "bob"}

// newWorld draws the settings of a server and the actors of a script from a seed.
func newWorld(seed uint64) *world {
	w := &world{seed: seed, rnd: rand.New(rand.NewPCG(seed, 0x574f_524c_44))}
	ids := [32]byte{}
	binary.LittleEndian.PutUint64(ids[:], seed)
	uuid.SetRand(rand.NewChaCha8(ids)) // for the order of the clients is that of their ids
	b := &gpoll.Broadcaster{
		RoutineMaxClients: pick(w.rnd, 1, 2, 1000),
		ClientBufferSize:  pick(w.rnd, 1, 2, 4, 100),
		RoutineBufferSize: pick(w.rnd, 1, 3, 200),
		SyncDelayMs:       pick(w.rnd, 0, 0, 0, 3),
		DisconnectSlow:    w.rnd.IntN(4) == 0,
		MaxClientsPerUser: 1000,
		RegisterRate:      -1,
		Logger:            slog.New(slog.DiscardHandler),
	}
	w.exact = true
	if w.rnd.IntN(3) == 0 {
		b.History.Count = pick(w.rnd, 3, 8)
		w.exact = false
	}
	if w.rnd.IntN(4) == 0 {
		b.TopicLimits = func(topic string) gpoll.Limits {
			if topic == "tick" {
				return gpoll.Limits{Count: 1}
			}
			return gpoll.Limits{}
		}
		w.exact = false
	}
	if w.wishes = topics; seed%5 == 2 {
		b.Wildcards, w.wishes = true, wishes
	}
	authorized := w.rnd.IntN(2) == 0
	if authorized {
		expires := pick(w.rnd, 0, 0, 700*time.Millisecond)
		b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
			g := gpoll.Grant{User: r.Header.Get("User"), Presence: func(string) bool { return true }}
			if expires > 0 {
				g.Expires = time.Now().Add(expires)
			}
			return g, nil
		}
		b.AuthHeaders = []string{"User"}
	}
	buffer := pick(w.rnd, 200, 1000, 64<<10)
	raw := w.rnd.IntN(2) == 0 // a world of proxies
	if raw && w.rnd.IntN(4) > 0 {
		b.RoutineMaxClients, b.ClientBufferSize, b.RoutineBufferSize, b.SyncDelayMs = 1000, 100, 200, 0
		b.History.Count, b.TopicLimits, w.exact = 0, nil, true
		b.PollWait = pick(w.rnd, time.Second, 5*time.Second, 0)
		buffer = pick(w.rnd, 200, 200, 300, 1000)
	}
	if w.narrow = !raw && w.rnd.IntN(3) == 0; w.narrow {
		buffer = pick(w.rnd, 200, 1000)
	}
	if seed%4 == 3 { // a broker that is not gpoll's own: what it carries is encoded
		b.Broker = struct{ gpoll.Broker }{gpoll.NewMemoryBroker()}
	}
	w.b = b
	w.addCallbacks(b)
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux) // before the schedule begins: nobody waits for it to start
	w.ln = gpolltest.NewListener()
	w.ln.Buffer = buffer
	w.client = w.ln.Client()
	w.srv = &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	onListener := w.rnd.IntN(2) == 0 || raw && w.rnd.IntN(4) > 0
	w.served = make(chan error, 1)
	go func() { // ends with srv.Close
		if onListener {
			w.served <- w.srv.Serve(b.Listener(w.ln))
		} else {
			w.served <- w.srv.Serve(w.ln)
		}
	}()
	w.say("routines of %d, buffers of %d and %d, delay %d ms, slow ones %v, window %d, topic windows %v, wildcards %v, "+
		"authorized %v, listener %v, sockets of %d bytes",
		b.RoutineMaxClients, b.ClientBufferSize, b.RoutineBufferSize, b.SyncDelayMs, b.DisconnectSlow, b.History.Count,
		b.TopicLimits != nil, b.Wildcards, authorized, onListener, w.ln.Buffer)

	members, rest := 1+w.rnd.IntN(3), 3
	if raw {
		members, rest = w.rnd.IntN(2)*w.rnd.IntN(2), 12
		for i := range pick(w.rnd, 1, 1, 2) {
			w.addProxy(i, authorized)
		}
		w.addReactor()
	}
	for i := range members {
		user := ""
		if authorized {
			user = pick(w.rnd, users...)
		}
		w.addMember(i, user)
	}
	if !raw || w.rnd.IntN(6) == 0 {
		for i := range 1 + w.rnd.IntN(2) {
			w.addPublisher(i)
		}
	}
	if w.rnd.IntN(rest) == 0 {
		w.addChannel()
	}
	if w.narrow || w.rnd.IntN(rest) == 0 {
		w.addOperator()
	}
	if w.rnd.IntN(2*rest) == 0 {
		w.addShutdown()
	}
	if !raw {
		w.addClosers()
		w.addHandover(authorized)
		w.addWatchers(authorized)
		w.addCaller(authorized)
	}
	w.whole = raw && len(w.sessions)+len(w.channels) == 0 && !w.ends &&
		!slices.ContainsFunc(w.proxies, func(x *proxy) bool { return !x.steady })
	return w
}

func pick[T any](rnd *rand.Rand, from ...T) T { return from[rnd.IntN(len(from))] }

// own returns a source of chance for an actor.
func (w *world) own() *rand.Rand { return rand.New(rand.NewPCG(w.rnd.Uint64(), w.rnd.Uint64())) }

// say adds a line to the script.
func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.log, "\t"+format+"\n", args...)
}

func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// longest is how long an actor may take, in the bubble's time.
const longest = 20 * time.Minute

// run runs the actors, lets everybody receive what is owed, and judges.
func (w *world) run() {
	s := step.Begin(w.seed)
	w.pace = min(s.Longest()*pick(w.rnd, 1.0, 3, 10), 1e9)
	var all sync.WaitGroup
	for _, act := range w.actors {
		all.Go(act)
	}
	all.Wait()
	if !w.ends {
		w.drain()
	}
	for _, m := range w.sessions {
		m.session.Cut()
	}
	for _, x := range w.proxies {
		x.cut()
	}
	for _, x := range w.handovers {
		x.cut()
	}
	time.Sleep(5 * time.Second) // what was cut is seen
	w.judgeStats("when all have gone")
	if err := w.b.Shutdown(context.Background()); err != nil {
		w.fault("Shutdown: %v", err)
	}
	w.judgeStats("after Shutdown")
	if w.callbacks != nil {
		w.callbacks.judge()
	}
	st := w.b.Stats()
	w.judgeCounts(st)
	w.Schedules, w.tally.Published, w.tally.Delivered = 1, int(st.Published), int(st.Delivered)
	w.Gaps, w.Ends = counts(st.Gaps), counts(st.Dropped)
	w.trace = s.Trace()
	w.Points, w.Slept = s.End()
	time.Sleep(time.Second) // who sleeps at a point goes on
	w.client.CloseIdleConnections()
	w.srv.Close()
	<-w.served
	for _, v := range (gpolltest.Checker{NoGaps: w.exact}).Check(&w.History) {
		w.fault("violation of %v", v)
	}
	w.script = w.log.String()
}

func counts(by map[string]uint64) map[string]int {
	n := map[string]int{}
	for reason, count := range by {
		n[reason] = int(count)
	}
	return n
}

// drain publishes a last message for everybody and lets every client come to it.
func (w *world) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	end, err := w.Publish(ctx, w.b, gpoll.Message{Data: []byte("the end")})
	if err != nil {
		w.fault("publishing the end: %v", err)
		return
	}
	var all sync.WaitGroup
	for _, m := range w.sessions {
		all.Go(func() { m.drain(ctx, end) })
	}
	for _, x := range w.proxies {
		all.Go(func() { x.drain(ctx, end) })
	}
	for _, c := range w.channels {
		all.Go(c.wait)
	}
	for _, x := range w.handovers {
		all.Go(x.drain)
	}
	for _, x := range w.watchers {
		all.Go(func() { x.drain(ctx) })
	}
	all.Wait()
}

// judgeStats compares the server's Stats with the truth: no client is attached.
func (w *world) judgeStats(when string) {
	st := w.b.Stats()
	for transport, n := range st.Attached {
		if n != 0 && !(transport == "channel" && when == "when all have gone") {
			w.fault("%s %d are attached by %s", when, n, transport)
		}
	}
	if when == "after Shutdown" && (st.Clients != 0 || st.Routines != 0) {
		w.fault("%s there are %d clients and %d routines", when, st.Clients, st.Routines)
	}
}

// count counts what a proxy has read.
func (w *world) count(gap *gpoll.Gap) {
	if gap == nil {
		w.seen++
	} else {
		w.told++
	}
}

// judgeCounts compares the server's counts with what the clients saw. The counts may not be less. They may not be more
// where every answer was read.
func (w *world) judgeCounts(st gpoll.Stats) {
	gaps := 0
	for _, n := range st.Gaps {
		gaps += int(n)
	}
	if int(st.Delivered) < w.seen || gaps < w.told || w.whole && (int(st.Delivered) != w.seen || gaps != w.told) {
		w.fault("the proxies read %d messages and %d gaps, the server counted %d and %d; all of it was read: %v",
			w.seen, w.told, st.Delivered, gaps, w.whole)
	}
}

// A member is a client that comes, goes and changes its mind.
type member struct {
	w       *world
	name    string
	rnd     *rand.Rand
	session *gpolltest.Session
	home    gpolltest.Transport
}

var (
	topics = []string{"a", "b", "tick"}
	wishes = []string{"a", "*", ">", "tick", "a.>"}
)

func (w *world) addMember(i int, user string) {
	m := &member{w: w, name: fmt.Sprintf("client %d", i), rnd: w.own()}
	m.home = m.transport()
	m.session = &gpolltest.Session{URL: "http://gpoll.test/poll", Client: w.client, Trace: w.Trace(m.name), User: user}
	if user != "" {
		m.session.Header = http.Header{"User": {user}}
	}
	for range m.rnd.IntN(3) {
		if t := pick(m.rnd, w.wishes...); !slices.Contains(m.session.Topics, t) {
			m.session.Topics = append(m.session.Topics, t)
		}
	}
	w.sessions, w.clients = append(w.sessions, m), append(w.clients, m)
	w.say("%s of %q, topics %v, %v first", m.name, user, m.session.Topics, m.home)
	w.actors = append(w.actors, m.run)
}

// transport returns one, in a narrow world a stream.
func (m *member) transport() gpolltest.Transport {
	if m.w.narrow {
		return gpolltest.SSE + gpolltest.Transport(m.rnd.IntN(4))
	}
	return gpolltest.Transport(m.rnd.IntN(6))
}

// moment returns a time for the bubble, often none.
func moment(rnd *rand.Rand) time.Duration {
	return pick(rnd, 0, 0, time.Microsecond, time.Millisecond, 30*time.Millisecond, 300*time.Millisecond)
}

func (m *member) run() {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	for range 1 + m.rnd.IntN(5) {
		time.Sleep(moment(m.rnd))
		if m.rnd.IntN(3) == 0 {
			m.home = m.transport()
		}
		if m.rnd.IntN(4) == 0 {
			m.change(ctx)
		}
		if err := m.session.Attach(ctx, m.home); err != nil {
			m.note("attach", err)
			continue
		}
		m.receive(ctx)
	}
}

// receive takes some answers in some way.
func (m *member) receive(ctx context.Context) {
	if m.rnd.IntN(4) == 0 || m.w.narrow {
		time.Sleep(moment(m.rnd)) // a slow reader
	}
	if m.rnd.IntN(3) == 0 {
		defer time.AfterFunc(moment(m.rnd), m.session.Cut).Stop()
	}
	if m.rnd.IntN(8) == 0 {
		part, cancel := context.WithTimeout(ctx, time.Second)
		m.note("lose", m.session.Lose(part))
		cancel()
		return
	}
	for range 1 + m.rnd.IntN(4) {
		part, cancel := context.WithTimeout(ctx,
			pick(m.rnd, time.Millisecond, 50*time.Millisecond, time.Second, 40*time.Second))
		_, err := m.session.Receive(part)
		cancel()
		if err != nil {
			m.note("receive", err)
			return
		}
		if m.rnd.IntN(6) == 0 {
			m.change(ctx)
		}
	}
}

// change subscribes and unsubscribes, where the record can say from where on.
func (m *member) change(ctx context.Context) {
	if m.session.ClientID() != "" && m.session.Cursor().IsZero() {
		return
	}
	topic := pick(m.rnd, m.w.wishes...)
	if m.rnd.IntN(2) == 0 {
		m.note("subscribe", m.session.Subscribe(ctx, topic))
	} else {
		m.note("unsubscribe", m.session.Unsubscribe(ctx, topic))
	}
}

func (m *member) note(did string, err error) { m.w.note(m.name, did, err) }

// note passes over what may happen to a client: a cut, a time-out, an end that the server told it.
func (w *world) note(name, did string, err error) {
	if err == nil || errors.Is(err, gpolltest.ErrCut) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	if e, ok := errors.AsType[*gpolltest.ServerError](err); ok {
		switch e.Code {
		case "superseded", "removed", "expired", "unknown-client", "unauthorized", "slow", "gap", "timeout", "buffer-full":
			return
		case "shutdown":
			if w.ends {
				return
			}
		}
	} else if w.ends {
		return // its connection was closed
	}
	w.fault("%s: %s: %v", name, did, err)
}

// drain receives up to the end, which everybody is owed.
func (m *member) drain(ctx context.Context, end gpoll.Position) {
	defer m.session.Drained()
	for tries := 0; m.session.Cursor() != end; tries++ {
		if ctx.Err() != nil || tries == 200 {
			m.w.fault("%s never came to the end %v: it stands at %v", m.name, end, m.session.Cursor())
			return
		}
		if err := m.session.Attach(ctx, m.home); err != nil {
			m.note("attach at the end", err)
			time.Sleep(time.Millisecond)
			continue
		}
		for m.session.Cursor() != end {
			part, cancel := context.WithTimeout(ctx, time.Minute)
			_, err := m.session.Receive(part)
			cancel()
			if err != nil {
				m.note("receive at the end", err)
				break
			}
		}
		if m.home == gpolltest.WebSocketPlain { // which shows no Positions
			m.home = gpolltest.WebSocket
		}
	}
}
