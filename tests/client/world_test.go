package client

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/corvuscrypto/gpoll"
	gpollclient "github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/gpolltest"
	"github.com/corvuscrypto/gpoll/internal/freeport"
	"github.com/rs/zerolog"
)

// The ways from a client to its server, each with a proxy of its own.
const (
	socket   = "socket"
	events   = "events"
	polls    = "polls"
	commands = "commands"
)

var ways = []string{socket, events, polls, commands}

func wayOf(path string) string {
	switch {
	case strings.HasSuffix(path, "/ws"):
		return socket
	case strings.HasSuffix(path, "/events"):
		return events
	case strings.HasSuffix(path, "/commands"):
		return commands
	}
	return polls
}

// A network leads to one server.
type network struct {
	*testing.T
	proxies map[string]*toxiproxy.Proxy
	hosts   map[string]string // of the proxies
	hc      *http.Client
}

func newNetwork(t *testing.T, upstream string) *network {
	n := &network{T: t, proxies: map[string]*toxiproxy.Proxy{}, hosts: map[string]string{}}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	for _, way := range ways {
		p := toxiproxy.NewProxy(server, way, freeport.Address(t), upstream)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		n.proxies[way], n.hosts[way] = p, p.Listen
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 10}
	t.Cleanup(transport.CloseIdleConnections)
	n.hc = &http.Client{Transport: routed{n, transport}}
	return n
}

// routed sends each request through the proxy of its way.
type routed struct {
	n    *network
	next http.RoundTripper
}

func (rt routed) RoundTrip(r *http.Request) (*http.Response, error) {
	u := *r.URL
	u.Host = rt.n.hosts[wayOf(u.Path)]
	r = r.Clone(r.Context())
	r.URL, r.Host = &u, "gpoll.test"
	return rt.next.RoundTrip(r)
}

// add adds a toxic to ways, and returns what removes it.
func (n *network) add(toxic string, in ...string) (remove func()) {
	for _, way := range in {
		if _, err := n.proxies[way].Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			n.Fatal(err)
		}
	}
	return func() {
		for _, way := range in {
			n.proxies[way].Toxics.ResetToxics(context.Background())
		}
	}
}

// cut breaks the connections of ways.
func (n *network) cut(in ...string) {
	for _, way := range in {
		n.proxies[way].Stop()
		// A process that another test starts has this one's descriptors until it runs its program: the closed listener may
		// live on for a moment.
		err := n.proxies[way].Start()
		for deadline := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(deadline); {
			<-time.After(time.Millisecond)
			err = n.proxies[way].Start()
		}
		if err != nil {
			n.Fatal(err)
		}
	}
}

// A short life: the toxic lets everything through, and breaks the connection after 2 s.
type shortLife struct{}

func (shortLife) Pipe(stub *toxics.ToxicStub) {
	state := stub.State.(*shortLifeState)
	for {
		timer := time.NewTimer(time.Until(state.end))
		select {
		case <-stub.Interrupt:
			timer.Stop()
			return
		case <-timer.C:
			stub.Close()
			return
		case chunk := <-stub.Input:
			timer.Stop()
			if chunk == nil {
				stub.Close()
				return
			}
			stub.Output <- chunk
		}
	}
}

type shortLifeState struct{ end time.Time }

func (shortLife) NewState() any { return &shortLifeState{time.Now().Add(2 * time.Second)} }

func init() { toxics.Register("short_life", new(shortLife)) }

// A world has a server in this process, what stands in front of it, and one client.
type world struct {
	*network
	gpolltest.History
	b     *gpoll.Broadcaster
	front atomic.Pointer[http.HandlerFunc]
	c     *gpollclient.Client
	trace *gpolltest.Trace
	taken chan struct{}

	published atomic.Int64
	last      atomic.Pointer[gpoll.Position]

	mu     sync.Mutex // guards the fields below
	heard  map[string]int
	got    int
	states []gpollclient.Status
}

func newWorld(t *testing.T) *world {
	w := &world{b: gpoll.NewBroadcaster(), heard: map[string]int{}, taken: make(chan struct{})}
	w.b.Logger = slog.New(slog.DiscardHandler)
	w.b.UpstreamRate = -1
	w.b.History.Count, w.b.History.Bytes = 50_000, 64<<20
	w.b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.heard[m.ID]++
	}
	mux := http.NewServeMux()
	w.b.ListenAndBroadcast("/poll", mux)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if front := w.front.Load(); front != nil {
			(*front)(rw, r)
			return
		}
		mux.ServeHTTP(rw, r)
	}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		if err := w.b.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		srv.CloseClientConnections()
		srv.Close()
	})
	w.network = newNetwork(t, strings.TrimPrefix(srv.URL, "http://"))
	return w
}

// stands puts how in front of some ways.
func (w *world) stands(how http.HandlerFunc, in ...string) {
	mux := http.NewServeMux()
	w.b.ListenAndBroadcast("/poll", mux)
	f := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for _, way := range in {
			if wayOf(r.URL.Path) == way {
				how(rw, r)
				return
			}
		}
		mux.ServeHTTP(rw, r)
	})
	w.front.Store(&f)
}

func forbidden(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "no", http.StatusForbidden) }

// dial connects the client, and takes its messages.
func (w *world) dial() {
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	var err error
	w.c, err = gpollclient.Dial(ctx, "http://gpoll.test/poll", gpollclient.Options{HTTPClient: w.hc,
		Topics: []string{"news"}, OnStatus: func(s gpollclient.Status) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.states = append(w.states, s)
		}})
	if err != nil {
		w.Fatal(err)
	}
	w.trace = w.Trace("client")
	w.trace.Registered(w.c.ID(), "")
	w.trace.Scanned(w.c.Position())
	w.trace.Subscribed("news", w.c.Position())
	go func() { // ends with Close
		defer close(w.taken)
		for m, err := range w.c.Messages(context.Background()) {
			switch {
			case err != nil:
				return
			case m.Gap != nil:
				w.trace.Gap(*m.Gap)
				w.Errorf("a gap: %+v", *m.Gap)
			default:
				w.trace.Delivered(gpoll.Message{Topic: m.Topic, Data: m.Data, Position: m.Position})
				w.mu.Lock()
				w.got++
				w.mu.Unlock()
			}
		}
	}()
}

// both lets n messages go each way, in d or somewhat longer, while during runs.
func (w *world) both(n int, d time.Duration, during func()) {
	ctx, cancel := context.WithTimeout(w.Context(), 50*time.Second)
	defer cancel()
	var group sync.WaitGroup
	before := w.effects()
	const senders = 20
	for range senders {
		group.Go(func() {
			for range n / senders {
				if err := w.c.Send(ctx, []byte("up")); err != nil {
					w.Errorf("Send: %v; it is %v", err, w.c.Status())
					return
				}
				time.Sleep(d * senders / time.Duration(n))
			}
		})
	}
	group.Go(func() {
		for i := range n {
			p, err := w.Publish(ctx, w.b, gpoll.Message{Topic: "news", Data: fmt.Append(nil, w.published.Add(1))})
			if err != nil {
				w.Error(err)
				return
			}
			if w.last.Store(&p); i%20 == 19 {
				time.Sleep(d * 20 / time.Duration(n))
			}
		}
	})
	if during != nil {
		during()
	}
	group.Wait()
	if got := w.effects() - before; got != n/senders*senders {
		w.Errorf("%d commands took effect, of %d", got, n)
	}
}

// effects counts the commands that have taken effect, each of which must have done so once.
func (w *world) effects() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, times := range w.heard {
		if n += times; times != 1 {
			w.Errorf("%s took effect %d times", id, times)
		}
	}
	return n
}

// whatever stands for all reasons.
const whatever = "whatever"

// until waits for a status.
func (w *world) until(by gpollclient.Transport, reasons string) {
	w.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		s := w.c.Status()
		known := reasons == whatever || strings.Join(s.Reasons, " ") == reasons
		if s.State == gpollclient.Connected && s.Transport == by && known {
			return
		}
		if time.Now().After(deadline) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.Fatalf("it is %v, and not by %s %s; it was %v", s, by, reasons, w.states)
		}
	}
}

// judge waits until the client has all that it is owed, ends it, and asks the checker.
func (w *world) judge() {
	last := *w.last.Load()
	for deadline := time.Now().Add(20 * time.Second); w.c.Position().Seq < last.Seq; <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Errorf("it is at %v, and not at %v: %v", w.c.Position(), last, w.c.Status())
			break
		}
	}
	for { // what was taken last is in the trace a moment later
		w.mu.Lock()
		got := w.got
		w.mu.Unlock()
		if got >= int(w.published.Load()) || w.Failed() {
			break
		}
		<-time.After(time.Millisecond)
	}
	w.trace.Scanned(w.c.Position())
	w.trace.Drained()
	w.c.Close()
	<-w.taken
	for _, v := range (gpolltest.Checker{NoGaps: true}).Check(&w.History) {
		w.Errorf("violation of %v", v)
	}
}

// TestMain lets all tests run at once: they wait most of the time.
func TestMain(m *testing.M) {
	if os.Getenv(isServer) != "" {
		serve()
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
