package gpolltest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// transports are all of them.
var transports = []Transport{LongPoll, LongPollPlain, SSE, SSEPlain, WebSocket, WebSocketPlain}

// A world is a server inside a bubble that can die and come back, with clients and the history of both.
type world struct {
	testing.TB
	History
	ln       *Listener
	client   *http.Client
	sessions []*Session

	configure func(*gpoll.Broadcaster)
	b         *gpoll.Broadcaster
	handler   atomic.Pointer[http.ServeMux]
	n         int // messages published, for their payloads
}

// inWorld runs script in a bubble with a server and checks at its end that nothing is left.
func inWorld(t *testing.T, configure func(*gpoll.Broadcaster), script func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{TB: t, ln: NewListener(), configure: configure}
		w.start()
		srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.handler.Load().ServeHTTP(rw, r)
		})}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(w.ln) }() // ends with srv.Close
		w.client = w.ln.Client()
		script(w)
		for _, s := range w.sessions {
			s.Cut()
		}
		w.stop()
		w.client.CloseIdleConnections()
		srv.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
}

func (w *world) start() {
	w.b = gpoll.NewBroadcaster()
	if w.configure != nil {
		w.configure(w.b)
	}
	mux := http.NewServeMux()
	w.b.ListenAndBroadcast("/poll", mux)
	w.handler.Store(mux)
}

func (w *world) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.b.Shutdown(ctx); err != nil {
		w.Errorf("Shutdown: %v", err)
	}
}

// restart lets the server die with its memory and a new one take its place.
func (w *world) restart() {
	w.ln.Cut()
	old := w.b
	w.start()
	w.ln.Cut()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := old.Shutdown(ctx); err != nil {
		w.Errorf("Shutdown: %v", err)
	}
}

// session adds a client with topics and attaches it by t.
func (w *world) session(t Transport, topics ...string) *Session {
	w.Helper()
	name := fmt.Sprintf("client %d (first by %v)", len(w.sessions), t)
	s := &Session{URL: "http://gpoll.test/poll", Client: w.client, Trace: w.Trace(name), Topics: topics}
	w.sessions = append(w.sessions, s)
	w.attach(s, t)
	return s
}

func (w *world) patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}

// attach attaches s, anew if the server has forgotten it.
func (w *world) attach(s *Session, t Transport) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	err := s.Attach(ctx, t)
	if forgotten(err) {
		err = s.Attach(ctx, t)
	}
	if err != nil {
		w.Errorf("Attach by %v: %v", t, err)
	}
}

func forgotten(err error) bool {
	e, ok := errors.AsType[*ServerError](err)
	return ok && e.Code == "unknown-client"
}

// publish publishes m with a payload that no other message has.
func (w *world) publish(m gpoll.Message) gpoll.Position {
	w.Helper()
	w.n++
	m.Data = fmt.Appendf(nil, "message %d", w.n)
	pos, err := w.Publish(context.Background(), w.b, m)
	if err != nil {
		w.Errorf("Publish: %v", err)
	}
	return pos
}

// broadcasts publishes n messages to everybody and returns the Position of the last.
func (w *world) broadcasts(n int) (last gpoll.Position) {
	w.Helper()
	for range n {
		last = w.publish(gpoll.Message{})
	}
	return last
}

// await lets every session receive up to last, attaching by its transport again as often as the server ends it for a
// reason that an application answers so. What does not come is the checker's to report.
func (w *world) await(by map[*Session]Transport, last gpoll.Position) {
	w.Helper()
	var wg sync.WaitGroup
	for _, s := range w.sessions {
		wg.Go(func() {
			ctx, cancel := w.patience()
			defer cancel()
			for range 5 {
				err := s.Await(ctx, last)
				if err == nil {
					return
				}
				if _, ok := errors.AsType[*ServerError](err); !ok {
					w.Logf("%v: %v", by[s], err)
					return
				}
				if err := s.Attach(ctx, by[s]); err != nil && !forgotten(err) {
					w.Logf("%v: %v", by[s], err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// each does one thing with every session at once and returns a function that waits for all of them. When each returns,
// every session that can wait for the server does so.
func (w *world) each(do func(s *Session)) (wait func()) {
	var wg sync.WaitGroup
	for _, s := range w.sessions {
		wg.Go(func() { do(s) })
	}
	synctest.Wait()
	return wg.Wait
}

// verdict reports what the checker finds in the history.
func (w *world) verdict(c Checker) {
	w.Helper()
	for _, s := range w.sessions {
		s.Drained()
	}
	for _, v := range c.Check(&w.History) {
		w.Errorf("violation of %v", v)
	}
}
