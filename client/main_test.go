package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// TestMain fails the run when it leaves a goroutine of the package behind.
func TestMain(m *testing.M) {
	if os.Getenv(isServer) != "" {
		serveProcess()
	}
	code := m.Run()
	if code == 0 {
		if left := leftBehind(); left != "" {
			fmt.Println("FAIL: goroutines are left at the end:\n\n" + left)
			code = 1
		}
	}
	os.Exit(code)
}

// leftBehind returns the stacks of the goroutines that are still in the package, or that net/http has for it.
func leftBehind() string {
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	buf := make([]byte, 1<<20)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(5 * time.Second); ; <-ticker.C {
		var left []string
		stacks := string(buf[:runtime.Stack(buf, true)])
		for _, stack := range strings.Split(stacks, "\n\n")[1:] {
			if strings.Contains(stack, "corvuscrypto/gpoll") || strings.Contains(stack, "net/http.") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return strings.Join(left, "\n\n")
		}
	}
}

// A world is a server inside a bubble, what stands in front of it, and what its clients saw.
type world struct {
	*testing.T
	gpolltest.History
	ln  *gpolltest.Listener
	hc  *http.Client
	b   *gpoll.Broadcaster
	set func(*gpoll.Broadcaster)

	mount atomic.Pointer[http.ServeMux]
	front atomic.Pointer[middleware]
	n     int
	seen  []*watcher
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// cutAfter breaks the connection of r after d.
func cutAfter(r *http.Request, d time.Duration) {
	time.AfterFunc(d, r.Context().Value(connKey{}).(*gpolltest.Conn).Cut)
}

// A middleware stands in front of the mount.
type middleware func(w http.ResponseWriter, r *http.Request, mount http.Handler)

// inWorld runs script in a bubble with a server, and checks that nothing is left at its end and that the clients saw
// what they are owed.
func inWorld(t *testing.T, set func(*gpoll.Broadcaster), script func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, ln: gpolltest.NewListener(), set: set}
		w.start()
		srv := &http.Server{ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		}, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			mount := w.mount.Load()
			if front := w.front.Load(); front != nil {
				(*front)(rw, r, mount)
				return
			}
			mount.ServeHTTP(rw, r)
		})}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(w.ln) }() // ends with srv.Close
		w.hc = w.ln.Client()
		script(w)
		for _, c := range w.seen {
			c.close()
		}
		w.stop(w.b)
		w.hc.CloseIdleConnections()
		srv.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
		time.Sleep(time.Second) // of the bubble's time: net/http closes a connection late whose body it has not read
		for _, v := range (gpolltest.Checker{}).Check(&w.History) {
			t.Errorf("violation of %v", v)
		}
	})
}

func (w *world) start() {
	w.b = gpoll.NewBroadcaster()
	if w.set != nil {
		w.set(w.b)
	}
	mux := http.NewServeMux()
	w.b.ListenAndBroadcast("/poll", mux)
	w.mount.Store(mux)
}

func (w *world) stop(b *gpoll.Broadcaster) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		w.Errorf("Shutdown: %v", err)
	}
}

// stands puts m in front of the mount.
func (w *world) stands(m middleware) {
	if m == nil {
		w.front.Store(nil)
		return
	}
	w.front.Store(&m)
}

// dial connects a client that uses transports, and watches it.
func (w *world) dial(o client.Options) *watcher {
	w.Helper()
	c, err := w.tryDial(o)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func (w *world) tryDial(o client.Options) (*watcher, error) {
	c := &watcher{w: w, done: make(chan struct{})}
	if o.HTTPClient == nil {
		o.HTTPClient = w.hc
	}
	also := o.OnStatus
	o.OnStatus = func(s client.Status) {
		c.statuses = append(c.statuses, s)
		if also != nil {
			also(s)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	if c.Client, err = client.Dial(ctx, "http://gpoll.test/poll", o); err != nil {
		return nil, err
	}
	c.trace = w.Trace(fmt.Sprintf("client %d", len(w.seen)))
	c.trace.Registered(c.ID(), "")
	c.trace.Scanned(c.Position())
	for _, topic := range o.Topics {
		c.trace.Subscribed(topic, c.Position())
	}
	w.seen = append(w.seen, c)
	c.id = c.ID()
	go c.take() // ends with close
	return c, nil
}

// A watcher takes the messages of a client and keeps what it saw.
type watcher struct {
	*client.Client
	w        *world
	trace    *gpolltest.Trace
	id       string
	statuses []client.Status // the bubble is quiet while a test reads them
	got      []client.Message
	err      error
	done     chan struct{}
}

func (c *watcher) take() {
	defer close(c.done)
	for m, err := range c.Messages(context.Background()) {
		switch {
		case err != nil:
			c.err = err
			return
		case m.Gap != nil:
			c.trace.Gap(*m.Gap)
		default:
			if id := c.ID(); id != c.id {
				c.id = id
				c.trace.Registered(id, "")
			}
			c.trace.Delivered(gpoll.Message{Topic: m.Topic, Data: m.Data, Position: m.Position})
		}
		c.got = append(c.got, m)
	}
}

// close ends the client and tells the trace what it stood at.
func (c *watcher) close() {
	synctest.Wait()
	select {
	case <-c.done: // it has ended already, and owes nothing
		c.trace.Ended()
	default:
		c.trace.Scanned(c.Position())
		c.trace.Drained()
	}
	c.Close()
	<-c.done
}

// publish publishes n messages to topic.
func (w *world) publish(topic string, n int) (last gpoll.Position) {
	w.Helper()
	for range n {
		w.n++
		var err error
		last, err = w.Publish(context.Background(), w.b, gpoll.Message{Topic: topic, Data: fmt.Appendf(nil, "m%d", w.n)})
		if err != nil {
			w.Fatal(err)
		}
	}
	return last
}

// await lets time pass until every client has come to p.
func (w *world) await(p gpoll.Position, clients ...*watcher) {
	w.Helper()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) { // of the bubble's time
		synctest.Wait()
		behind := 0
		for _, c := range clients {
			if at := c.Position(); at.Epoch != p.Epoch || at.Seq < p.Seq {
				behind++
			}
		}
		if behind == 0 {
			return
		}
		if time.Since(begun) > 5*time.Minute {
			for _, c := range clients {
				w.Errorf("it is at %v and not at %v after %v: %v", c.Position(), p, time.Since(begun), c.Status())
			}
			w.FailNow()
		}
	}
}

// until lets time pass until the client's status is as wanted.
func (w *world) until(c *watcher, wanted func(client.Status) bool) client.Status {
	w.Helper()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) { // of the bubble's time
		synctest.Wait()
		s := c.Status()
		if wanted(s) {
			return s
		}
		if time.Since(begun) > time.Hour {
			w.Fatalf("it is %v after %v", s, time.Since(begun))
		}
	}
}

func connectedBy(t client.Transport) func(client.Status) bool {
	return func(s client.Status) bool { return s.State == client.Connected && s.Transport == t }
}

func (c *watcher) payloads() string {
	var all []string
	for _, m := range c.got {
		if m.Gap != nil {
			all = append(all, "gap "+m.Gap.Reason)
		} else {
			all = append(all, string(m.Data))
		}
	}
	return strings.Join(all, " ")
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*client.EndError](err); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}

var transports = []client.Transport{client.WebSocket, client.SSE, client.LongPoll}
