package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll/internal/wire"
)

// firstEvent is how long the first event may take. After that time something on the way keeps events back.
const firstEvent = 5 * time.Second

// A stream carries a client by SSE.
type stream struct {
	c    *Client
	a    *attach
	dog  *watchdog
	body io.ReadCloser
}

// byEvents attaches by SSE and returns why the attach ended.
func (c *Client) byEvents(a *attach) error {
	s := &stream{c: c, a: a}
	s.dog = a.watch(&silentError{"no event came", firstEvent})
	defer func() { s.dog.stop() }()
	w, err := a.wish()
	if err != nil {
		return err
	}
	r, err := c.request(a.ctx, "/events", "text/event-stream", w)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return a.cause(err)
	}
	s.body = resp.Body
	defer s.body.Close()
	switch {
	case resp.StatusCode != http.StatusOK:
		return a.cause(refusalOf(resp))
	case !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream"):
		return &strangerError{status: resp.StatusCode, what: "Content-Type " + resp.Header.Get("Content-Type")}
	}
	events := wire.NewEvents(s, mostBytes)
	if err := s.first(events, w); err != nil {
		return a.cause(err)
	}
	c.carry(s, w.change)
	defer c.drop()
	for {
		ev, err := events.Next()
		if err != nil {
			return a.cause(err)
		}
		s.dog.rest()
		if err := s.take(&ev); err != nil {
			return err
		}
		s.dog.alive()
	}
}

// first waits for the event that tells the client's id.
func (s *stream) first(events *wire.Events, w wish) error {
	for {
		ev, err := events.Next()
		switch {
		case err != nil:
			return err
		case ev.Name == "end" && ev.HasData:
			return s.end(ev.Data)
		case ev.Name != "client-id" || !ev.HasData:
			continue
		}
		id, err := wire.ParseRegistration([]byte(ev.Data))
		if err != nil {
			return err
		}
		s.dog.stop()
		s.dog = s.a.watch(s.c.silence(0))
		if err := s.c.scan(ev.ID); err != nil {
			return err
		}
		s.a.open(w, id)
		return nil
	}
}

func (s *stream) take(ev *wire.Event) error {
	switch {
	case !ev.HasData:
		if ev.HasID {
			return s.c.scan(ev.ID)
		}
	case ev.Name == "request":
		var q wire.Answer
		if err := decode("a request", []byte(ev.Data), &q); err != nil {
			return err
		}
		s.c.asked(&q)
	case ev.Name == "position":
		return s.c.scan(ev.ID)
	case ev.Name == "end":
		return s.end(ev.Data)
	case ev.Name == "gap":
		e := wire.Element{Gap: new(wire.Gap)}
		if err := decode("a gap", []byte(ev.Data), e.Gap); err != nil {
			return err
		}
		return s.c.deliver(&e) // which says where the cursor is behind it: the id is not needed
	case ev.Name == "":
		if m, ok := s.c.quick([]byte(ev.Data)); ok {
			return s.c.pass(m)
		}
		var e wire.Element
		if err := decode("a message", []byte(ev.Data), &e); err != nil {
			return err
		}
		return s.c.deliver(&e)
	}
	return nil // or an event of a later version
}

func (s *stream) end(data string) error {
	r, err := wire.ParseRefusal([]byte(data))
	if err != nil {
		return err
	}
	return &EndError{Code: r.Code, Message: r.Message, retry: r.Retry}
}

// Read reads the body, of which every byte is a sign of life.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if n > 0 && !s.a.opened.IsZero() {
		s.dog.alive()
	}
	return n, err
}

// alter ends the stream: the next one names the topics.
func (s *stream) alter(*change) { s.a.end(errAltered) }

// cause returns what ended a, in place of what its connection says of that.
func (a *attach) cause(err error) error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // a stream ends with an event that says so
	}
	return err
}
