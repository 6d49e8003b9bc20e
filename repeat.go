package gpoll

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"
)

const (
	maxRepeat  = 4000             // bytes of a request that is remembered; less than net/http reads at a time
	maxRepeats = 4                // of one connection
	repeatFor  = 30 * time.Second // a remembered poll counts
)

// A repeat is a poll that has passed through net/http, the middleware and Authorize. The same bytes again, with another seq in the
// cursor, are the same poll again.
type repeat struct {
	head, tail string // of the request, before and after the digits of its cursor; without a cursor tail is empty
	req        request
	client     *Client
	fixed      unique.Handle[string] // the lines of the answer's head that are not gpoll's to say
	asker      *http.Request         // for Authorize; nil without one
	passed     moment
	own        attach // of its client, again and again
}

// match reports whether p is the poll again, and its cursor.
func (rep *repeat) match(p []byte) (after Position, ok bool) {
	rest, ok := bytes.CutPrefix(p, []byte(rep.head))
	if !ok {
		return Position{}, false
	}
	digits, ok := bytes.CutSuffix(rest, []byte(rep.tail))
	if !ok || rep.req.after.IsZero() {
		return Position{}, ok && len(digits) == 0
	}
	seq, ok := parseSeq(digits)
	return Position{rep.req.after.Epoch, seq}, ok
}

// text is the poll with that cursor.
func (rep *repeat) text(after Position) []byte {
	text := []byte(rep.head)
	if !rep.req.after.IsZero() {
		text = strconv.AppendUint(text, after.Seq, 10)
	}
	return append(text, rep.tail...)
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

// endsHead reports whether p ends where a request's head does, and no other does in it. To net/http a line ends with LF.
func endsHead(p []byte) bool {
	p, ok := bytes.CutSuffix(p, []byte(endOfHead))
	return ok && !bytes.Contains(p, []byte("\n\n")) && !bytes.Contains(p, []byte("\n\r\n"))
}

// A claim is what the handler of a poll knows of its connection. It is nil, and its methods do nothing, where the connection is none of
// Listener's or answers nothing by itself.
type claim struct {
	conn  *servedConn
	req   request
	reads uint32
	asker *http.Request // of repeat

	// What the connection has seen of the answer. Guarded by the pollConn's stream.mu, since middleware may write from a goroutine
	// other than the handler's.
	head    []byte // up to the empty line, at most maxRepeat bytes
	body    bool   // head is whole
	missing string // the rest of the body that is expected
	other   bool   // what was written is not that answer
}

// claim is made before Authorize sees r, and may change it.
func (b *Broadcaster) claim(r *http.Request, req *request) *claim {
	if r.TLS != nil || r.ProtoMajor != 1 {
		return nil
	}
	c := b.conns.of(r)
	if c == nil {
		return nil
	}
	c.mu.Lock()
	s, reads := c.served, uint32(0)
	if s != nil {
		reads = s.reads
	}
	c.mu.Unlock()
	if s == nil { // net/http has not waited for its handler
		return nil
	}
	k := &claim{conn: s, req: *req, reads: reads}
	if b.Authorize != nil {
		k.asker = r.Clone(context.WithoutCancel(r.Context()))
	}
	return k
}

// watch lets the connection compare what is written with out, until settle.
func (k *claim) watch(out *answer) {
	if k != nil {
		k.missing = out.body
		k.conn.watching.Store(k)
	}
}

// see takes bytes that are about to be written.
func (k *claim) see(p []byte) {
	k.conn.conn.mu.Lock()
	defer k.conn.conn.mu.Unlock()
	if !k.body {
		had := len(k.head)
		if i := bytes.Index(p, []byte(endOfHead)); had == 0 && i >= 0 {
			k.head = append(k.head, p[:min(i+len(endOfHead), maxRepeat)]...)
		} else {
			k.head = append(k.head, p[:min(len(p), maxRepeat-had)]...)
		}
		from := max(had-len(endOfHead)+1, 0) // the end may be in two pieces
		i := bytes.Index(k.head[from:], []byte(endOfHead))
		if i < 0 {
			k.other = k.other || len(k.head) == maxRepeat
			return
		}
		k.head, k.body = k.head[:from+i+len(endOfHead)], true
		p = p[len(k.head)-had:]
	}
	if len(p) > len(k.missing) || k.missing[:len(p)] != string(p) {
		k.other = true
		return
	}
	k.missing = k.missing[len(p):]
}

// unwatch returns the head of what was written since watch, without the empty line. It reports whether the expected body
// followed it, and nothing else did.
func (k *claim) unwatch() (head string, ok bool) {
	k.conn.watching.CompareAndSwap(k, nil)
	k.conn.conn.mu.Lock()
	defer k.conn.conn.mu.Unlock()
	if !k.body || k.missing != "" || k.other {
		return "", false
	}
	return strings.TrimSuffix(string(k.head), endOfHead), true
}

const endOfHead = "\r\n\r\n"

// over is called when the answer has been written and flushed, or could not be. It returns the bytes of the request, if they are known: then the
// next bytes begin a request.
func (k *claim) over(written bool) (seen []byte) {
	if k == nil {
		return nil
	}
	s := k.conn
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	// net/http reads no further than it must: if the last bytes it got end a head, that is the head of this request. What came since
	// the claim is of the next one.
	s.fresh = written && s.whole && s.reads == k.reads
	if s.fresh && !s.lost {
		seen = s.seen
	}
	s.seen, s.whole, s.lost = nil, false, !s.fresh
	return seen
}

// settle is over for a poll. It remembers the poll, if the bytes that came and those that went are a poll and its answer and nothing else.
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
		if old.head == rep.head && old.tail == rep.tail {
			c.repeats = slices.Delete(c.repeats, i, i+1)
			break
		}
	}
	if len(c.repeats) == maxRepeats {
		c.repeats = slices.Delete(c.repeats, 0, 1)
	}
	c.repeats = append(c.repeats, rep)
}

// newRepeat makes a repeat of a request and the bytes that it came in. It reports whether they are that request and nothing more.
func newRepeat(seen []byte, r *http.Request, req *request) (*repeat, bool) {
	text := string(seen)
	line := r.Method + " " + r.RequestURI + " HTTP/1.1\r\n"
	if r.Method != http.MethodGet || !strings.HasPrefix(text, line) || !endsHead(seen) || r.Close || req.last != 0 {
		return nil, false
	}
	for _, name := range [...]string{"Content-Length", "Transfer-Encoding", "Connection", "Expect", "Upgrade", "Last-Event-Id"} {
		if values, there := r.Header[name]; there && !(name == "Connection" && strings.EqualFold(values[0], "keep-alive") && len(values) == 1) {
			return nil, false
		}
	}
	rep := &repeat{head: text, req: *req}
	if !req.after.IsZero() {
		cursor := req.after.String()
		digits := strconv.FormatUint(req.after.Seq, 10)
		path, query, _ := strings.Cut(line, "?")
		at := strings.Index(query, "after="+cursor)
		if at < 0 || at > 0 && query[at-1] != '&' {
			return nil, false // spelled otherwise, with escapes
		}
		end := len(path) + 1 + at + len("after=") + len(cursor)
		rep.head, rep.tail = text[:end-len(digits)], text[end:]
	}
	return rep, true
}

// rest compares a with the head that net/http wrote for it, and returns the lines that are not a's own, without cookies. It
// reports whether another answer may be written with the same lines.
func (a *answer) rest(head string) (fixed string, ok bool) {
	status, head, _ := strings.Cut(head, "\r\n")
	if status != "HTTP/1.1 "+strconv.Itoa(a.status)+" "+http.StatusText(a.status) {
		return "", false
	}
	own := a.fields
	if a.status != http.StatusNoContent {
		own = append(own[:len(own):len(own)], field{"Content-Length", strconv.Itoa(len(a.body))})
	}
	found := 0
	var lines strings.Builder
	for line := range strings.SplitSeq(head, "\r\n") {
		name, value, _ := strings.Cut(line, ": ")
		switch http.CanonicalHeaderKey(name) { // the middleware may have spelled it otherwise
		case "Date", "Set-Cookie":
		case "Connection", "Transfer-Encoding", "Content-Encoding", "Trailer":
			return "", false
		case "Content-Type", "Content-Length", "Gpoll-Position", "Gpoll-Gap":
			if found == len(own) || !slices.Contains(own, field{name, value}) {
				return "", false
			}
			found++
		default:
			lines.WriteString(line)
			lines.WriteString("\r\n")
		}
	}
	return lines.String(), found == len(own)
}
