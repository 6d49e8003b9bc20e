package gpoll

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// A Grant is what Authorize gives to the maker of a request.
type Grant struct {
	// User names who it is. A client belongs to the user that registered it: to others its id is unknown.
	User string

	// Topics are subscribed by the server on top of those that the client names.
	Topics []string

	// Subscribe says whether a topic that the client names may be read; nil means yes.
	Subscribe func(topic string) bool

	// Publish says whether the client may publish to a topic; nil means no. It is for messages from clients.
	Publish func(topic string) bool

	// Expires is when Authorize is asked again for an attach that is still there. Zero means never.
	Expires time.Time
}

// A grantee is a Grant with what it takes to ask for it again. The request itself is not kept: its context is
// cancelled when the handler returns, and it holds on to much memory.
type grantee struct {
	grant  Grant
	method string
	url    *url.URL
	host   string
	remote string
	header http.Header
	named  []string // topics that the client named
}

// authorize asks Authorize about r. Without Authorize everybody is nobody in particular, and there is nothing to keep.
func (b *Broadcaster) authorize(r *http.Request) (*grantee, *refusal) {
	if b.Authorize == nil {
		return nil, nil
	}
	grant, err := b.Authorize(r)
	if err != nil {
		b.log.Debug("gpoll: Authorize refused", "err", err)
		return nil, refuseUnauthorized
	}
	kept := http.Header{}
	for _, name := range b.set.authHeaders {
		if values := r.Header.Values(name); len(values) > 0 {
			kept[http.CanonicalHeaderKey(name)] = slices.Clone(values)
		}
	}
	return &grantee{grant: grant, method: r.Method, url: r.URL, host: r.Host, remote: r.RemoteAddr, header: kept}, nil
}

// user returns whom g names. g may be nil.
func (g *grantee) user() string {
	if g == nil {
		return ""
	}
	return g.grant.User
}

// subscription returns the topics that the client gets for those it named, or why it may not have them. g may be nil.
func (g *grantee) subscription(topics []string) ([]string, *refusal) {
	if g == nil {
		return topics, nil
	}
	g.named = topics
	if !g.mayRead(topics) {
		return nil, &refusal{status: http.StatusForbidden, code: "topic-forbidden",
			message: "the server's Grant does not let this user read one of these topics"}
	}
	if len(g.grant.Topics) == 0 {
		return topics, nil
	}
	return sortedSet(append(slices.Clone(topics), g.grant.Topics...)), nil
}

func (g *grantee) mayRead(topics []string) bool {
	if g.grant.Subscribe == nil {
		return true
	}
	for _, topic := range topics {
		if !g.grant.Subscribe(topic) {
			return false
		}
	}
	return true
}

// How long Authorize may fail by time-out for an attach that is there.
const (
	reauthorizeFor   = 30 * time.Second
	reauthorizePause = time.Second
)

// reauthorize asks Authorize again for an attach whose Grant has expired. An error ends the attach; a time-out keeps it and
// is tried again for 30 s.
func (a *attach) reauthorize() {
	b := a.client.routine.b
	g := a.grantee
	giveUp := time.Now().Add(reauthorizeFor)
	for a.ending.Load() == nil {
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		r := (&http.Request{Method: g.method, URL: g.url, Host: g.host, RemoteAddr: g.remote, Header: g.header.Clone(),
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
		grant, err := b.Authorize(r)
		cancel()
		switch {
		case err == nil:
			again := &grantee{grant: grant}
			if grant.User != g.grant.User || !again.mayRead(g.named) {
				a.end(endUnauthorized)
				return
			}
			a.client.routine.mu.Lock()
			a.expires = b.momentOf(grant.Expires)
			a.client.routine.mu.Unlock()
			return
		case !isTimeout(err) || time.Now().After(giveUp):
			b.log.Debug("gpoll: Authorize refused an expired grant", "err", err)
			a.end(endUnauthorized)
			return
		}
		pause := time.NewTimer(reauthorizePause)
		select {
		case <-pause.C:
		case <-b.ctx.Done():
			pause.Stop()
			return
		}
	}
}

func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// end ends the attach, if it is still there.
func (a *attach) end(why *ending) {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.client.attach == a {
		r.endLocked(a, why)
	}
}

// Revoke ends every attach of a user with "unauthorized" and forgets the user's clients. It returns how many there were. What the
// user may do from then on is Authorize's to say.
func (b *Broadcaster) Revoke(user string) int {
	if b.start() != nil || user == "" {
		return 0
	}
	n := 0
	for _, c := range b.clients.ofUser(user) {
		if b.remove(c, endUnauthorized) {
			n++
		}
	}
	return n
}
