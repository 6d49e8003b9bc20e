package gpolltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// A Transport is how a Session attaches, and in which form it asks for messages.
type Transport int

const (
	LongPoll       Transport = iota // polls in JSON form, with after
	LongPollPlain                   // polls in plain form, with after
	SSE                             // Server-Sent Events, data in JSON form
	SSEPlain                        // Server-Sent Events, data in plain form
	WebSocket                       // subprotocol gpoll.v1
	WebSocketPlain                  // no subprotocol: each frame is a message and shows no Position
)

func (t Transport) String() string {
	return [...]string{"long-poll", "long-poll plain", "sse", "sse plain", "websocket", "websocket plain"}[t]
}

// ErrCut is returned by a Receive whose attach was broken with Cut.
var ErrCut = errors.New("gpolltest: the attach was cut")

// A ServerError is the server's answer when it refused a request or ended an attach.
type ServerError struct {
	Code    string // the stable code, "superseded" for example
	Message string
	Status  int           // of HTTP, or the WebSocket's close code; 0 for an error frame that leaves the attach up
	Retry   time.Duration // when to come back; 0: not said
}

func (e *ServerError) Error() string {
	return fmt.Sprintf("gpolltest: the server answered %d %s: %s", e.Status, e.Code, e.Message)
}

// A Session is one client of a gpoll server as an application has it. It keeps its client id, cursor and topics from
// one attach to the next, whatever the transport. It drops repeated messages, and writes what it sees to its Trace.
//
// The exported fields are set before the first Attach. One goroutine uses a Session; only Cut may be called by others.
//
// A Session has no goroutine: it reads only while somebody calls Receive or Await. A Session on which nobody calls them
// is a client that does not read.
type Session struct {
	URL    string       // of the mount, for example http://127.0.0.1:8080/poll
	Client *http.Client // nil: http.DefaultClient. Its Timeout must be 0
	Header http.Header  // sent with every request
	Trace  *Trace       // nil: nothing is recorded
	Topics []string     // the first attach's subscription
	User   string       // who the server's Authorize takes the client for; for the Trace

	id      string
	cursor  gpoll.Position // zero: not known, the server's applies
	wanted  []string       // topics
	named   []string       // topics that the Trace has as subscribed
	unnamed bool           // named is to become wanted at the next Position
	begun   bool
	lastGap gpoll.Gap
	unknown []byte          // payload of the last message, when its Position was not shown
	early   []gpoll.Message // received while waiting for an answer
	repeats int
	sse     bool // the last attach was SSE: the next one sends Last-Event-ID, as a browser would

	mu     sync.Mutex // guards attach
	attach attach
}

// An attach is one connection of a Session, or its series of polls.
type attach interface {
	// next waits for one answer of the server.
	next() (answer, error)
	// cut breaks the connection. Any goroutine may call it, more than once.
	cut()
}

// An answer is what one read brings.
type answer struct {
	clientID     string
	items        []item
	scanned      gpoll.Position // zero: none
	subscribed   []string
	unsubscribed []string
}

// An item is a message or a gap.
type item struct {
	message gpoll.Message
	plain   bool // the transport shows no topic
	gap     *gpoll.Gap
}

// ClientID returns the whole client id, "" before the first Attach and after the server has forgotten it.
func (s *Session) ClientID() string { return s.id }

// PublicID returns the name by which Message.To and Message.Except know the client.
func (s *Session) PublicID() string { return publicID(s.id) }

// Cursor returns the Position up to which the client has received everything it is owed.
func (s *Session) Cursor() gpoll.Position { return s.cursor }

// Repeats returns how many messages came at or before the cursor and were dropped.
func (s *Session) Repeats() int { return s.repeats }

// Attach connects by t, with the cursor and topics of the Session. The first time, and after the server has forgotten
// the id, it registers. It supersedes an attach that is still open. For the polls, Attach only registers.
func (s *Session) Attach(ctx context.Context, t Transport) error {
	old := s.swap(nil)
	if old != nil {
		defer old.cut()
	}
	if !s.begun {
		s.begun = true
		s.wanted = slices.Clone(s.Topics)
	}
	if err := s.placeLast(ctx); err != nil {
		return err
	}
	s.nameTopics(false)
	var a attach
	var first answer
	var err error
	switch t {
	case LongPoll, LongPollPlain:
		a, first, err = s.startPolls(ctx, t == LongPollPlain)
	case SSE, SSEPlain:
		a, first, err = s.openEvents(ctx, t == SSEPlain)
	case WebSocket:
		a, first, err = s.dial(ctx)
	case WebSocketPlain:
		a, first, err = s.dialPlain(ctx)
	default:
		panic("gpolltest: no such Transport")
	}
	if err != nil {
		s.forgetUnknown(err)
		return err
	}
	s.sse = t == SSE || t == SSEPlain
	s.early = append(s.early, s.apply(first)...)
	s.swap(a)
	return nil
}

// Receive waits for one answer of the server and returns its messages without repeats. An answer may have no messages:
// an empty poll, a heartbeat, a gap.
//
// An error ends the attach, except a *ServerError with Status 0. The error is ErrCut after Cut, the cause of ctx, a
// *ServerError, or an error of the network. The Session goes on with the next Attach.
func (s *Session) Receive(ctx context.Context) ([]gpoll.Message, error) {
	if len(s.early) > 0 {
		early := s.early
		s.early = nil
		return early, nil
	}
	got, err := s.next(ctx)
	if err != nil {
		return nil, err
	}
	return s.apply(got), nil
}

// Lose waits for one answer, throws it away and breaks the connection: to the server the answer was sent, to the
// application it never came. The cursor stays.
func (s *Session) Lose(ctx context.Context) error {
	_, err := s.next(ctx)
	s.Cut()
	return err
}

// next reads one answer. It ends with ctx, and with it the attach.
func (s *Session) next(ctx context.Context) (answer, error) {
	s.mu.Lock()
	a := s.attach
	s.mu.Unlock()
	if a == nil {
		return answer{}, ErrCut
	}
	stop := context.AfterFunc(ctx, a.cut)
	got, err := a.next()
	stop()
	if err == nil {
		return got, nil
	}
	if e, ok := errors.AsType[*ServerError](err); ok && e.Status == 0 {
		return answer{}, err
	}
	a.cut()
	s.drop(a)
	if ctx.Err() != nil {
		return answer{}, context.Cause(ctx)
	}
	s.forgetUnknown(err)
	return answer{}, err
}

// Await receives until the cursor has come to p, and drops the messages. If the message at p is not for this client,
// the cursor comes to p with the next heartbeat or poll. WebSocketPlain shows no Positions: there the cursor comes to p
// only with the next message for this client.
func (s *Session) Await(ctx context.Context, p gpoll.Position) error {
	stood, repeats := s.cursor, s.repeats
	for s.cursor.Epoch != p.Epoch || s.cursor.Seq < p.Seq {
		if s.cursor != stood {
			stood, repeats = s.cursor, s.repeats
		}
		if s.repeats > repeats+maxRepeats {
			return fmt.Errorf("gpolltest: on the way to %v the server sends again and again what the cursor %v "+
				"has passed", p, s.cursor)
		}
		_, err := s.Receive(ctx)
		if err == nil {
			err = s.placeLast(ctx)
		}
		if err != nil {
			return fmt.Errorf("at %v on the way to %v: %w", s.cursor, p, err)
		}
	}
	return nil
}

// maxRepeats is how often Await lets the server repeat itself at one cursor.
const maxRepeats = 20

// Cut breaks the attach as a failing network does: the server is not told. Any goroutine may call it.
func (s *Session) Cut() {
	if a := s.swap(nil); a != nil {
		a.cut()
	}
}

// Drained tells the Trace that nothing more comes.
func (s *Session) Drained() {
	if s.Trace != nil {
		s.Trace.Drained()
	}
}

// Subscribe adds topics. On WebSocket they are owed after the answer, for which Subscribe waits. On long-poll they are
// owed from the cursor of the next poll on, and on SSE and a plain WebSocket from the cursor of the next Attach on. The
// Trace knows that place only if the Cursor is not zero, so change no topics after a plain WebSocket that has brought
// nothing.
func (s *Session) Subscribe(ctx context.Context, topics ...string) error {
	return s.change(ctx, topics, true)
}

// Unsubscribe removes topics, when Subscribe would add them.
func (s *Session) Unsubscribe(ctx context.Context, topics ...string) error {
	return s.change(ctx, topics, false)
}

func (s *Session) change(ctx context.Context, topics []string, add bool) error {
	if !s.begun {
		s.begun = true
		s.wanted = slices.Clone(s.Topics)
	}
	s.wanted = slices.DeleteFunc(s.wanted, func(t string) bool { return slices.Contains(topics, t) })
	if add {
		s.wanted = append(s.wanted, topics...)
	}
	s.mu.Lock()
	ws, ok := s.attach.(*socket)
	s.mu.Unlock()
	if !ok {
		return nil
	}
	if err := ws.change(ctx, topics, add); err != nil {
		return err
	}
	for {
		got, err := s.next(ctx)
		if err != nil {
			return err
		}
		s.early = append(s.early, s.apply(got)...)
		if got.subscribed != nil && add || got.unsubscribed != nil && !add {
			return nil
		}
	}
}

// forgetUnknown makes the next Attach register, when the server does not know the id any more.
func (s *Session) forgetUnknown(err error) {
	if e, ok := errors.AsType[*ServerError](err); ok && e.Code == "unknown-client" {
		s.id = ""
	}
}

func (s *Session) record(write func(*Trace)) {
	if s.Trace != nil {
		write(s.Trace)
	}
}

func (s *Session) swap(a attach) (old attach) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, s.attach = s.attach, a
	return old
}

// drop forgets a, unless another attach has taken its place.
func (s *Session) drop(a attach) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attach == a {
		s.attach = nil
	}
}

func (s *Session) httpClient() *http.Client { return cmp.Or(s.Client, http.DefaultClient) }
