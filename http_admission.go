package gpoll

import (
	"log/slog"
	"net/http"
	"net/netip"
	"time"
)

// An arrival is a request that may attach: its client, its topics and its Grant. Polls, SSE, WebSockets and the hello
// of gpoll.v1 all go through arrive.
type arrival struct {
	client     *Client
	registered bool     // by this request
	named      []string // topics
	grantee    *grantee
}

// arrive admits a request in four steps: it asks Authorize, finds the client that the id names, checks the topics, and
// registers a new client within the limits.
func (b *Broadcaster) arrive(r *http.Request, req *request) (arr arrival, refused *refusal) {
	if b.state.Load() != stateOpen {
		return arr, b.refuseShutdown()
	}
	if arr.grantee, refused = b.authorize(r); refused != nil {
		return arr, refused
	}
	if req.id != "" {
		arr.client, refused = b.resolve(req, arr.grantee.user())
		if refused != nil && !(req.anew && refused == refuseUnknownClient) {
			return arr, refused
		}
	}
	if arr.named, refused = b.topicsOf(req, arr.client, arr.grantee); refused != nil {
		return arr, refused
	}
	if req.watch != nil {
		if refused = arr.grantee.mayWatch(b, req.watch.topics); refused != nil {
			return arr, refused
		}
	}
	if arr.client == nil {
		refused = arr.register(b, r, req)
	}
	if refused == nil {
		b.noteFallback(r)
	}
	return arr, refused
}

// register makes a client of the request. It is a function of its own so that other requests keep a small stack.
func (arr *arrival) register(b *Broadcaster, r *http.Request, req *request) *refusal {
	from, where, refused := b.locate(r)
	if refused != nil {
		return refused
	}
	arr.client, refused = b.register(registration{remote: true, from: from, where: where, user: arr.grantee.user(),
		named: arr.named, given: arr.grantee.given(), cursor: req.after, last: req.last})
	arr.registered = refused == nil
	return refused
}

// locate returns from which address r comes, for the limits and for Client.RemoteAddr.
func (b *Broadcaster) locate(r *http.Request) (from netip.Addr, where string, refused *refusal) {
	if from, refused = b.clientIP(r); from.IsValid() {
		return from, from.String(), refused
	}
	return from, r.RemoteAddr, refused
}

// meet has the application accept c at the first request that attaches, or brings a command.
func (b *Broadcaster) meet(c *Client, r *http.Request) *refusal {
	if c.met.Load() {
		return nil
	}
	if c.RemoteAddr() == "" { // it is of AddClient
		_, where, refused := b.locate(r)
		if refused != nil {
			return refused
		}
		c.routine.mu.Lock()
		c.remote = where
		c.routine.mu.Unlock()
	}
	return c.accept(r.Context())
}

// options says how to attach. It fills in o instead of returning a copy: a poll waits on the stack that its beginning
// took.
func (arr *arrival) options(req *request, o *attachOptions) {
	o.cursor, o.named, o.last, o.grantee, o.arrived = req.after, arr.named, req.last, arr.grantee, req.arrived
	o.watch = req.watch
	o.asks, o.asked = req.json, req.asked
	if arr.registered {
		o.cursor = Position{} // the registration's
	}
}

// resolve returns the client that a request's id names, if it belongs to that user. resolve does not check that the
// rest of the id is spelled as a UUID: no other spelling finds a client.
func (b *Broadcaster) resolve(req *request, user string) (*Client, *refusal) {
	dollar := "$"
	if req.escaped {
		dollar = escapedDollar
	}
	routine, uuid, ok := cutClientID(req.id, dollar)
	if !ok {
		return nil, b.refuseUnknown()
	}
	c := b.clients.get(keyOf(uuid))
	if c == nil || c.routine.id != routine || c.user != user {
		return nil, b.refuseUnknown()
	}
	return c, nil
}

// refusalOf is the answer to a request whose open failed.
func (b *Broadcaster) refusalOf(err error) *refusal {
	if err == errOvertaken {
		return refuseSuperseded
	}
	return b.refuseUnknown()
}

// topicsOf returns the topics that a request means: those that it names, and without a cursor or a name those that its
// client named before. c is nil for a registration. It asks Grant.Subscribe again about topics that were named before:
// the right to read them may be lost.
func (b *Broadcaster) topicsOf(req *request, c *Client, g *grantee) ([]string, *refusal) {
	named := req.topics
	if c != nil && !req.hasTopics && req.after.IsZero() {
		c.routine.mu.Lock()
		named = c.named
		c.routine.mu.Unlock()
	}
	return named, g.mayRead(b, named)
}

const (
	// A request that its sender has given up may arrive this long after the request that followed it.
	lateness = 20 * time.Millisecond

	// A client may already have its answer, and ask again, this long before the server notes that the answer went out.
	noting = time.Second
)

// giveWay delays a request that would supersede c's attach. A request that its sender has already cancelled may arrive
// after the one that followed it; lateness is enough for its cancellation to be seen. giveWay returns as soon as there
// is nothing to supersede, and reports false when gone was closed first: its sender has cancelled the request, or has
// stopped sending.
func (c *Client) giveWay(gone <-chan struct{}) bool {
	over := c.attachOver()
	if over == nil {
		return true
	}
	// Several short waits: after a pause of the whole process one wait would be over before the cancellation is seen.
	const parts = 4
	late := time.NewTicker(lateness / parts)
	defer late.Stop()
	for i := 1; i <= parts || c.answering.Load() && i <= int(parts*noting/lateness); i++ {
		select {
		case <-over:
			return true
		case <-gone:
			return false
		case <-late.C:
		}
	}
	return true
}

// readInPassing reads what a client is owed after a cursor, at most limit. Without a cursor it reads nothing: the
// cursor that the server keeps belongs to the other attach.
func (b *Broadcaster) readInPassing(arr *arrival, after Position, limit replay) (items []item, at Position, more bool) {
	c := arr.client
	c.routine.mu.Lock()
	want, at := c.interestLocked(), c.cursor
	c.routine.mu.Unlock()
	if after.IsZero() {
		return nil, at, false
	}
	want.topics = union(arr.named, arr.grantee.given())
	return b.messages.read(after, &want, limit, nil)
}

// admit checks a request of any transport, and parses it into req. When it reports false it has answered. A request
// waits only after admit has returned, so that its goroutine keeps a small stack.
func (b *Broadcaster) admit(w http.ResponseWriter, r *http.Request, req *request) bool {
	if !b.enter(w, r, refuseMethod) {
		return false
	}
	if refused := b.parseRequest(w, r, req); refused != nil {
		b.refuse(w, r, refused)
		return false
	}
	return true
}

// enter checks the origin and the method of a request, and whether the Broadcaster shuts down. When it reports false it
// has answered. method is the answer to other methods than it allows.
func (b *Broadcaster) enter(w http.ResponseWriter, r *http.Request, method *refusal) bool {
	if err := b.start(); err == ErrClosed { // before it ever served
		b.refuse(w, r, b.refuseShutdown())
		return false
	} else if err != nil {
		b.tell(slog.LevelError, "gpoll: cannot serve", "err", err)
		b.counts.refused.add(refuseInternal.code)
		b.answerRefusal(w, r, refuseInternal, b.badSetting == nil)
		return false
	}
	if !b.originAllowed(r) {
		b.refuse(w, r, b.refuseOrigin(r))
		return false
	}
	switch {
	case r.Method == http.MethodPost, r.Method == http.MethodGet && method == refuseMethod:
	case r.Method == http.MethodOptions:
		b.answerPreflight(w, r)
		return false
	default:
		b.refuse(w, r, method)
		return false
	}
	if b.state.Load() != stateOpen { // before any look-up: Shutdown removes the clients
		b.refuse(w, r, b.refuseShutdown())
		return false
	}
	return true
}
