//go:build unix

package strangers

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if raw := os.Getenv(serverEnv); raw != "" {
		if err := serve(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A message is what was published.
type message struct {
	topic, user, client string
	except              []string
	sum                 uint64
	size                int
	utf8, cr            bool
	began, done         time.Time // of Publish
	pos                 position  // none when the answer never came
	rejected            bool
}

// span is a time in which the server was going away or gone.
type span struct {
	from, to time.Time
	kill     bool
}

// An action is what the application did to clients.
type action struct {
	what     string // "remove", "cleanup", "ban", "revoke", "forbid"
	id, user string
	topic    string
	routine  int
	from     time.Time // it was asked for
	done     time.Time
	until    time.Time // of a ban
}

type run struct {
	cfg      config
	seed     uint64
	addr     string
	draining chan struct{}
	last     position // the newest message, valid when draining is closed

	mu         sync.Mutex
	srv        *server
	lives      []*life
	messages   []*message
	spans      []span
	actions    []action
	violations []string
}

func (r *run) addLife(lf *life) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lives = append(r.lives, lf)
}

func (r *run) server() *server {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.srv
}

func (r *run) violate(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
}

// stay lets the server run for a while. When it dies meanwhile, a new one takes its place.
func (r *run) stay(t *testing.T, d time.Duration) {
	end := time.After(d)
	for {
		select {
		case <-r.server().gone:
			r.violate("death: the server died by itself")
			r.restart(t, true)
		case <-end:
			return
		}
	}
}

// restart ends the server, by SIGKILL or by a shutdown, and starts it on the same port.
func (r *run) restart(t *testing.T, kill bool) {
	old := r.server()
	sp := span{from: time.Now(), kill: kill}
	r.mu.Lock()
	r.spans = append(r.spans, span{from: sp.from, to: sp.from.Add(time.Hour), kill: kill})
	i := len(r.spans) - 1
	r.mu.Unlock()
	if kill {
		old.cmd.Process.Signal(syscall.SIGKILL)
	} else if _, err := old.call(command{Op: "shutdown"}); err != nil {
		r.violate("the graceful shutdown: %v", err)
	}
	select {
	case <-old.gone:
	case <-time.After(20 * time.Second):
		r.violate("the server does not go")
		old.cmd.Process.Kill()
		<-old.gone
	}
	r.stderr(old)
	if !kill && !old.cmd.ProcessState.Success() {
		r.violate("the server ended with %v", old.cmd.ProcessState)
	}
	cfg := r.cfg
	cfg.Addr = r.addr
	srv, err := start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.srv = srv
	r.spans[i].to = time.Now()
	// A new process knows of no ban.
	now := time.Now()
	for i := range r.actions {
		a := &r.actions[i]
		if (a.what == "ban" || a.what == "revoke" || a.what == "forbid") && a.until.IsZero() {
			a.until = now
		}
	}
	r.mu.Unlock()
}

func (r *run) stderr(s *server) {
	if said := s.errors.String(); said != "" {
		r.violate("the server said:\n%.6000s", said)
	}
}

type size struct {
	clients  int
	duration time.Duration
	gap      time.Duration // between two messages of one of three publishers
	actions  time.Duration // between two of them
}

// strangers is one run.
func strangers(t *testing.T, cfg config, seed uint64, sz size) {
	t.Logf("seed %d: GPOLL_SEED=%d replays its choices", seed, seed)
	cfg.Addr = "127.0.0.1:0"
	r := &run{cfg: cfg, seed: seed, draining: make(chan struct{})}
	srv, err := start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.srv, r.addr = srv, srv.addr
	defer func() {
		s := r.server()
		s.cmd.Process.Kill()
		<-s.gone
	}()
	clients := make([]*client, sz.clients)
	var crowd, staff sync.WaitGroup
	for i := range clients {
		c := &client{r: r, n: i, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		if i%5 != 0 {
			c.user = "u" + strconv.Itoa(i%users)
		}
		c.slow = i%4 == 3
		clients[i] = c
	}
	stop := make(chan struct{})
	for _, c := range clients {
		crowd.Go(func() {
			time.Sleep(c.upTo(sz.duration / 20))
			c.run()
		})
	}
	for p := range 3 {
		rng := rand.New(rand.NewPCG(seed, 1<<32+uint64(p)))
		staff.Go(func() { r.publish(rng, clients, p, sz.gap, stop) })
	}
	rng := rand.New(rand.NewPCG(seed, 1<<33))
	staff.Go(func() { r.act(rng, clients, sz.actions, stop) })

	r.stay(t, sz.duration*35/100)
	r.restart(t, true)
	r.stay(t, sz.duration*35/100)
	r.restart(t, false)
	r.stay(t, sz.duration*30/100)
	close(stop)
	staff.Wait()
	newest := newestEpoch(r)
	for _, m := range r.messages {
		if m.pos.epoch == newest && m.pos.seq >= r.last.seq {
			r.last = m.pos
		}
	}
	close(r.draining)
	crowd.Wait()
	final := r.server()
	if _, err := final.call(command{Op: "shutdown"}); err != nil {
		r.violate("the last shutdown: %v", err)
	}
	<-final.gone
	r.stderr(final)
	j := newJudge(r)
	j.all()
	t.Log(j.report())
	slices.Sort(r.violations)
	byKind := map[string]int{}
	for _, v := range r.violations {
		kind, _, _ := strings.Cut(v, ":")
		if byKind[kind]++; byKind[kind] <= 5 {
			t.Errorf("%s", v)
		}
	}
	for kind, n := range byKind {
		if n > 5 {
			t.Errorf("%s: %d in all", kind, n)
		}
	}
}

// newestEpoch is the epoch of the message that was published last.
func newestEpoch(r *run) string {
	var at time.Time
	epoch := ""
	for _, m := range r.messages {
		if !m.pos.none() && m.done.After(at) {
			at, epoch = m.done, m.pos.epoch
		}
	}
	return epoch
}

func seedFromEnv(t *testing.T, fallback uint64) uint64 {
	s := os.Getenv("GPOLL_SEED")
	if s == "" {
		return fallback
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("GPOLL_SEED: %v", err)
	}
	return n
}

func TestStrangers(t *testing.T) {
	seed := seedFromEnv(t, rand.Uint64N(1000000))
	for i, listener := range []bool{false, true} {
		t.Run(fmt.Sprintf("listener=%v", listener), func(t *testing.T) {
			t.Parallel()
			strangers(t, config{Listener: listener, DisconnectSlow: (seed+uint64(i))%2 == 0}, seed,
				size{40, 5 * time.Second, 40 * time.Millisecond, 400 * time.Millisecond})
		})
	}
}

func TestStrangersLong(t *testing.T) {
	if os.Getenv("GPOLL_STRANGERS") != "long" {
		t.Skip("it takes twelve minutes; GPOLL_STRANGERS=long runs it")
	}
	base := seedFromEnv(t, 1)
	for seed := base; seed < base+6; seed++ {
		for _, slow := range []bool{false, true} {
			for _, listener := range []bool{false, true} {
				t.Run(fmt.Sprintf("seed=%d/slow=%v/listener=%v", seed, slow, listener), func(t *testing.T) {
					strangers(t, config{Listener: listener, DisconnectSlow: slow}, seed,
						size{300, 20 * time.Second, 40 * time.Millisecond, 400 * time.Millisecond})
				})
			}
		}
	}
}
