package eventloop

import (
	"bytes"
	"context"

	"github.com/corvuscrypto/gpoll"
)

// A session is a client of gpoll. Its values have it.
type session struct {
	loop   *Loop
	client *gpoll.Client
	to     string // its public id
	id     uint64
	slots  chan struct{}
}

type sessionKey struct{}

// connected is OnConnect.
func (l *Loop) connected(c *gpoll.Client) error {
	s := &session{loop: l, client: c, to: c.PublicID(), slots: make(chan struct{}, unhandled)}
	c.Values().Store(sessionKey{}, s)
	if s.id = l.add(s); s.id == 0 {
		return gpoll.ErrTryLater
	}
	return nil
}

// disconnected is OnClose.
func (l *Loop) disconnected(c *gpoll.Client, _ string) { l.remove(sessionOf(c).id) }

// heard is OnMessage. It waits while too many messages of the client wait for the handler.
func (l *Loop) heard(c *gpoll.Client, m gpoll.Message) {
	s := sessionOf(c)
	select {
	case s.slots <- struct{}{}:
		l.push(event{kind: received, id: s.id, data: bytes.Clone(m.Data), done: s.free})
	case <-l.ended:
	}
}

func sessionOf(c *gpoll.Client) *session {
	s, _ := c.Values().Load(sessionKey{})
	return s.(*session)
}

func (s *session) free() { <-s.slots }

func (s *session) write(message []byte) error {
	_, err := s.loop.b.Publish(context.Background(), gpoll.Message{To: gpoll.ToClient(s.to), Data: message})
	return err
}

func (s *session) close(reason string) {
	s.loop.serving.Go(func() { s.client.Close(reason) }) // which may wait for the client's callbacks
}
