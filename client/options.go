package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// Options say how a Client connects. The zero Options are right for production. Dial copies them.
type Options struct {
	// HTTPClient makes every request, WebSocket handshakes included. It brings TLS, proxies and cookies. Its Timeout is
	// ignored, because a stream has no end. nil: one of this Client's own, made like http.DefaultClient.
	//
	// A Transport that many Clients share needs a MaxIdleConnsPerHost of their number: a long-poll comes back to its
	// connection all the time.
	HTTPClient *http.Client

	// Header is sent with every request.
	Header http.Header

	// Token returns the token that is sent as "Authorization: Bearer <token>". The Client keeps a token until the server
	// answers "unauthorized". Then it asks once for another; if the server refuses that one too, the Client stops. An
	// error of Token is temporary: the Client waits and asks again. nil: no such header.
	Token func(context.Context) (string, error)

	// Topics are what the Client subscribes to from the beginning. Patterns may be among them, such as "sensors.*", where
	// the server has gpoll.Broadcaster.Wildcards. Messages to everybody, to this client and to its user
	// come whatever the topics.
	Topics []string

	// After is where an earlier Client of the same server stopped, by its Position: messages after it are owed, or a gap.
	// Zero: the Client begins with the messages that come.
	After gpoll.Position

	// Last asks for up to that many recent messages of each of Topics first, 0 to 500. With After it has no effect.
	// Those that a broken connection withholds come again, unless it was a WebSocket that brought none of them.
	Last int

	// Transports are the ways that the Client may use, the best first. nil: WebSocket, SSE, LongPoll.
	Transports []Transport

	// OnRequest answers what the server asks with gpoll.Client.Request. The server gets the reply, or the text of the
	// error. It is called once for each request, in a goroutine of its own, up to 8 at a time. ctx ends with the Client.
	// A panic in it is the program's own. nil: each request is answered with an error.
	OnRequest func(ctx context.Context, data []byte) (reply []byte, err error)

	// Logger hears why attaches end and transports change. It hears no client id and no payload. nil: nobody.
	Logger *slog.Logger

	// OnStatus is called at every change of the Status, one call at a time. The Client waits for it, so it must not take
	// long. It may call every method of the Client but Subscribe and Unsubscribe; a Close in it does not wait.
	OnStatus func(Status)
}

// maxLast is the server's bound.
const maxLast = 500

// check refuses what no server would take.
func (o *Options) check() error {
	if o.Last < 0 || o.Last > maxLast {
		return fmt.Errorf("client: Options.Last is %d; it must be 0 to %d", o.Last, maxLast)
	}
	if err := checkTopics(o.Topics); err != nil {
		return fmt.Errorf("client: Options.Topics: %w", err)
	}
	for i, t := range o.Transports {
		if !slices.Contains(allTransports, t) {
			return fmt.Errorf("client: Options.Transports has %q; choose among %q", t, allTransports)
		}
		if slices.Contains(o.Transports[:i], t) {
			return fmt.Errorf("client: Options.Transports has %q twice", t)
		}
	}
	return nil
}

// checkTopics leaves it to the server whether there are patterns.
func checkTopics(topics []string) error {
	for _, topic := range topics {
		switch {
		case topicname.Valid(topic) || topicname.ValidPattern(topic):
		case topicname.IsPattern(topic):
			return fmt.Errorf("%.80q: %s", topic, topicname.PatternRule)
		default:
			return fmt.Errorf("%.80q: %s", topic, topicname.Rule)
		}
	}
	return nil
}

// mountURL returns the address of the mount as http or https, without a slash at its end.
func mountURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	case "http", "https":
	default:
		return nil, fmt.Errorf("client: %q is no address of a mount: it begins with http:// or https://", address)
	}
	if u.Host == "" {
		return nil, errors.New("client: the address has no host; it looks like https://host/poll")
	}
	u.Path, u.RawPath, u.Fragment = strings.TrimRight(u.Path, "/"), "", ""
	return u, nil
}

// httpClient returns the client that makes the requests, and what frees its connections.
func (o *Options) httpClient() (hc *http.Client, free func()) {
	if o.HTTPClient != nil {
		own := *o.HTTPClient
		own.Timeout = 0
		return &own, func() {}
	}
	shared, ok := http.DefaultTransport.(*http.Transport)
	if !ok { // the program has put something of its own in its place
		return &http.Client{}, func() {}
	}
	own := shared.Clone()
	return &http.Client{Transport: own}, own.CloseIdleConnections
}
