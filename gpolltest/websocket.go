package gpolltest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/wire"
)

// A socket is a WebSocket of subprotocol gpoll.v1.
type socket struct {
	life
	conn *websocket.Conn
}

// readLimit bounds a frame that a Session accepts: the server's largest message as base64, with room.
const readLimit = 1 << 20

// connect upgrades, with the Session's query if plain.
func (s *Session) connect(l life, protocol ...string) (*websocket.Conn, error) {
	target := s.URL + "/ws"
	if protocol == nil {
		r, err := s.request(l, "/ws", "")
		if err != nil {
			return nil, err
		}
		target = r.URL.String()
	}
	conn, resp, err := websocket.Dial(l, target, s.dialOptions(protocol))
	switch {
	case err == nil:
		conn.SetReadLimit(readLimit)
		context.AfterFunc(l, func() { conn.CloseNow() })
		return conn, nil
	case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		// The body that Dial leaves is the beginning of the answer, and ours are short.
		if body, rerr := io.ReadAll(resp.Body); rerr == nil {
			return nil, refusalOf(resp.StatusCode, body)
		}
	}
	return nil, err
}

type hello struct {
	ClientID string   `json:"client-id"`
	Topics   []string `json:"topics,omitempty"`
	After    string   `json:"after,omitempty"`
}

func (s *Session) dial(ctx context.Context) (attach, answer, error) {
	ws := &socket{life: newLife()}
	stop := context.AfterFunc(ctx, ws.cut)
	defer stop()
	first, err := ws.open(s)
	if err != nil {
		err = ws.cause(err)
		ws.cut()
		return nil, answer{}, err
	}
	return ws, first, nil
}

func (ws *socket) open(s *Session) (answer, error) {
	conn, err := s.connect(ws.life, "gpoll.v1")
	if err != nil {
		return answer{}, err
	}
	ws.conn = conn
	if conn.Subprotocol() != "gpoll.v1" {
		return answer{}, fmt.Errorf("gpolltest: the server chose subprotocol %q", conn.Subprotocol())
	}
	h := hello{ClientID: s.id, Topics: s.wanted}
	if h.ClientID == "" {
		h.ClientID = "0"
	}
	if !s.cursor.IsZero() {
		h.After = s.cursor.String()
	}
	if err := ws.send(ws, map[string]any{"hello": h}); err != nil {
		return answer{}, err
	}
	first, err := ws.next()
	if err == nil && first.clientID == "" {
		err = fmt.Errorf("gpolltest: the first frame is no welcome")
	}
	return first, err
}

func (ws *socket) send(ctx context.Context, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return ws.cause(closing(ws.conn.Write(ctx, websocket.MessageText, b)))
}

// change asks for topics, or for no more of them. The server's answer comes in next.
func (ws *socket) change(ctx context.Context, topics []string, add bool) error {
	if add {
		return ws.send(ctx, map[string][]string{"subscribe": topics})
	}
	return ws.send(ctx, map[string][]string{"unsubscribe": topics})
}

func (ws *socket) next() (answer, error) {
	_, data, err := ws.conn.Read(ws)
	if err != nil {
		return answer{}, ws.cause(closing(err))
	}
	var f wire.Frame
	if err := json.Unmarshal(data, &f); err != nil {
		return answer{}, fmt.Errorf("gpolltest: frame %.200q: %w", data, err)
	}
	got, err := answerOf(&f)
	if e, ok := err.(*ServerError); ok {
		return answer{}, e
	}
	if err != nil {
		err = fmt.Errorf("gpolltest: frame %.200q: %w", data, err)
	}
	return got, err
}

func answerOf(f *wire.Frame) (got answer, err error) {
	position := f.Position
	switch {
	case f.Error != nil:
		return got, &ServerError{Code: f.Error.Code, Message: f.Error.Message}
	case f.Welcome != nil:
		got.clientID, position = f.Welcome.ClientID, f.Welcome.Position
	case f.Subscribed != nil:
		got.subscribed, position = append([]string{}, f.Subscribed.Topics...), f.Subscribed.Position
	case f.Unsubscribed != nil:
		got.unsubscribed, position = append([]string{}, f.Unsubscribed.Topics...), f.Unsubscribed.Position
	case f.ID != "" || f.Gap != nil:
		it, err := itemOf(&f.Element)
		if err != nil {
			return got, err
		}
		got.items = []item{it}
	}
	got.scanned, err = optionalPosition(position)
	return got, err
}

// A plainSocket is a WebSocket without subprotocol.
type plainSocket struct {
	socket
	end error // after the gap that closed it
}

func (s *Session) dialPlain(ctx context.Context) (attach, answer, error) {
	ws := &plainSocket{socket: socket{life: newLife()}}
	stop := context.AfterFunc(ctx, ws.cut)
	defer stop()
	first, err := ws.open(s)
	if err != nil {
		err = ws.cause(err)
		ws.cut()
		return nil, answer{}, err
	}
	return ws, first, nil
}

func (ws *plainSocket) open(s *Session) (got answer, err error) {
	if ws.conn, err = s.connect(ws.life); err != nil {
		return got, err
	}
	_, data, err := ws.conn.Read(ws)
	if err != nil {
		return got, ws.cause(closing(err))
	}
	s.nameTopics(true)
	got.clientID, err = wire.ParseRegistration(data)
	return got, err
}

// next returns one message. A gap closes a plain WebSocket: next returns the gap as an answer of its own, and the next
// call returns the error.
func (ws *plainSocket) next() (answer, error) {
	if ws.end != nil {
		return answer{}, ws.end
	}
	_, data, err := ws.conn.Read(ws)
	if err == nil {
		return answer{items: []item{{message: gpoll.Message{Data: data}, plain: true}}}, nil
	}
	if websocket.CloseStatus(err) == wire.CloseUnknown {
		ws.end = closing(err)
		if g, gerr := parseGap(ws.end.(*ServerError).Message); gerr == nil {
			return answer{items: []item{{gap: g, plain: true}}}, nil
		}
	}
	return answer{}, ws.cause(closing(err))
}

// closing turns the server's close frame into a *ServerError.
func closing(err error) error {
	status := websocket.CloseStatus(err)
	if status == -1 {
		return err
	}
	var reason string
	if ce, ok := errors.AsType[websocket.CloseError](err); ok {
		reason = ce.Reason
	}
	r := wire.ParseClose(int(status), reason)
	return &ServerError{Code: r.Code, Message: r.Message, Status: int(status), Retry: r.Retry}
}
