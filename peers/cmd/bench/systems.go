package main

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/corvuscrypto/gpoll/internal/load"
)

// kind is a transport that systems are compared on.
type kind string

const (
	webSocket kind = "ws"
	events    kind = "sse"
	longPoll  kind = "lp"
	inbound   kind = "in" // WebSockets that say something back to back
	trips     kind = "rt" // WebSockets that ask and are answered
)

// upstream says that in a cell of this kind the clients speak.
func (k kind) upstream() bool { return k == inbound || k == trips }

// system is one server that can be measured.
type system struct {
	name   string
	about  string   // for the report
	binary string   // folder of the command in this module; empty: node
	script string   // under node/
	args   []string // of the command
	limit  bool     // a bare loop, which the others are held against
	own    bool     // gpoll

	// outside says that the server runs in a process that the command starts, and is told its processor with -cpu.
	outside bool

	speaks map[kind]func(addr string) (load.Protocol, error)
	v1     bool // what clients say is a command of gpoll.v1, otherwise the payload alone
}

// says is what the system's clients say in a cell.
func (s *system) says(k kind) load.Say {
	switch {
	case s.v1 && k == inbound:
		return load.SaySend
	case s.v1:
		return load.SayRequest
	}
	return load.SayPlain
}

func plainWebSocket(path string) func(string) (load.Protocol, error) {
	return func(addr string) (load.Protocol, error) { return &load.WebSocket{Host: addr, Path: path}, nil }
}

func plainEvents(path string) func(string) (load.Protocol, error) {
	return func(addr string) (load.Protocol, error) { return &load.EventStream{Host: addr, Path: path}, nil }
}

func gpollTransport(name string) func(string) (load.Protocol, error) {
	return func(addr string) (load.Protocol, error) {
		// Its polls begin on fresh connections, as those of the systems without registration do.
		return load.Gpoll{Host: addr, Path: "/poll", Fresh: true}.NewProtocol(name)
	}
}

type protocols = map[kind]func(string) (load.Protocol, error)

// systems lists everything that can be measured, in the order of the report's columns.
func systems() []system {
	return []system{
		{name: "gpoll", about: "gpoll, ordinary http.Server", binary: "gpoll", own: true, speaks: protocols{
			webSocket: gpollTransport("websocket"), events: gpollTransport("sse"), longPoll: gpollTransport("long-poll"),
			inbound: gpollTransport("websocket")}},
		{name: "gpoll-v1", about: "gpoll, subprotocol gpoll.v1, JSON SSE and JSON polls", binary: "gpoll", own: true,
			v1: true, speaks: protocols{
				webSocket: gpollTransport("gpoll.v1"), events: gpollTransport("sse-json"),
				longPoll: gpollTransport("long-poll-json"),
				inbound:  gpollTransport("gpoll.v1"), trips: gpollTransport("gpoll.v1")}},
		{name: "gpoll-listener", about: "gpoll on Broadcaster.Listener", binary: "gpoll",
			args: []string{"-listener"}, own: true, speaks: protocols{longPoll: gpollTransport("long-poll")}},
		{name: "gpoll-listener-v1", about: "gpoll on Broadcaster.Listener, JSON polls", binary: "gpoll",
			args: []string{"-listener"}, own: true, speaks: protocols{longPoll: gpollTransport("long-poll-json")}},
		{name: "bare", about: "write(2) in a loop over the sockets", binary: "bareloop", args: []string{"-kind", "ws"},
			limit: true, speaks: protocols{webSocket: plainWebSocket("/")}},
		{name: "bare", about: "write(2) in a loop over the sockets", binary: "bareloop", args: []string{"-kind", "sse"},
			limit: true, speaks: protocols{events: plainEvents("/")}},
		{name: "bare", about: "parked sockets answered with write(2)", binary: "bareloop",
			args: []string{"-kind", "lp"}, limit: true, speaks: protocols{longPoll: rawPolls}},
		{name: "batch", about: "the loop, what was published during a round in one write", binary: "bareloop",
			args: []string{"-kind", "ws-batch"}, limit: true, speaks: protocols{webSocket: plainWebSocket("/")}},
		{name: "batch", about: "the loop, what was published during a round in one write", binary: "bareloop",
			args: []string{"-kind", "sse-batch"}, limit: true, speaks: protocols{events: plainEvents("/")}},
		{name: "nchan", about: "nginx with Nchan, one worker", binary: "nchan", outside: true, speaks: protocols{
			webSocket: plainWebSocket("/ws"), events: plainEvents("/sse"), longPoll: nchanPolls("/lp")}},
		{name: "nchan-multipart", about: "the same, all that is new in one multipart/mixed answer", binary: "nchan",
			outside: true, speaks: protocols{longPoll: nchanPolls("/lp-multipart")}},
		{name: "centrifuge", about: "centrifugal/centrifuge v0.38.0", binary: "centrifuge",
			speaks: protocols{webSocket: centrifugeSocket}},
		{name: "gws", about: "lxzan/gws v1.8.9, Broadcaster", binary: "gws",
			speaks: protocols{webSocket: plainWebSocket("/ws"), inbound: plainWebSocket("/in"),
				trips: plainWebSocket("/echo")}},
		{name: "gorilla", about: "gorilla/websocket v1.5.3, hub", binary: "gorilla",
			speaks: protocols{webSocket: plainWebSocket("/ws"), inbound: plainWebSocket("/in"),
				trips: plainWebSocket("/echo")}},
		{name: "melody", about: "olahol/melody v1.1.4", binary: "melody",
			speaks: protocols{webSocket: plainWebSocket("/ws")}},
		{name: "coder", about: "coder/websocket v1.8.15, a goroutine per client", binary: "coder",
			speaks: protocols{webSocket: plainWebSocket("/ws"), inbound: plainWebSocket("/in"),
				trips: plainWebSocket("/echo")}},
		{name: "go-sse", about: "tmaxmax/go-sse v0.11.0", binary: "gosse", speaks: protocols{events: plainEvents("/sse")}},
		{name: "net/http", about: "handlers on net/http alone, SSE with Flush, polls with a cursor", binary: "nethttp",
			speaks: protocols{events: plainEvents("/sse"), longPoll: httpPolls("/lp", "Position")}},
		{name: "net/http-same", about: "the polls of net/http with the head lines of gpoll's answers",
			binary: "nethttp", speaks: protocols{longPoll: httpPolls("/lp-same", "Gpoll-Position")}},
		{name: "golongpoll", about: "jcuga/golongpoll v1.3.0", binary: "golongpoll",
			speaks: protocols{longPoll: golongpollPolls}},
		{name: "ws", about: "ws 8.23.0 on Node.js", script: "ws.mjs", speaks: protocols{webSocket: plainWebSocket("/ws")}},
		{name: "socket.io", about: "Socket.IO 4.8.4 on Node.js, its WebSocket transport", script: "socketio.mjs",
			speaks: protocols{webSocket: socketIO}},
	}
}

// centrifugeSocket connects; the server subscribes the client by itself and packs several pushes into one frame.
func centrifugeSocket(addr string) (load.Protocol, error) {
	return &load.WebSocket{Host: addr, Path: "/ws", Packed: true,
		Hello: func(_ *load.Client, dst []byte) []byte { return append(dst, `{"id":1,"connect":{}}`...) },
		Text: func(c *load.Client, msg, dst []byte) ([]byte, error) {
			switch {
			case string(msg) == "{}":
				return append(dst, "{}"...), nil // a ping
			case bytes.Contains(msg, []byte(`"connect":`)):
				c.Ready()
			default:
				return dst, fmt.Errorf("centrifuge answered %.100s", msg)
			}
			return dst, nil
		}}, nil
}

func socketIO(addr string) (load.Protocol, error) {
	return &load.WebSocket{Host: addr, Path: "/socket.io/?EIO=4&transport=websocket", Packed: true,
		Text: func(c *load.Client, msg, dst []byte) ([]byte, error) {
			switch {
			case bytes.HasPrefix(msg, []byte("0{")): // open: connect to the default namespace
				return append(dst, "40"...), nil
			case bytes.HasPrefix(msg, []byte("40")):
				c.Ready()
			case string(msg) == "2": // ping
				return append(dst, '3'), nil
			default:
				return dst, fmt.Errorf("Socket.IO answered %.100s", msg)
			}
			return dst, nil
		}}, nil
}

// polls makes a protocol without registration: request appends what differs between two requests.
func polls(addr, path string, request func(c *load.Client, dst []byte) (query, headers []byte),
	answer func(c *load.Client, head, body []byte) error) load.Protocol {
	return &load.LongPoll{
		ReadyAtOnce: true,
		Request: func(c *load.Client, dst []byte) []byte {
			query, headers := request(c, nil)
			dst = append(append(append(dst, "GET "...), path...), query...)
			dst = append(append(append(dst, " HTTP/1.1\r\nHost: "...), addr...), "\r\n"...)
			return append(append(dst, headers...), "\r\n"...)
		},
		Answer: func(c *load.Client, status int, head, body []byte) error {
			if status != 200 && status != 204 {
				return fmt.Errorf("the server answered %d", status)
			}
			return answer(c, head, body)
		},
	}
}

func rawPolls(addr string) (load.Protocol, error) {
	return polls(addr, "/", func(*load.Client, []byte) ([]byte, []byte) { return nil, nil },
		func(c *load.Client, _, body []byte) error {
			if !c.Message(body) {
				c.Foreign()
			}
			return nil
		}), nil
}

// httpPolls gives back the number that a head line ends with.
func httpPolls(path, cursor string) func(string) (load.Protocol, error) {
	return func(addr string) (load.Protocol, error) {
		return polls(addr, path+"?after=", func(c *load.Client, dst []byte) ([]byte, []byte) {
			if len(c.Cursor) == 0 {
				return append(dst, '0'), nil
			}
			return c.Cursor, nil
		}, func(c *load.Client, head, body []byte) error {
			if len(body) > 0 && !c.Message(body) {
				c.Foreign()
			}
			at := load.Header(head, cursor)
			c.Cursor = append(c.Cursor[:0], at[bytes.LastIndexByte(at, '-')+1:]...)
			return nil
		}), nil
	}
}

// nchanPolls sends back the two headers of Nchan's last answer that are its cursor. An answer is one message, or
// several parts if the path says so.
func nchanPolls(path string) func(string) (load.Protocol, error) {
	return func(addr string) (load.Protocol, error) {
		return polls(addr, path, func(c *load.Client, _ []byte) ([]byte, []byte) { return nil, c.Cursor },
			func(c *load.Client, head, body []byte) error {
				parts := bytes.HasPrefix(load.Header(head, "Content-Type"), []byte("multipart/"))
				if parts && load.Scan(c, body) == 0 || !parts && len(body) > 0 && !c.Message(body) {
					c.Foreign()
				}
				c.Cursor = fmt.Appendf(c.Cursor[:0], "If-Modified-Since: %s\r\nIf-None-Match: %s\r\n",
					load.Header(head, "Last-Modified"), load.Header(head, "Etag"))
				return nil
			}), nil
	}
}

// golongpollPolls gives back time and id of the last event.
func golongpollPolls(addr string) (load.Protocol, error) {
	return polls(addr, "/lp?timeout=110&category=bench",
		func(c *load.Client, _ []byte) ([]byte, []byte) { return c.Cursor, nil },
		func(c *load.Client, _, body []byte) error {
			if load.Scan(c, body) == 0 {
				return nil // a time-out: the same cursor again
			}
			last := body[bytes.LastIndex(body, []byte(`"timestamp":`)):]
			stamp := last[len(`"timestamp":`):]
			stamp = stamp[:bytes.IndexAny(stamp, ",}")]
			if _, err := strconv.ParseInt(string(stamp), 10, 64); err != nil {
				return fmt.Errorf("golongpoll's answer has no timestamp: %w", err)
			}
			_, id, ok := bytes.Cut(last, []byte(`"id":"`))
			if !ok {
				return fmt.Errorf("golongpoll's answer has no id")
			}
			id, _, _ = bytes.Cut(id, []byte(`"`))
			c.Cursor = fmt.Appendf(c.Cursor[:0], "&since_time=%s&last_id=%s", stamp, id)
			return nil
		}), nil
}
