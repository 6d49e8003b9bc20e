package gpolltest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// TestSoak lets 1,000 clients on loopback sockets, a third on each transport, receive 50 messages a second: on topics,
// to everybody, to one client and to all but one. Beside them are programs with the Go client, which also speak.
// Meanwhile connections break, polls are aborted, and clients change transport and topics. No client stays away for
// longer than the window, so the checker must find no gap and no violation. Afterwards the process must hold no more
// than before.
//
// It takes 10 seconds, 2 with -short, or GPOLL_SOAK=60s. GPOLL_SEED repeats the decisions of a run, though not its
// timing.
func TestSoak(t *testing.T) {
	soak{clients: 1000, every: 20 * time.Millisecond, burst: 1, topics: 30, duration: soakTime(t, 10*time.Second)}.
		run(t, Checker{NoGaps: true})
}

// TestSoakListener is TestSoak with fewer clients, half of them on polls alone, which are answered without net/http.
func TestSoakListener(t *testing.T) {
	k := soak{clients: 400, every: 20 * time.Millisecond, burst: 1, topics: 30, duration: soakTime(t, 5*time.Second),
		listener: true}
	k.run(t, Checker{NoGaps: true})
}

// TestSoakSmallWindow has a window that holds less than a tenth of a second. Clients that were away for longer get
// gaps, and the checker verifies each gap.
func TestSoakSmallWindow(t *testing.T) {
	const window = 40
	gaps := soak{clients: 120, every: 20 * time.Millisecond, burst: 10, topics: 10, duration: soakTime(t, 3*time.Second),
		configure: func(b *gpoll.Broadcaster) { b.History.Count = window }}.
		run(t, Checker{Window: window})
	if gaps == 0 {
		t.Error("no client got a gap: the test shows nothing")
	}
}

func soakTime(t *testing.T, ordinary time.Duration) time.Duration {
	if s := os.Getenv("GPOLL_SOAK"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal("GPOLL_SOAK: ", err)
		}
		return d
	}
	if testing.Short() {
		return min(ordinary, 2*time.Second)
	}
	return ordinary
}

// A soak is a long run by chance.
type soak struct {
	clients   int
	every     time.Duration // between bursts of messages
	burst     int
	topics    int
	duration  time.Duration
	listener  bool // serve on Broadcaster.Listener
	configure func(*gpoll.Broadcaster)

	late *latest // between two looks of a publisher at its ticker
}

// A latest is the longest of some times.
type latest struct{ atomic.Int64 }

func (l *latest) max(d time.Duration) {
	for {
		old := l.Load()
		if int64(d) <= old || l.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// How long things last in a soak, on average.
const (
	meanAttach = 5 * time.Second
	meanAway   = 300 * time.Millisecond
	meanReset  = 20 * time.Millisecond // between connections that the network breaks
)

func (k soak) run(t *testing.T, c Checker) (gaps int) {
	seed := rand.Uint64()
	if s := os.Getenv("GPOLL_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal("GPOLL_SEED: ", err)
		}
	}
	t.Logf("%d clients for %v, GPOLL_SEED=%d", k.clients, k.duration, seed)
	k.late = new(latest)
	baseline := MeasureResources()

	b := gpoll.NewBroadcaster()
	b.RoutineMaxClients = 300 // several routines
	b.Heartbeat, b.PollWait, b.Wildcards = 2*time.Second, 3*time.Second, true
	beside := &programs{t: t}
	beside.listen(b)
	if k.configure != nil {
		k.configure(b)
	}
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if k.listener {
		ln = b.Listener(ln)
	}
	network := network{conns: map[*net.TCPConn]struct{}{}}
	srv := &http.Server{Handler: mux, ConnState: network.watch}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }() // ends with srv.Close
	pool := func() *http.Client {
		return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * k.clients, DisableCompression: true}}
	}
	shared := pool()
	pools := []*http.Client{shared}

	var h History
	clients := make([]*soaker, k.clients)
	for i := range clients {
		client, home, polls := shared, Transport(i%3)*2, false
		if k.listener && i%2 == 0 { // as a browser has connections of its own, and as a proxy shares them
			client, home, polls = pool(), LongPoll, true
			pools = append(pools, client)
		}
		clients[i] = &soaker{
			soak: k,
			t:    t,
			rnd:  rand.New(rand.NewPCG(seed, uint64(i))),
			home: home, polls: polls,
			session: &Session{
				URL: "http://" + addr + "/poll", Client: client, Trace: h.Trace(fmt.Sprintf("client %d", i)),
			},
		}
	}

	for i := range max(k.clients/20, 4) {
		beside.add(i, k, &h, shared, rand.New(rand.NewPCG(seed, 1<<34+uint64(i))))
	}

	// The run: until stop is closed, clients leave and come back; then they receive the rest, up to final.
	stop := make(chan struct{})
	final := make(chan gpoll.Position, 1)
	deadline, cancel := context.WithTimeout(t.Context(), k.duration+time.Minute)
	defer cancel()
	var running sync.WaitGroup
	for _, s := range clients {
		running.Go(func() { s.run(deadline, stop, final) })
	}
	for _, x := range beside.all {
		running.Go(func() { x.run(deadline, b, "http://"+addr+"/poll", stop, final) })
	}
	var faults sync.WaitGroup
	faults.Go(func() { network.breakSome(rand.New(rand.NewPCG(seed, 1<<32)), stop) })
	publishers := 2 // more than one, so that real-time order says something
	for i := range publishers {
		faults.Go(func() { k.publish(t, &h, b, clients, rand.New(rand.NewPCG(seed, 1<<33+uint64(i))), publishers, stop) })
	}
	select {
	case <-time.After(k.duration):
	case <-deadline.Done():
	}
	close(stop)
	faults.Wait()
	end, err := h.Publish(deadline, b, gpoll.Message{Data: []byte("the end")})
	if err != nil {
		t.Errorf("the last Publish: %v", err)
	}
	final <- end
	began := time.Now()
	running.Wait()
	t.Logf("drained in %v", time.Since(began).Round(time.Millisecond))
	beside.judge()

	k.leave(t, b, pools, srv, served, baseline)
	began = time.Now()
	violations := c.Check(&h)
	t.Logf("checked in %v", time.Since(began).Round(time.Millisecond))
	for _, v := range violations {
		t.Errorf("violation of %v", v)
	}
	return k.sum(t, &h, b, clients)
}

// leave shuts everything down and verifies that it is gone (I12).
func (k soak) leave(t *testing.T, b *gpoll.Broadcaster, pools []*http.Client, srv *http.Server, served <-chan error,
	baseline Resources) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	for _, client := range pools {
		client.CloseIdleConnections()
	}
	srv.Close()
	if err := <-served; err != http.ErrServerClosed {
		t.Errorf("Serve: %v", err)
	}
	if err := baseline.Await(ctx, 3); err != nil {
		t.Error(err)
	}
}

// sum logs what happened and returns the number of gaps.
func (k soak) sum(t *testing.T, h *History, b *gpoll.Broadcaster, clients []*soaker) (gaps int) {
	var total tally
	for _, s := range clients {
		total.add(&s.tally)
		total.repeats += s.session.Repeats()
	}
	for _, tr := range h.traces {
		for _, o := range tr.events {
			if o.kind == gap {
				gaps++
			}
		}
	}
	t.Logf("%d published, at most %v late; %d delivered, %d gaps, %d repeats on the wire",
		h.Published(), time.Duration(k.late.Load()).Round(time.Millisecond), total.delivered, gaps, total.repeats)
	t.Logf("attaches %v, live switches %d, cut by the client %d, broken by the network %d, changes of topics %d, "+
		"answers of the server %v",
		total.attaches, total.switches, total.cuts, total.broken, total.changes, total.answers)
	if k.listener {
		n := b.Stats().Repeats
		t.Logf("%d polls answered without net/http", n)
		if n == 0 {
			t.Error("no poll was answered without net/http: the test shows nothing")
		}
	}
	if st := b.Stats(); len(st.Dropped) > 0 || len(st.Refused) > 0 {
		t.Logf("server: dropped %v, refused %v, gaps %v", st.Dropped, st.Refused, st.Gaps)
	}
	for _, transport := range transports {
		if total.attaches[transport] == 0 {
			t.Errorf("nobody attached by %v: the test shows nothing", transport)
		}
	}
	for code, n := range total.answers {
		switch code {
		case "unknown-client", "gap":
		case "superseded":
			// A poll that was aborted may reach its handler after the one that followed it.
		case "close-1008":
			if late := time.Duration(k.late.Load()); late < 2*time.Second {
				t.Errorf("%d answers %q", n, code)
			} else {
				t.Logf("%d WebSockets were closed for a hello that came late; the machine stopped this process for %v", n, late)
			}
		default:
			t.Errorf("%d answers %q", n, code)
		}
	}
	return gaps
}

// publish publishes its share of the messages until stop.
func (k soak) publish(t *testing.T, h *History, b *gpoll.Broadcaster, clients []*soaker, rnd *rand.Rand, share int,
	stop <-chan struct{}) {
	tick := time.NewTicker(k.every * time.Duration(share))
	defer tick.Stop()
	padding := make([]byte, 100)
	for i := range padding {
		padding[i] = 'a' + byte(i%26)
	}
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-stop:
			return
		case <-tick.C:
			k.late.max(time.Since(last))
		}
		for range k.burst {
			m := gpoll.Message{Data: fmt.Appendf(nil, "%x %s", rnd.Uint64(), padding[:rnd.IntN(len(padding))])}
			some := clients[rnd.IntN(len(clients))].public.Load()
			switch n := rnd.IntN(100); {
			case n < 6 || some == nil:
			case n < 9:
				m.Except = []string{*some}
			case n < 20:
				m.To = gpoll.ToClient(*some)
			case n < 25:
				m.Topic, m.Except = k.topic(rnd), []string{*some}
			default:
				m.Topic = k.topic(rnd)
			}
			if _, err := h.Publish(t.Context(), b, m); err != nil {
				t.Errorf("Publish: %v", err)
				return
			}
		}
	}
}

func (k soak) topic(rnd *rand.Rand) string {
	n := rnd.IntN(k.topics)
	return fmt.Sprintf("topic.%d.%d", n%5, n)
}

// wish returns what a client subscribes to: a topic, or a pattern that matches one topic or a fifth of them.
func (k soak) wish(rnd *rand.Rand) string {
	topic := k.topic(rnd)
	head, last := topic[:len("topic.0")], topic[len("topic.0"):]
	switch rnd.IntN(12) {
	case 0:
		return head + ".*"
	case 1:
		return head + ".>"
	case 2:
		return "*.*" + last
	}
	return topic
}
