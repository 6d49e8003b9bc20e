package gpoll

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// A registry finds clients and gives each a routine. It holds only whole clients: a client has its slot, its topics and
// its cursor in its routine before anybody finds it by its key or its user.
type registry struct {
	mu       sync.RWMutex // guards the fields below and routine.count
	byKey    map[clientKey]*Client
	byUser   map[string]userClients
	arriving int        // clients that have a place in a routine but are not in byKey yet
	routines []*routine // by id; nil where the id is free
	running  int
	roomy    int    // no routine with a lower id has room
	rate     bucket // of all registrations
	rates    addressBuckets
	closed   bool
}

func (g *registry) get(key clientKey) *Client {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.byKey[key]
}

// userClients are the clients of a user.
type userClients struct {
	whole []*Client // never changed, only replaced, since ofUser hands it out
	count int       // of whole and of the arriving clients
}

// ofUser returns the clients of a user. The caller does not change the slice, nor does the registry.
func (g *registry) ofUser(user string) []*Client {
	whole, _ := g.countOf(user)
	return whole
}

// countOf returns the clients of a user, as ofUser does, and their number with the arriving ones.
func (g *registry) countOf(user string) ([]*Client, int) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	of := g.byUser[user]
	return of.whole, of.count
}

// each calls visit for every routine.
func (g *registry) each(visit func(*routine)) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, r := range g.routines {
		if r != nil {
			visit(r)
		}
	}
}

// all returns the clients for which match returns true.
func (g *registry) all(match func(*Client) bool) []*Client {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var found []*Client
	for _, c := range g.byKey {
		if match(c) {
			found = append(found, c)
		}
	}
	return found
}

// registration is what a new client brings.
type registration struct {
	remote bool       // counts against RegisterRate
	from   netip.Addr // counts against RegisterRatePerIP; the zero Addr does not
	where  string     // see Client.RemoteAddr
	user   string
	named  []string // topics
	given  []string
	cursor Position // zero: the end of the log
	last   int      // ignored beside a cursor
	fills  bool     // a full buffer removes the client, also before its first attach
}

// register makes a client in the lowest-numbered routine with room, and starts a routine when there is none.
func (b *Broadcaster) register(reg registration) (*Client, *refusal) {
	c := &Client{uuid: uuid.New(), user: reg.user, idleSince: b.now(), remote: reg.where}
	c.public = c.key().String()
	b.makeRoom(reg.user)
	if refused := b.place(c, reg); refused != nil {
		return nil, refused
	}
	r := c.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	c.slot = int32(len(r.clients))
	r.clients = append(r.clients, c)
	r.hot = append(r.hot, hotClient{})
	c.scheduleLocked()
	c.setTopicsLocked(reg.named, reg.given)
	c.cursor = reg.cursor
	if c.cursor.IsZero() {
		c.cursor = b.messages.end()
	}
	if reg.last > 0 && reg.cursor.IsZero() {
		c.kept = &keptCursor{backfill: b.backfillLocked(c, c.topics, reg.last)}
	}
	if reg.fills {
		c.hot().mode = counting
	}
	// The routine's rounds see the client from here on. The lock is held until everybody else sees it too.
	if !b.clients.enter(c) {
		r.dropLocked(c)
		return nil, b.refuseShutdown()
	}
	return c, nil
}

// betweenPolls is how long a polling client may be without an attach before makeRoom counts it as away.
const betweenPolls = 2 * time.Second

// When a user has MaxClientsPerUser clients, makeRoom removes the one that has been away for longest: a page that is
// loaded again leaves its client behind. Clients that are attached, or between two polls, stay.
func (b *Broadcaster) makeRoom(user string) {
	if user == "" {
		return
	}
	whole, count := b.clients.countOf(user)
	if count < b.set.maxPerUser {
		return
	}
	now := b.now()
	var longest *Client
	since := now
	for _, c := range whole {
		c.routine.mu.Lock()
		away := c.idleSince
		if !c.streamed {
			away += moment(betweenPolls)
		}
		if c.attach == nil && !c.removed && (away < since || away == since && longest == nil) {
			longest, since = c, away
		}
		c.routine.mu.Unlock()
	}
	if longest != nil {
		b.expire(longest, now)
	}
}

// place gives c a routine. Until enter shows the client, it counts but nobody finds it.
func (b *Broadcaster) place(c *Client, reg registration) *refusal {
	g := &b.clients
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return b.refuseShutdown()
	}
	if len(g.byKey)+g.arriving >= b.set.maxClients {
		return &refusal{status: http.StatusServiceUnavailable, code: "too-many-clients",
			retry: soon(),
			message: fmt.Sprintf("the server holds its limit of %d clients (Broadcaster.MaxClients); come back later",
				b.set.maxClients)}
	}
	of := g.byUser[c.user]
	if c.user != "" && of.count >= b.set.maxPerUser {
		return &refusal{status: http.StatusTooManyRequests, code: "too-many-clients",
			retry: soon(),
			message: fmt.Sprintf("this user holds the limit of %d clients (Broadcaster.MaxClientsPerUser); close another one",
				b.set.maxPerUser)}
	}
	if reg.remote {
		if refused := b.rateLocked(reg.from, time.Now()); refused != nil {
			return refused
		}
	}
	c.routine = b.roomyRoutineLocked()
	c.routine.count++
	g.arriving++
	if c.user != "" {
		of.count++
		g.byUser[c.user] = of
	}
	return nil
}

// enter shows c, which is whole, under its key and its user in one step. After Shutdown it gives c's place back instead
// and reports false. The mu of c's routine is held.
func (g *registry) enter(c *Client) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.arriving--
	if g.closed {
		g.leaveLocked(c)
		return false
	}
	g.byKey[c.key()] = c
	if c.user != "" {
		of := g.byUser[c.user]
		of.whole = append(slices.Clip(slices.Clone(of.whole)), c)
		g.byUser[c.user] = of
	}
	return true
}

// forget undoes place and enter. It reports whether c was there.
func (g *registry) forget(c *Client) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := c.key()
	if g.byKey[key] != c {
		return false
	}
	delete(g.byKey, key)
	if c.user != "" {
		of := g.byUser[c.user]
		of.whole = without1(of.whole, c)
		g.byUser[c.user] = of
	}
	g.leaveLocked(c)
	return true
}

// leaveLocked gives back the place of c, and ends its routine when that has no other client.
func (g *registry) leaveLocked(c *Client) {
	if c.user != "" {
		of := g.byUser[c.user]
		if of.count--; of.count > 0 {
			g.byUser[c.user] = of
		} else {
			delete(g.byUser, c.user)
		}
	}
	r := c.routine
	r.count--
	g.roomy = min(g.roomy, r.id)
	if r.count == 0 {
		g.routines[r.id] = nil
		g.running--
		close(r.stop)
	}
}

// rateLocked takes a token for a registration from the bucket of its address and from the common bucket, or from
// neither: registrations beyond an address's own rate cost the others nothing. A negative rate is no limit.
func (b *Broadcaster) rateLocked(from netip.Addr, now time.Time) *refusal {
	g := &b.clients
	set := &b.set
	limited := from.IsValid() && set.registerRatePerIP >= 0
	key := addressKey(from)
	var own bucket
	if limited {
		own = g.rates.take(key, now, time.Duration(set.registerBurstPerIP)*time.Second/time.Duration(set.registerRatePerIP))
		if !own.fill(now, set.registerRatePerIP, set.registerBurstPerIP) {
			g.rates.put(key, own)
			return &refusal{status: http.StatusTooManyRequests, code: "rate", retry: spread(time.Second, 2*time.Second),
				message: "too many clients register from this address (Broadcaster.RegisterRatePerIP); come back later"}
		}
	}
	if set.registerRate >= 0 {
		if !g.rate.fill(now, set.registerRate, set.registerBurst) {
			return &refusal{status: http.StatusTooManyRequests, code: "rate", retry: spread(time.Second, 2*time.Second),
				message: "too many clients register at this moment (Broadcaster.RegisterRate); come back later"}
		}
		g.rate.tokens--
	}
	if limited {
		own.tokens--
		g.rates.put(key, own)
	}
	return nil
}

// roomyRoutineLocked returns the lowest-numbered routine with room, or a new one under the lowest free number.
func (b *Broadcaster) roomyRoutineLocked() *routine {
	g := &b.clients
	free := -1
	for ; g.roomy < len(g.routines); g.roomy++ {
		r := g.routines[g.roomy]
		if r == nil {
			free = g.roomy
			break
		}
		if r.count < b.set.routineMaxClients {
			return r
		}
	}
	if free < 0 {
		free = len(g.routines)
		g.routines = append(g.routines, nil)
	}
	r := newRoutine(b, free)
	g.routines[free] = r
	g.running++
	b.spawn(r.run) // ends when remove closes r.stop
	return r
}

// remove forgets a client and ends its attach, in one step for its routine: a client that the registry no longer finds
// could otherwise get a message that excepts it. remove reports whether the client was there.
func (b *Broadcaster) remove(c *Client, why *ending) bool {
	r := c.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	if !b.clients.forget(c) {
		return false
	}
	c.removed = true
	if c.err == nil {
		c.err = &EndError{Code: why.refusal.code}
	}
	if c.attach != nil {
		r.endLocked(c.attach, why)
	} else if why != endGone {
		b.countEnd(why)
	}
	r.dropLocked(c)
	c.endAsksLocked(ErrUnknownClient)
	c.closeLocked(why.reason())
	return true
}

// dropLocked takes c out of the routine.
func (r *routine) dropLocked(c *Client) {
	c.queue, c.kept = nil, nil
	c.disappearLocked()
	r.unsubscribeLocked(c.subs)
	c.subs = nil
	at, end := c.slot, len(r.clients)-1
	r.clients[at], r.hot[at] = r.clients[end], r.hot[end]
	r.clients[at].slot, c.slot = at, -1
	r.clients[end], r.hot[end] = nil, hotClient{}
	r.clients, r.hot = r.clients[:end], r.hot[:end]
}

// without1 returns a copy of clients without c.
func without1(clients []*Client, c *Client) []*Client {
	return slices.DeleteFunc(slices.Clone(clients), func(other *Client) bool { return other == c })
}

// expire removes a client that is still unattached.
func (b *Broadcaster) expire(c *Client, now moment) {
	c.routine.mu.Lock()
	back := c.attach != nil || c.removed || c.idleSince > now
	c.removed = c.removed || !back // an attach from here on is too late
	c.routine.mu.Unlock()
	if !back {
		b.remove(c, endExpired)
	}
}

// CleanUp ends the routines with those ids: it removes their clients and tells the attached ones. It ignores unknown
// ids.
func (b *Broadcaster) CleanUp(routines []int) {
	if b.start() != nil {
		return
	}
	for _, c := range b.clients.all(func(c *Client) bool { return slices.Contains(routines, c.routine.id) }) {
		b.remove(c, endRemoved)
	}
}

// Reset removes every client and so ends every routine, as in the 2015 package. The log stays.
func (b *Broadcaster) Reset() {
	if b.start() != nil {
		return
	}
	for _, c := range b.clients.all(func(*Client) bool { return true }) {
		b.remove(c, endRemoved)
	}
}
