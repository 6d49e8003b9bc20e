package gpoll

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"unique"

	"github.com/corvuscrypto/gpoll/internal/verbatim"
)

const maxRepeats = 4 // of one connection

// A repeat is a poll that has passed through net/http, the middleware and Authorize. The same bytes, perhaps with
// another seq in the cursor, repeat it.
type repeat struct {
	text   verbatim.Request // whose cursor's digits may vary
	req    request
	client *Client
	fixed  unique.Handle[string] // the lines of the answer's head that are not gpoll's
	asker  *http.Request         // for Authorize; nil without one
	passed moment
	own    attach // memory for each attach of its client
}

// match reports whether p repeats the poll, and returns the cursor in p.
func (rep *repeat) match(p []byte) (after Position, ok bool) {
	digits, ok := rep.text.Match(p)
	if !ok || rep.req.after.IsZero() {
		return Position{}, ok
	}
	seq, ok := parseSeq(digits)
	return Position{rep.req.after.Epoch, seq}, ok
}

// with returns the bytes of the poll with that cursor.
func (rep *repeat) with(after Position) []byte {
	return rep.text.With(strconv.AppendUint(nil, after.Seq, 10))
}

// match returns the poll that p repeats, or nil.
func (c *pollConn) match(p []byte) (*repeat, Position) {
	for _, rep := range c.repeats {
		if after, ok := rep.match(p); ok {
			return rep, after
		}
	}
	return nil, Position{}
}

// A claim is what the handler of a poll knows of its connection. It is nil, and its methods do nothing, where the
// connection is not one of Listener or cannot answer by itself.
type claim struct {
	conn  *servedConn
	req   request
	reads uint32
	asker *http.Request // of repeat

	// The answer, as the connection sees it. Guarded by the pollConn's stream.mu, since middleware may write from a
	// goroutine other than the handler's.
	written verbatim.Written
}

// claim is called before Authorize, which may change r.
func (b *Broadcaster) claim(r *http.Request, req *request) *claim {
	if r.TLS != nil || r.ProtoMajor != 1 {
		return nil
	}
	c, _ := b.conns.of(r).(*pollConn)
	if c == nil {
		return nil
	}
	c.mu.Lock()
	s, reads := c.served, uint32(0)
	if s != nil {
		reads = s.handed.Reads()
	}
	c.mu.Unlock()
	if s == nil { // net/http did not wait for the handler
		return nil
	}
	k := &claim{conn: s, req: *req, reads: reads}
	if b.Authorize != nil {
		k.asker = r.Clone(context.WithoutCancel(r.Context()))
	}
	return k
}

// watch has the connection compare the bytes that are written with out, until settle.
func (k *claim) watch(out *answer) {
	if k != nil {
		k.written.Expect(out.body)
		k.conn.watching.Store(k)
	}
}

// see takes bytes that are about to be written.
func (k *claim) see(p []byte) {
	k.conn.conn.mu.Lock()
	defer k.conn.conn.mu.Unlock()
	k.written.Add(p)
}

// unwatch returns the head of what was written since watch, without the empty line. It reports whether the expected
// body followed it, and nothing else did.
func (k *claim) unwatch() (head string, ok bool) {
	k.conn.watching.CompareAndSwap(k, nil)
	k.conn.conn.mu.Lock()
	defer k.conn.conn.mu.Unlock()
	return k.written.Head()
}

// over is called when the answer was written and flushed, or could not be. It returns the bytes of the request if they
// are known; then the next bytes begin another request.
func (k *claim) over(written bool) (seen []byte) {
	if k == nil {
		return nil
	}
	s := k.conn
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.handed.Over(k.reads, written)
}

// settle is over for a poll. It remembers the poll if the connection read nothing but the poll and wrote nothing but
// its answer.
func (k *claim) settle(p *waitingPoll, out *answer, written bool) {
	if k == nil {
		return
	}
	c := k.conn.conn
	head, whole := k.unwatch()
	rep, ok := newRepeat(k.over(written), p.r, &k.req)
	if !ok || !whole {
		return
	}
	fixed, ok := out.rest(head)
	if !ok {
		return
	}
	rep.fixed = unique.Make(fixed)
	rep.client = p.attach.client
	rep.passed = c.b.now()
	rep.asker = k.asker
	c.remember(rep)
}

// remember keeps rep in the place of the one with the same bytes, or of the oldest.
func (c *pollConn) remember(rep *repeat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, old := range c.repeats {
		if old.text == rep.text {
			c.repeats = slices.Delete(c.repeats, i, i+1)
			break
		}
	}
	if len(c.repeats) == maxRepeats {
		c.repeats = slices.Delete(c.repeats, 0, 1)
	}
	c.repeats = append(c.repeats, rep)
}

// newRepeat makes a repeat of a request and the bytes that it came in. It reports whether the bytes are that request
// and nothing more.
func newRepeat(seen []byte, r *http.Request, req *request) (*repeat, bool) {
	if _, there := r.Header["Last-Event-Id"]; there || req.last != 0 || req.watch != nil {
		return nil, false
	}
	after, digits := "", 0
	if !req.after.IsZero() {
		after, digits = "after="+req.after.String(), len(strconv.FormatUint(req.after.Seq, 10))
	}
	text, ok := verbatim.NewRequest(seen, r, after, digits)
	return &repeat{text: text, req: *req}, ok
}

// rest compares a with the head that net/http wrote for it, and returns the lines that are not a's own, without
// cookies. It reports whether another answer may be written with the same lines.
func (a *answer) rest(head string) (fixed string, ok bool) {
	own := a.lines
	if own == "" {
		own = string(a.appendLines(nil))
	}
	return verbatim.Rest(head, a.status, own, "Content-Type", "Content-Length", "Gpoll-Position", "Gpoll-Gap")
}
