package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Gpoll makes the protocols of a gpoll server mounted at Path.
type Gpoll struct {
	Host string
	Path string // of the mount, for example /poll

	// Topics are the topics of the clients: client i subscribes to Topics[i % len(Topics)]. Without topics, clients get
	// only messages to everybody.
	Topics []string

	// Fresh registers on a connection of its own, so that a client's polls begin on one that has carried nothing.
	Fresh bool
}

// NewProtocol returns the protocol of a transport: websocket, gpoll.v1, sse, sse-json, long-poll, long-poll-json.
func (g Gpoll) NewProtocol(transport string) (Protocol, error) {
	switch transport {
	case "websocket":
		return &WebSocket{Host: g.Host, Path: g.Path + "/ws?client-id=0", Query: g.topic, Text: g.registration}, nil
	case "gpoll.v1":
		return &WebSocket{Host: g.Host, Path: g.Path + "/ws", Subprotocol: "gpoll.v1", Hello: g.hello, Text: g.control,
			Packed: true}, nil
	case "sse":
		return &EventStream{Host: g.Host, Path: g.Path + "/events?client-id=0", Query: g.topic, Event: g.event}, nil
	case "sse-json":
		return &EventStream{Host: g.Host, Path: g.Path + "/events?client-id=0&format=json", Query: g.topic,
			Event: g.event, Packed: true}, nil
	case "long-poll":
		return &LongPoll{Request: g.poll("plain"), Answer: g.plainAnswer}, nil
	case "long-poll-json":
		return &LongPoll{Request: g.poll("json"), Answer: g.jsonAnswer}, nil
	}
	return nil, fmt.Errorf("there is no transport %q; there are websocket, gpoll.v1, sse, sse-json, long-poll and "+
		"long-poll-json", transport)
}

// ErrNotGpoll says that a server answered, but not as gpoll does.
var ErrNotGpoll = errors.New("this is not a gpoll server")

func (g Gpoll) topic(c *Client) string {
	if len(g.Topics) == 0 {
		return ""
	}
	return "&topic=" + url.QueryEscape(g.Topics[c.Stream()%len(g.Topics)])
}

// clientID takes the id out of {"client-id":"0$…", …}.
func clientID(msg []byte) ([]byte, bool) {
	_, rest, ok := bytes.Cut(msg, []byte(`"client-id":"`))
	if !ok {
		return nil, false
	}
	id, _, ok := bytes.Cut(rest, []byte(`"`))
	return id, ok && bytes.IndexByte(id, '$') > 0
}

func (g Gpoll) registration(c *Client, msg, dst []byte) ([]byte, error) {
	if c.IsReady() {
		c.Foreign()
		return dst, nil
	}
	if _, ok := clientID(msg); !ok {
		return dst, fmt.Errorf("%w: its first frame was %.60q", ErrNotGpoll, msg)
	}
	c.Ready()
	return dst, nil
}

func (g Gpoll) hello(c *Client, dst []byte) []byte {
	if len(g.Topics) == 0 {
		return append(dst, `{"hello":{"client-id":"0"}}`...)
	}
	return fmt.Appendf(dst, `{"hello":{"client-id":"0","topics":[%q]}}`, g.Topics[c.Stream()%len(g.Topics)])
}

func (g Gpoll) control(c *Client, msg, dst []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(msg, []byte(`{"welcome"`)):
		c.Ready()
	case bytes.HasPrefix(msg, []byte(`{"gap"`)):
		c.Gap()
	case bytes.HasPrefix(msg, []byte(`{"error"`)):
		return dst, fmt.Errorf("the server answered %.200s", msg)
	case bytes.HasPrefix(msg, []byte(`{"position"`)):
	default:
		c.Foreign()
	}
	return dst, nil
}

func (g Gpoll) event(c *Client, name, data []byte) error {
	switch string(name) {
	case "client-id":
		if _, ok := clientID(data); !ok {
			return ErrNotGpoll
		}
		c.Ready()
	case "position": // a heartbeat
	case "gap":
		c.Gap()
	case "end":
		return fmt.Errorf("ended by the server: %s", data)
	default:
		if !c.IsReady() {
			return fmt.Errorf("%w: its first event is no client-id", ErrNotGpoll)
		}
		if bytes.HasPrefix(data, []byte(`{"gap"`)) {
			c.Gap()
			return nil
		}
		c.Foreign()
	}
	return nil
}

// poll makes the requests: a registration, then polls that differ in their cursor only.
func (g Gpoll) poll(format string) func(*Client, []byte) []byte {
	tail := " HTTP/1.1\r\nHost: " + g.Host + "\r\n\r\n"
	extra := ""
	if format == "json" {
		extra = "&format=json"
	}
	return func(c *Client, dst []byte) []byte {
		end := tail
		dst = append(append(dst, "GET "...), g.Path...)
		if len(c.ID) == 0 {
			dst = append(dst, "?client-id=0"...)
			if g.Fresh {
				end = " HTTP/1.1\r\nConnection: close\r\nHost: " + g.Host + "\r\n\r\n"
			}
		} else {
			dst = append(append(dst, "?client-id="...), c.ID...)
		}
		dst = append(append(dst, extra...), g.topic(c)...)
		if len(c.Cursor) > 0 {
			dst = append(append(dst, "&after="...), c.Cursor...)
		}
		return append(dst, end...)
	}
}

func (g Gpoll) register(c *Client, status int, head, body []byte) error {
	id, ok := clientID(body)
	if !ok || status != 200 {
		if status != 200 {
			return answered(append(head[:len(head):len(head)], "\r\n\r\n"...))
		}
		return fmt.Errorf("%w: it answered the registration with %.60q", ErrNotGpoll, body)
	}
	c.ID = append(c.ID[:0], strings.ReplaceAll(string(id), "$", "%24")...)
	c.Ready()
	return nil
}

func (g Gpoll) plainAnswer(c *Client, status int, head, body []byte) error {
	if len(c.ID) == 0 {
		if err := g.register(c, status, head, body); err != nil {
			return err
		}
	} else if status != 200 && status != 204 {
		return answered(append(head[:len(head):len(head)], "\r\n\r\n"...))
	} else {
		if Header(head, "Gpoll-Gap") != nil {
			c.Gap()
		}
		if status == 200 && !c.Message(body) {
			c.Foreign()
		}
	}
	position := Header(head, "Gpoll-Position")
	if position == nil {
		return fmt.Errorf("%w: an answer has no Gpoll-Position", ErrNotGpoll)
	}
	c.Cursor = append(c.Cursor[:0], position...)
	return nil
}

func (g Gpoll) jsonAnswer(c *Client, status int, head, body []byte) error {
	if len(c.ID) == 0 {
		if err := g.register(c, status, head, body); err != nil {
			return err
		}
	} else if status != 200 {
		return answered(append(head[:len(head):len(head)], "\r\n\r\n"...))
	} else {
		for range bytes.Count(body, []byte(`{"gap":`)) {
			c.Gap()
		}
		Scan(c, body)
	}
	_, rest, ok := bytes.Cut(body, []byte(`"position":"`))
	position, _, ok2 := bytes.Cut(rest, []byte(`"`))
	if !ok || !ok2 {
		return fmt.Errorf("%w: an answer has no position", ErrNotGpoll)
	}
	c.Cursor = append(c.Cursor[:0], position...)
	return nil
}
