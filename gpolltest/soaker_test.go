package gpolltest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// A soaker is one client of a soak.
type soaker struct {
	soak
	t       *testing.T
	rnd     *rand.Rand
	home    Transport
	polls   bool // and nothing else
	session *Session
	public  atomic.Pointer[string] // for those who publish
	tally
}

// A tally counts what happened.
type tally struct {
	attaches                                            [6]int
	delivered, repeats, switches, cuts, broken, changes int
	answers                                             map[string]int
}

func (a *tally) add(b *tally) {
	for i := range a.attaches {
		a.attaches[i] += b.attaches[i]
	}
	a.delivered += b.delivered
	a.switches += b.switches
	a.cuts += b.cuts
	a.broken += b.broken
	a.changes += b.changes
	for code, n := range b.answers {
		if a.answers == nil {
			a.answers = map[string]int{}
		}
		a.answers[code] += n
	}
}

// run attaches, receives and breaks off by chance until stop, and then receives up to the final Position.
func (s *soaker) run(ctx context.Context, stop <-chan struct{}, final chan gpoll.Position) {
	ctx, cancel := context.WithCancel(ctx) // its own: a thousand clients at one would wait for its lock
	defer cancel()
	for range 3 {
		s.session.Topics = append(s.session.Topics, s.wish(s.rnd))
	}
	s.pause(stop, time.Duration(s.rnd.Int64N(int64(min(s.duration/4, time.Second))))) // the registrations' rate is limited
	for ctx.Err() == nil {
		select {
		case <-stop:
			s.drain(ctx, final)
			return
		default:
		}
		if s.rnd.IntN(5) == 0 {
			s.change(ctx)
		}
		if !s.attach(ctx) {
			s.pause(stop, s.around(meanAway))
			continue
		}
		switch s.receive(ctx, stop) {
		case cutOff:
			s.pause(stop, s.around(meanAway))
		case broken:
			s.pause(stop, s.around(meanAway/10))
		case switching:
			s.switches++
		}
	}
	s.t.Errorf("%v: the run was not over in time", s.home)
}

// around returns a time of exponential distribution.
func (s *soaker) around(mean time.Duration) time.Duration {
	return min(time.Duration(s.rnd.ExpFloat64()*float64(mean)), 4*mean)
}

func (s *soaker) pause(stop <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-stop:
	}
}

// attach attaches by the client's transport of the moment, one in five times in plain form.
func (s *soaker) attach(ctx context.Context) bool {
	if s.rnd.IntN(4) == 0 && !s.polls {
		s.home = Transport(s.rnd.IntN(3)) * 2
	}
	transport := s.home
	if s.rnd.IntN(5) == 0 {
		transport++
	}
	err := s.session.Attach(ctx, transport)
	if err != nil {
		s.note(err)
		return false
	}
	s.attaches[transport]++
	if public := s.session.PublicID(); s.public.Load() == nil || *s.public.Load() != public {
		s.public.Store(&public)
	}
	return true
}

// change subscribes to another topic in the place of one. It does not do so while only the server knows the client's
// place, which is on and after a plain WebSocket that has brought nothing: no record could say from where on the other
// topic is owed.
func (s *soaker) change(ctx context.Context) {
	if s.session.ClientID() != "" && s.session.Cursor().IsZero() {
		return
	}
	s.changes++
	old := s.session.wanted
	if len(old) > 2 {
		s.note(s.session.Unsubscribe(ctx, old[s.rnd.IntN(len(old))]))
	}
	s.note(s.session.Subscribe(ctx, s.wish(s.rnd)))
}

// note counts an error.
func (s *soaker) note(err error) {
	if err == nil {
		return
	}
	if e, ok := errors.AsType[*ServerError](err); ok {
		if s.answers == nil {
			s.answers = map[string]int{}
		}
		if e.Code == "not-websocket" && strings.Contains(e.Message, "closed in one direction") {
			s.broken++ // breakSome closes one a moment before the other
			return
		}
		s.answers[e.Code]++
	} else if !errors.Is(err, ErrCut) {
		s.broken++
	}
}

// Why receive returned.
type why int

const (
	cutOff why = iota
	broken
	switching
)

// receive receives until the attach breaks, is cut, or the client wants another.
func (s *soaker) receive(ctx context.Context, stop <-chan struct{}) why {
	life := s.around(meanAttach)
	switchAt := time.Now().Add(life)
	if s.rnd.IntN(2) == 0 {
		defer time.AfterFunc(life, s.session.Cut).Stop()
		switchAt = switchAt.Add(time.Hour)
	}
	if s.session.Cursor().IsZero() {
		// A plain WebSocket does not say where it begins, and nothing more may come.
		over := make(chan struct{})
		defer close(over)
		go func() { // ends with receive
			select {
			case <-stop:
				s.session.Cut()
			case <-over:
			}
		}()
	}
	for {
		got, err := s.session.Receive(ctx)
		s.delivered += len(got)
		switch {
		case errors.Is(err, ErrCut):
			s.cuts++
			return cutOff
		case err != nil:
			s.note(err)
			return broken
		case time.Now().After(switchAt):
			return switching
		}
		select {
		case <-stop:
			return switching
		default:
		}
		if s.rnd.IntN(200) == 0 {
			s.change(ctx)
		}
	}
}

// drain receives up to the final Position, which everybody is owed.
func (s *soaker) drain(ctx context.Context, final chan gpoll.Position) {
	defer s.session.Drained()
	defer s.session.Cut()
	end := <-final
	final <- end
	for ctx.Err() == nil && s.session.Cursor() != end {
		if err := s.session.Attach(ctx, s.home); err != nil {
			s.note(err)
			continue
		}
		for s.session.Cursor() != end {
			got, err := s.session.Receive(ctx)
			s.delivered += len(got)
			if err != nil {
				s.note(err)
				break
			}
		}
	}
}

// A network is the server's connections, so that some can be broken.
type network struct {
	mu    sync.Mutex // guards conns
	conns map[*net.TCPConn]struct{}
}

// watch is a http.Server's ConnState. It keeps hijacked connections even after they were closed: to break those does
// nothing.
func (n *network) watch(c net.Conn, state http.ConnState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if wrapped, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = wrapped.NetConn()
	}
	switch conn := c.(*net.TCPConn); state {
	case http.StateNew:
		n.conns[conn] = struct{}{}
	case http.StateClosed:
		delete(n.conns, conn)
	}
}

// breakSome breaks a connection from time to time until stop: half of them with a reset, which loses what is under way.
func (n *network) breakSome(rnd *rand.Rand, stop <-chan struct{}) {
	for {
		timer := time.NewTimer(time.Duration(rnd.ExpFloat64() * float64(meanReset)))
		select {
		case <-stop:
			timer.Stop()
			return
		case <-timer.C:
		}
		switch c := n.any(); {
		case c == nil:
		case rnd.IntN(2) == 0:
			c.SetLinger(0)
			c.Close()
		default:
			c.CloseRead()
			c.CloseWrite()
		}
	}
}

// any takes a connection out.
func (n *network) any() *net.TCPConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		delete(n.conns, c)
		return c
	}
	return nil
}
