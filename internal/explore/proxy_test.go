//go:build explore && linux

package explore

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// A proxy polls for one client or two, on a connection of its own to which it writes the bytes itself. It keeps the
// connection and repeats itself, so that Listener answers it. It takes some answers in little pieces, and may ask
// again before it has read the whole of one. One that is not steady also sends a request behind one that waits, stops
// sending, and goes away.
type proxy struct {
	w       *world
	name    string
	rnd     *rand.Rand
	clients []*poller
	line    *line // nil: none
	steady  bool  // does nothing but poll, one request at a time
}

// A line is a connection with what was asked on it and is not answered yet.
type line struct {
	conn  *gpolltest.Conn
	in    *bufio.Reader
	slow  *reluctant
	asked []ask
	ended bool // nothing more is sent

	// A goroutine writes the requests. The server reads no request while an answer is under way, and the reader of that
	// answer must not wait.
	requests chan string // "" closes the sending side
	broken   atomic.Bool // a write has failed
}

// send writes the line's requests until there are no more.
func (l *line) send() {
	for r := range l.requests {
		if r == "" {
			_ = l.conn.CloseWrite() // it may have gone
			continue
		}
		_ = l.conn.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(l.conn, r); err != nil {
			l.broken.Store(true)
			l.conn.Cut()
		}
	}
}

// addProxy adds a proxy with its clients.
func (w *world) addProxy(i int, authorized bool) {
	x := &proxy{w: w, name: fmt.Sprintf("proxy %d", i), rnd: w.own()}
	x.steady = x.rnd.IntN(2) == 0
	for j := range pick(x.rnd, 1, 1, 1, 2) {
		c := &poller{w: w, name: fmt.Sprintf("%s.%d", x.name, j), json: x.rnd.IntN(3) == 0}
		c.trace = w.Trace(c.name)
		if authorized {
			c.user = pick(x.rnd, users...)
		}
		for range x.rnd.IntN(3) {
			c.toggle(pick(x.rnd, x.w.wishes...))
		}
		x.clients = append(x.clients, c)
		w.clients = append(w.clients, c)
		w.say("%s of %q, topics %v, JSON %v, steady %v", c.name, c.user, c.topics, c.json, x.steady)
	}
	steps := 5 + x.rnd.IntN(25)
	if x.steady {
		steps += 10
	}
	w.proxies = append(w.proxies, x)
	w.polling.Add(1)
	w.actors = append(w.actors, func() {
		for range steps {
			x.step()
		}
		if w.polling.Add(-1) == 0 {
			close(w.stirred)
		}
	})
}

// step polls once more, and perhaps does what a client of net/http does not.
func (x *proxy) step() {
	time.Sleep(pick(x.rnd, 0, 0, 0, x.instant()))
	c := pick(x.rnd, x.clients...)
	bare := c.exact && x.rnd.IntN(6) > 0 || x.rnd.IntN(6) == 0
	if !x.steady && c.id != "" && x.rnd.IntN(16) == 0 {
		c.toggle(pick(x.rnd, x.w.wishes...))
	}
	behind := c.cursor.Seq < x.w.newest.Load() && x.rnd.IntN(8) > 0 // the poll is answered at once
	before := x.rnd.IntN(8) == 0
	if before {
		x.stir()
	}
	x.ask(c, bare)
	if !before && !behind {
		x.stir()
	}
	if !x.steady && c.id != "" && x.line != nil {
		x.interfere(c, bare)
	}
	x.answers()
}

// interfere does something while a poll may be waiting.
func (x *proxy) interfere(c *poller, bare bool) {
	switch does := x.rnd.IntN(20); {
	case does == 0: // stops sending
		time.Sleep(pick(x.rnd, 0, x.instant()))
		x.halfClose()
	case does == 1: // goes away
		time.Sleep(x.instant())
		x.cut()
	case does == 2: // goes away in the middle of the answer
		x.line.slow.left = 1 + x.rnd.IntN(500)
	case does < 6: // sends a request behind the poll
		time.Sleep(pick(x.rnd, 0, x.instant()))
		switch x.rnd.IntN(4) {
		case 0:
			x.write(ask{}, "GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n")
		case 1:
			if other := pick(x.rnd, x.clients...); other.id != "" {
				x.ask(other, x.rnd.IntN(2) == 0)
			}
		default:
			x.ask(c, bare) // the same bytes
		}
	}
}

// instant returns a time as long as those for which goroutines sleep at points.
func instant(rnd *rand.Rand, longest float64) time.Duration {
	return time.Duration(math.Exp(rnd.Float64() * math.Log(longest)))
}

func (x *proxy) instant() time.Duration { return instant(x.rnd, x.w.pace) }

// stir makes the reactor publish something soon.
func (x *proxy) stir() {
	if x.w.polling.Load() == 0 {
		return // the end has been published
	}
	select {
	case x.w.stirred <- struct{}{}:
	default:
	}
}

// ask polls for c, or registers it. bare leaves the cursor out where that can be done.
func (x *proxy) ask(c *poller, bare bool) {
	a := ask{of: c, after: c.cursor, register: c.id == ""}
	waits := x.line != nil && slices.ContainsFunc(x.line.asked, func(a ask) bool { return a.of == c })
	switch {
	case bare && c.sure && !a.register && time.Now().After(c.doubt):
		a.after, a.exact = gpoll.Position{}, c.exact
	case !waits && !c.cursor.IsZero():
		c.nameTopics()
	}
	if !x.steady && x.rnd.IntN(10) == 0 {
		x.write(a, c.post(a))
	} else {
		x.write(a, c.get(a))
	}
}

// write sends a request, on a new connection if there is none.
func (x *proxy) write(a ask, request string) {
	if x.line == nil || x.line.ended {
		x.cut()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := x.w.ln.DialContext(ctx, "memory", "")
		if err != nil {
			x.w.fault("%s: %v", x.name, err)
			return
		}
		l := &line{conn: conn.(*gpolltest.Conn), requests: make(chan string, 16)}
		go l.send() // ends with cut
		l.slow = &reluctant{conn: l.conn, rnd: x.rnd, longest: x.w.pace, left: math.MaxInt}
		l.in = bufio.NewReaderSize(l.slow, 256)
		x.line = l
	}
	x.line.asked = append(x.line.asked, a)
	if a.of != nil {
		defer func() { a.of.sure, a.of.exact = a.of.sure && a.after.IsZero(), a.exact }()
	}
	x.line.requests <- request
}

// halfClose sends no more: the server answers what is asked and closes the connection.
func (x *proxy) halfClose() {
	if x.line != nil {
		x.line.requests <- ""
		x.line.ended = true
	}
}

// cut breaks the connection. The server may have written answers that nobody has read.
func (x *proxy) cut() {
	if x.line == nil {
		return
	}
	for _, a := range x.line.asked {
		x.w.whole = false
		if a.of != nil {
			a.of.sure, a.of.doubt = false, time.Now().Add(time.Minute)
		}
	}
	for _, c := range x.clients {
		c.exact = false // a poll on another connection may overtake the server's note that the last answer has gone out
	}
	close(x.line.requests)
	if x.rnd.IntN(2) == 0 {
		x.line.conn.Close()
	}
	x.line.conn.Cut()
	x.line = nil
}

// answers reads what was asked for.
func (x *proxy) answers() {
	for x.line != nil && len(x.line.asked) > 0 {
		x.answer()
	}
}

// answer reads one answer.
func (x *proxy) answer() {
	l := x.line
	l.slow.pauses = pick(x.rnd, 0, 0, 1, 3)
	_ = l.conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
	resp, err := http.ReadResponse(l.in, nil)
	if err != nil {
		x.lost(err)
		return
	}
	a := l.asked[0]
	if x.rnd.IntN(8) == 0 {
		x.stir()
	}
	early := false
	if len(l.asked) == 1 && !l.ended && a.of != nil && x.rnd.IntN(8) == 0 {
		early = x.askEarly(a.of, resp)
	}
	body, err := io.ReadAll(resp.Body)
	if x.line != l {
		return // it could not be sent
	}
	if err != nil {
		x.lost(err)
		return
	}
	l.asked = l.asked[1:]
	if a.of != nil {
		a.of.take(a, resp, body)
		if early {
			a.of.sure = false
		}
		if early || l.ended { // to the server it may not have come
			a.of.exact = false
		}
	}
	if resp.Close || l.ended && len(l.asked) == 0 {
		x.cut()
	}
}

// askEarly sends c's next poll when the head of an answer has told the Position, before the body has come. It reports
// whether it did.
func (x *proxy) askEarly(c *poller, resp *http.Response) bool {
	p, err := gpoll.ParsePosition(resp.Header.Get("Gpoll-Position"))
	if err != nil || c.id == "" || c.json || resp.StatusCode != http.StatusOK || passed(p, c.cursor) ||
		p.Epoch != c.cursor.Epoch || !slices.Equal(c.topics, c.named) {
		return false
	}
	stood := c.cursor
	c.cursor = p
	x.ask(c, false)
	c.cursor = stood // until it has the body
	return true
}

// lost passes over the end of a connection.
func (x *proxy) lost(err error) {
	if x.line.slow.left <= 0 || x.line.ended || x.w.ends || x.line.slow.waited || x.line.broken.Load() {
		x.cut()
		return
	}
	x.w.fault("%s: reading an answer: %v", x.name, err)
	x.cut()
}

// drain polls until every client has come to the end.
func (x *proxy) drain(ctx context.Context, end gpoll.Position) {
	for _, c := range x.clients {
		for tries := 0; c.cursor != end; tries++ {
			if ctx.Err() != nil || tries == 200 {
				x.w.fault("%s never came to the end %v: it stands at %v", c.name, end, c.cursor)
				break
			}
			x.ask(c, x.rnd.IntN(2) == 0)
			x.answers()
		}
		c.trace.Drained()
	}
}

// A reluctant reader takes what comes in pieces and pauses.
type reluctant struct {
	conn    *gpolltest.Conn
	rnd     *rand.Rand
	pauses  int     // that are still made
	longest float64 // of them, in nanoseconds
	left    int     // bytes, after which it breaks the connection
	waited  bool    // for so long that the server may have given up
}

func (r *reluctant) Read(p []byte) (int, error) {
	if r.left <= 0 {
		r.conn.Cut()
		return 0, gpolltest.ErrCut
	}
	if r.pauses > 0 && r.rnd.IntN(3) == 0 {
		r.pauses--
		d := instant(r.rnd, r.longest)
		if r.rnd.IntN(50) == 0 {
			d = 11 * time.Second
			r.waited = true
		}
		time.Sleep(d)
	}
	if r.pauses > 0 {
		p = p[:min(len(p), 1+r.rnd.IntN(100))]
	}
	n, err := r.conn.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}
