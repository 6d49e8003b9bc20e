//go:build unix

package strangers

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// A logged item is what the judge reads.
type logged struct {
	q *request
	item
}

// A life is what one application sees: from a registration without a cursor until it stops.
type life struct {
	client, n int
	user      string
	style     string // "mixed", "plain" (polls without a cursor) or "ws" (plain WebSockets)
	events    []logged
	drained   bool // it followed the log to its end

	mu      sync.Mutex
	watched []watched
}

// watched is how an attach ended that a newer one superseded.
type watched struct {
	q      *request
	by     *request
	byAt   time.Time // when the newer one had its first answer; zero when it had none
	end    item
	orphan bool // it did not end
}

// A client is one place in the crowd: one life after the other.
type client struct {
	r        *run
	n        int
	rng      *rand.Rand
	user     string
	slow     bool
	current  atomic.Pointer[string] // the client id, for what the application does to it
	watchers sync.WaitGroup
}

// session is the state of a life: sections 1 and 16 of the document.
type session struct {
	*client
	lf       *life
	id       string
	cursor   position
	topics   []string
	byCookie bool
	attaches int
	wait     time.Duration // of the next reconnect after a failure
	old      *leftOpen
}

// leftOpen is an attach that the next one supersedes.
type leftOpen struct {
	q    *request
	mu   sync.Mutex
	by   *request
	byAt time.Time
}

var topicPool = []string{"t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "win.1", "win.3", "win.20", ageTopic}

func (c *client) pick(topics []string) []string {
	var picked []string
	for range c.rng.IntN(4) {
		if t := topics[c.rng.IntN(len(topics))]; !slices.Contains(picked, t) {
			picked = append(picked, t)
		}
	}
	return picked
}

func (c *client) chance(p float64) bool { return c.rng.Float64() < p }

func (c *client) upTo(d time.Duration) time.Duration { return time.Duration(c.rng.Int64N(int64(d))) }

// pause sleeps, but not beyond the end of the run.
func (c *client) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.r.draining:
	}
}

// pacer returns what a connection of c calls before each read.
func (c *client) pacer() func() {
	p := 0.001
	if c.slow {
		p = 0.015
	}
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 1))
	return func() {
		if rng.Float64() < p {
			time.Sleep(time.Duration(rng.Int64N(int64(400 * time.Millisecond))))
		}
	}
}

func (c *client) run() {
	for n := 0; ; n++ {
		if c.live(n) {
			break
		}
		select {
		case <-c.r.draining:
			c.watchers.Wait()
			return
		case <-time.After(50*time.Millisecond + c.upTo(300*time.Millisecond)):
		}
	}
	c.watchers.Wait()
}

// live is one life. It reports whether the run is over.
func (c *client) live(n int) bool {
	s := &session{client: c, byCookie: c.chance(0.4)}
	s.lf = &life{client: c.n, n: n, user: c.user, style: "mixed"}
	if u := userNumber(c.user); u < 0 || u > 3 { // the first users lose rights in the middle
		switch x := c.rng.Float64(); {
		case x < 0.15:
			s.lf.style = "plain"
		case x < 0.25:
			s.lf.style = "ws"
		}
	}
	s.topics = c.pick(topicPool)
	if s.lf.style == "mixed" && mayRead(c.user, "secret.x") && c.chance(0.3) {
		s.topics = append(s.topics, "secret.x")
	}
	c.r.addLife(s.lf)
	for {
		select {
		case <-c.r.draining:
			s.drain()
			return true
		default:
		}
		more := true
		switch s.lf.style {
		case "plain":
			more = s.polls("plain", false)
		case "ws":
			more = s.stream(s.next("ws", false))
		default:
			more = s.mixed()
		}
		if !more {
			return false
		}
		switch {
		case s.old != nil: // at once
		case c.chance(0.03):
			c.pause(clientTTL + 500*time.Millisecond + c.upTo(time.Second))
		case c.chance(0.08):
			c.pause(c.upTo(2 * time.Second))
		default:
			c.pause(c.upTo(80 * time.Millisecond))
		}
	}
}

func (s *session) mixed() bool {
	if s.chance(0.3) {
		s.topics = s.pick(topicPool)
	}
	if s.id != "" && s.chance(0.01) && !mayRead(s.user, "secret.x") && s.old == nil {
		s.topics = append(s.topics, "secret.x") // will be refused
	}
	switch x := s.rng.Float64(); {
	case x < 0.15:
		return s.polls("plain", true)
	case x < 0.30:
		return s.polls("json", true)
	case x < 0.40:
		return s.polls("post", true)
	case x < 0.55:
		return s.stream(s.next("sse", true))
	case x < 0.70:
		return s.stream(s.next("sse-json", true))
	case x < 0.75 && !s.cursor.none() && s.id != "":
		return s.stream(s.next("ws", true))
	}
	return s.stream(s.next("v1", true))
}

// next returns the request of the next attach.
func (s *session) next(transport string, cursor bool) *request {
	s.attaches++
	q := &request{transport: transport, id: s.id, topics: slices.Clone(s.topics), user: s.user, byCookie: s.byCookie,
		host: s.r.addr, n: s.attaches}
	if cursor || s.id == "" {
		q.after = s.cursor
	}
	q.idInQuery = transport != "v1" && transport != "post" && (transport == "ws" || s.chance(0.3))
	q.pieces = s.chance(0.3)
	if transport == "sse" || transport == "sse-json" {
		q.lastEvent = s.chance(0.5)
		q.half = s.chance(0.01)
	}
	if s.id == "" && s.cursor.none() && len(s.topics) > 0 && transport != "ws" && transport != "plain" &&
		s.chance(0.4) {
		q.last = 1 + s.rng.IntN(10)
	}
	if s.lf.style != "mixed" && s.id != "" && q.after.none() {
		q.topics = nil // it keeps its topics
	}
	return q
}

func (s *session) log(q *request, it item) {
	if it.at.IsZero() {
		it.at = time.Now()
	}
	s.lf.events = append(s.lf.events, logged{q, it})
}

// take adopts what an item tells and logs it.
func (s *session) take(q *request, it item) {
	s.log(q, it)
	if it.kind != attached && it.kind != ended && it.kind != left && it.kind != wrong {
		s.wait = 0
		if s.old != nil && !q.half { // a half-closed request may be answered without an attach
			s.old.mu.Lock()
			s.old.byAt = it.at
			s.old.mu.Unlock()
			s.old = nil
		}
	}
	if it.kind == started && it.id != "" {
		s.id = it.id
		s.current.Store(new(it.id))
	}
	pos := it.pos
	if it.kind == missing && pos.none() && it.gap.to.seq != 0 {
		pos = it.gap.to
	}
	if !pos.none() && (pos.epoch != s.cursor.epoch || pos.seq > s.cursor.seq) {
		s.cursor = pos
	}
}

// dial connects. It logs a failure and waits.
func (s *session) dial(q *request) *link {
	if s.old != nil {
		s.old.mu.Lock()
		s.old.by = q
		s.old.mu.Unlock()
	}
	q.opened = time.Now()
	l, err := dial(s.r.addr, s.pacer())
	if err != nil {
		s.log(q, item{kind: ended, code: "dial", detail: err.Error()})
		s.old = nil
		s.backOff()
		return nil
	}
	s.log(q, item{kind: attached})
	return l
}

// backOff is section 16.3, with a shorter longest wait.
func (s *session) backOff() {
	if s.wait == 0 {
		s.wait = 100 * time.Millisecond
	}
	s.pause(s.upTo(s.wait))
	s.wait = min(2*s.wait, time.Second)
}

// ended does what section 16 says after an end. It reports whether the life goes on.
func (s *session) ended(it item) bool {
	s.old = nil
	switch it.code {
	case "unknown-client", "expired":
		s.id = ""
		s.current.Store(new(""))
		return true
	case "shutdown", "closed", "rate", "too-many-clients":
		s.pause(it.retry)
		return true
	case "slow", "gap", "internal":
		return true
	case "":
		s.backOff()
		return true
	}
	return false
}

// stream is one visit by SSE or WebSocket.
func (s *session) stream(q *request) bool {
	l := s.dial(q)
	if l == nil {
		return true
	}
	ch := make(chan item)
	var sock atomic.Pointer[socket]
	switch q.transport {
	case "ws":
		go readPlainWS(l, q, ch)
	case "v1":
		go readV1(l, q, ch, func(s *socket) { sock.Store(s) })
	default:
		go readSSE(l, q, ch)
	}
	stay := time.NewTimer(50*time.Millisecond + s.upTo(3*time.Second))
	defer stay.Stop()
	draining, quiet := s.r.draining, (<-chan time.Time)(nil)
	asked := slices.Clone(q.topics)
	begun := false
	for {
		select {
		case it, ok := <-ch:
			if !ok {
				return true
			}
			if quiet != nil {
				quiet = time.After(1500 * time.Millisecond)
			}
			s.take(q, it)
			begun = begun || it.kind == started
			if it.kind == ended {
				l.close()
				for range ch {
				}
				return s.ended(it)
			}
			if it.kind == left || it.kind == wrong {
				l.close()
				for range ch {
				}
				s.backOff()
				return true
			}
			if s.chance(0.004) || s.slow && s.chance(0.02) {
				s.pause(200*time.Millisecond + s.upTo(time.Second))
			}
			if sock := sock.Load(); sock != nil && s.chance(0.1) && quiet == nil {
				s.change(sock, q, &asked)
			}
		case <-stay.C:
			if s.lf.style == "ws" && s.chance(0.5) {
				stay.Reset(s.upTo(3 * time.Second))
				continue
			}
			if s.lf.style == "mixed" && begun && s.chance(0.5) {
				s.leaveOpen(q, l, ch)
				return true
			}
			l.close()
			for range ch {
			}
			s.log(q, item{kind: left})
			return true
		case <-draining:
			draining = nil
			if q.transport == "ws" && s.lf.style == "ws" {
				quiet = time.After(1500 * time.Millisecond)
				stay.Stop()
				continue
			}
			l.close()
			for range ch {
			}
			s.log(q, item{kind: left})
			return true
		case <-quiet:
			s.lf.drained = true
			l.close()
			for range ch {
			}
			s.log(q, item{kind: left, detail: "drained"})
			return true
		}
	}
}

// change subscribes or unsubscribes in the stream.
func (s *session) change(sock *socket, q *request, asked *[]string) {
	if len(*asked) > 0 && s.chance(0.4) {
		i := s.rng.IntN(len(*asked))
		t := (*asked)[i]
		*asked = slices.Delete(*asked, i, i+1)
		sock.write(opText, encode(map[string]any{"unsubscribe": []string{t}}), s.chance(0.3))
	} else {
		t := topicPool[s.rng.IntN(len(topicPool))]
		if s.chance(0.03) {
			t = "secret.x"
		}
		if slices.Contains(*asked, t) {
			return
		}
		if mayRead(s.user, t) {
			*asked = append(*asked, t)
		}
		sock.write(opText, encode(map[string]any{"subscribe": []string{t}}), s.chance(0.3))
	}
	s.topics = slices.Clone(*asked)
}

// leaveOpen leaves an attach for the next one to supersede, and watches how it ends.
func (s *session) leaveOpen(q *request, l *link, ch <-chan item) {
	s.log(q, item{kind: left, detail: "left open"})
	old := &leftOpen{q: q}
	s.old = old
	s.watchers.Go(func() {
		defer l.close()
		w := watched{q: q}
		look := time.NewTicker(time.Second)
		defer look.Stop()
		begun := time.Now()
		var last item
		for done := false; !done; {
			select {
			case it, ok := <-ch:
				if ok {
					last = it
				}
				done = !ok
			case now := <-look.C: // from when the newer one is there; it may be late itself
				old.mu.Lock()
				since := old.byAt
				old.mu.Unlock()
				w.orphan = !since.IsZero() && now.Sub(since) > writeTimeout+2*slack
				done = w.orphan || now.Sub(begun) > 20*time.Second
			}
		}
		l.close()
		for it := range ch {
			_ = it
		}
		w.end = last
		old.mu.Lock()
		w.by, w.byAt = old.by, old.byAt
		old.mu.Unlock()
		s.lf.mu.Lock()
		s.lf.watched = append(s.lf.watched, w)
		s.lf.mu.Unlock()
	})
}

// polls is a series of polls on one connection.
func (s *session) polls(transport string, cursor bool) bool {
	var l *link
	inQuery := s.chance(0.3)
	for n := 1 + s.rng.IntN(25); n > 0; n-- {
		q := s.next(transport, cursor)
		q.idInQuery = inQuery && transport != "post" && s.id != ""
		if l == nil {
			if l = s.dial(q); l == nil {
				return true
			}
		} else {
			q.opened, q.again = time.Now(), true
			s.log(q, item{kind: attached})
		}
		if err := sendPoll(l, q); err != nil {
			s.take(q, cut(l, err))
			l.close()
			s.backOff()
			return true
		}
		if q.half = s.chance(0.005); q.half {
			l.halfClose()
		}
		items := make(chan item, 600)
		var keep atomic.Bool
		go func() {
			defer close(items)
			its, k := readPoll(l, q)
			keep.Store(k)
			for _, it := range its {
				items <- it
			}
		}()
		var giveUp, switchOver <-chan time.Time
		switch {
		case s.chance(0.05):
			giveUp = time.After(s.upTo(200 * time.Millisecond))
		case s.lf.style == "mixed" && s.id != "" && s.chance(0.04):
			switchOver = time.After(150*time.Millisecond + s.upTo(200*time.Millisecond)) // the server has read it
		}
		var got []item
		select {
		case it, ok := <-items:
			if ok {
				got = append(got, it)
			}
			for it := range items {
				got = append(got, it)
			}
		case <-giveUp:
			l.close()
			for range items {
			}
			s.log(q, item{kind: left})
			return true
		case <-switchOver:
			s.leaveOpen(q, l, items)
			return true
		}
		for _, it := range got {
			s.take(q, it)
			if it.kind == ended {
				l.close()
				return s.ended(it)
			}
			if it.kind == wrong || it.kind == left {
				l.close()
				s.backOff()
				return true
			}
		}
		if !keep.Load() || q.half {
			l.close()
			l = nil
		}
		select {
		case <-s.r.draining:
			n = 0
		default:
			if s.chance(0.1) {
				s.pause(s.upTo(300 * time.Millisecond))
			}
		}
	}
	if l != nil {
		l.close()
	}
	return true
}

// drain follows the log to its end when nothing is published any more.
func (s *session) drain() {
	deadline := time.Now().Add(10 * time.Second)
	if s.lf.style == "ws" {
		for !s.lf.drained && time.Now().Before(deadline) {
			if !s.stream(s.next("ws", false)) {
				return
			}
		}
		return
	}
	transport, cursor := "json", true
	if s.lf.style == "plain" {
		transport, cursor = "plain", false
	}
	var l *link
	for time.Now().Before(deadline) {
		last := s.r.last
		if s.cursor.epoch == last.epoch && s.cursor.seq >= last.seq {
			s.lf.drained = true
			break
		}
		q := s.next(transport, cursor)
		q.last = 0
		if l == nil {
			if l = s.dial(q); l == nil {
				time.Sleep(50 * time.Millisecond)
				continue
			}
		} else {
			q.opened = time.Now()
			s.log(q, item{kind: attached})
		}
		if err := sendPoll(l, q); err != nil {
			s.take(q, cut(l, err))
			l.close()
			l = nil
			continue
		}
		items, keep := readPoll(l, q)
		for _, it := range items {
			s.take(q, it)
			if it.kind == ended {
				if !s.ended(it) {
					s.lf.drained = true // it was told to stop
					l.close()
					return
				}
				keep = false
			}
		}
		if !keep {
			l.close()
			l = nil
		}
	}
	if l != nil {
		l.close()
	}
}
