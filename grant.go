package gpoll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// A Grant is what Authorize gives to the maker of a request.
type Grant struct {
	// User names the user. A client belongs to the user that registered it: to others its id is unknown.
	User string

	// Topics are topics to which the server subscribes the client, beside those that the client names. They may be
	// patterns, such as "team.red.>"; see Broadcaster.Wildcards.
	Topics []string

	// Subscribe says whether a topic that the client names may be read; nil means yes. With Wildcards it is asked about
	// patterns too, as the client spells them: a yes to "sensors.>" is a yes to every topic that it matches.
	Subscribe func(topic string) bool

	// Publish says whether the client may publish to a topic; nil means no.
	Publish func(topic string) bool

	// Presence says whether the client may see who is present in a topic; nil means no.
	Presence func(topic string) bool

	// Info is what others see of the client where they see that it is present: UTF-8 of at most 512 bytes, perhaps JSON.
	Info string

	// Expires is when Authorize is asked again for an attach that is still there. Zero means never.
	Expires time.Time
}

// A grantee is a Grant and the parts of the request with which Authorize is asked again. It does not keep the request:
// that has a context which is cancelled when the handler returns, and holds much memory.
type grantee struct {
	grant  Grant
	method string
	url    *url.URL
	host   string
	remote string
	header http.Header
}

// authorize asks Authorize about r. Without Authorize there is no user and no grantee.
func (b *Broadcaster) authorize(r *http.Request) (*grantee, *refusal) {
	if b.Authorize == nil {
		return nil, nil
	}
	return b.askFor(r)
}

func (b *Broadcaster) askFor(r *http.Request) (*grantee, *refusal) {
	grant, returned, err := b.ask(r)
	if !returned {
		return nil, refuseInternal
	}
	if err != nil {
		return nil, refuseFor(err)
	}
	if err := expired(grant); err != nil {
		return nil, refuseFor(err)
	}
	if !b.checkInfo(&grant) {
		return nil, refuseInternal
	}
	for _, topic := range grant.Topics {
		if !topicname.Valid(topic) && !topicname.ValidPattern(topic) {
			b.tell(slog.LevelError, "gpoll: Authorize gave a bad topic", "topic", clip(topic, 40),
				"rule", topicname.Rule+"; "+topicname.PatternRule)
			return nil, refuseInternal
		}
	}
	kept := http.Header{}
	for _, name := range b.set.authHeaders {
		if values := r.Header.Values(name); len(values) > 0 {
			kept[http.CanonicalHeaderKey(name)] = slices.Clone(values)
		}
	}
	return &grantee{grant: grant, method: r.Method, url: r.URL, host: r.Host, remote: r.RemoteAddr, header: kept}, nil
}

// refuseFor is what a client is told for an error of Authorize.
func refuseFor(err error) *refusal {
	why := *refuseUnauthorized
	switch {
	case errors.Is(err, ErrForbidden):
		why = *refuseForbidden
	case mayPass(err):
		why = refusal{status: http.StatusServiceUnavailable, code: "unavailable", retry: soon(),
			message: "the server cannot tell now who may read; come back after retry_ms with your last position"}
	}
	why.cause = err
	return &why
}

// mayPass reports whether an error of Authorize says nothing about the request, since Authorize could not decide.
func mayPass(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, ErrTryLater) || errors.Is(err, context.DeadlineExceeded)
}

// ask calls Authorize, and reports whether it returned.
func (b *Broadcaster) ask(r *http.Request) (grant Grant, returned bool, err error) {
	returned = b.call("Authorize", func() { grant, err = b.Authorize(r) })
	return grant, returned, err
}

// user returns the user that g names. g may be nil, here and below: no user, who may read everything.
func (g *grantee) user() string {
	if g == nil {
		return ""
	}
	return g.grant.User
}

// given returns the topics of the Grant.
func (g *grantee) given() []string {
	if g == nil {
		return nil
	}
	return g.grant.Topics
}

// mayRead returns nil when the client may read all of these topics, otherwise the refusal. It calls the application.
func (g *grantee) mayRead(b *Broadcaster, named []string) *refusal {
	if g == nil || g.grant.Subscribe == nil {
		return nil
	}
	return b.permits("Grant.Subscribe", g.grant.Subscribe, named, refuseTopic)
}

// permits asks the application's function of that name about each topic. It returns no for the first that may not be.
func (b *Broadcaster) permits(name string, asked func(topic string) bool, topics []string, no *refusal) *refusal {
	for _, topic := range topics {
		may := false
		if !b.call(name, func() { may = asked(topic) }) {
			return refuseInternal
		}
		if !may {
			return no
		}
	}
	return nil
}

var refuseTopic = &refusal{status: http.StatusForbidden, code: "topic-forbidden",
	message: "the server's Grant does not let this user read one of these topics"}

// How long Authorize may be unable to decide about an open attach, and the pause between two attempts.
const (
	reauthorizeFor   = 30 * time.Second
	reauthorizePause = time.Second
)

// reauthorize asks Authorize again for an attach whose Grant has expired. An error ends the attach. After an error that
// may pass, the attach stays and reauthorize tries again for 30 s.
func (a *attach) reauthorize() {
	defer a.rescue()
	b := a.client.routine.b
	g := a.grantee
	giveUp := time.Now().Add(reauthorizeFor)
	for a.ending.Load() == nil {
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		r := (&http.Request{Method: g.method, URL: g.url, Host: g.host, RemoteAddr: g.remote, Header: g.header.Clone(),
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
		grant, returned, err := b.ask(r)
		cancel()
		switch {
		case !returned:
			a.end(endInternal)
			return
		case err == nil:
			if why := a.renew(grant); why != nil {
				a.end(why)
			}
			return
		case !mayPass(err) || time.Now().After(giveUp):
			a.end(b.endingFor(refuseFor(err)))
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

// renew gives the attach a new Grant. When that does not allow what the client reads, renew returns why the attach
// ends.
func (a *attach) renew(grant Grant) *ending {
	b := a.client.routine.b
	if !b.checkInfo(&grant) {
		return endInternal
	}
	again := *a.grantee
	again.grant = grant
	c := a.client
	if grant.User != c.user {
		return endUnauthorized
	}
	if err := expired(grant); err != nil {
		return b.endingFor(refuseFor(err))
	}
	r := c.routine
	r.mu.Lock()
	for {
		named, watched := c.named, a.watchedLocked()
		r.mu.Unlock()
		why := again.mayRead(b, named)
		if why == nil {
			why = again.mayWatch(b, watched)
		}
		if why != nil {
			return b.endingFor(why)
		}
		r.mu.Lock()
		// Otherwise a topic was subscribed, or is watched, meanwhile under the old Grant.
		if slices.Equal(named, c.named) && slices.Equal(watched, a.watchedLocked()) {
			break
		}
	}
	a.grantee, a.expires = &again, b.momentOf(grant.Expires)
	if c.attach == a {
		c.scheduleLocked()
		c.informLocked(&again)
	}
	r.mu.Unlock()
	a.post(operation{}) // the topics that the Grant gives may have changed
	return nil
}

// expired returns an error when the time of a Grant is over: it counts as none.
func expired(grant Grant) error {
	if grant.Expires.IsZero() || time.Now().Before(grant.Expires) {
		return nil
	}
	return fmt.Errorf("the Grant that Authorize gave expired at %v", grant.Expires)
}

// endingFor is how an attach ends that Authorize no longer allows, which the operator is told.
func (b *Broadcaster) endingFor(why *refusal) *ending {
	b.logRefusal(why, nil)
	return refused(why)
}

// Revoke ends every attach of a user with "unauthorized" and forgets the user's clients. It returns how many there
// were. Authorize decides what the user may do from then on.
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
