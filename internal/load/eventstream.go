package load

import (
	"bytes"
	"errors"
	"fmt"
)

// EventStream listens to Server-Sent Events over HTTP/1.1, chunked or until the connection ends.
type EventStream struct {
	Host    string
	Path    string                 // with its query
	Query   func(c *Client) string // if set, what the path goes on with
	Headers []string

	// Event, if set, is given each data line that is no payload of the run, with the event's name. Without it a client
	// is ready when the head of the answer is there. With it a client is ready when Event has called c.Ready.
	Event func(c *Client, name, data []byte) error

	// Packed says that a data line may hold payloads among other text, as JSON does.
	Packed bool
}

const (
	esHead = iota
	esPlain
	esChunked // between chunks, or in one while Left > 0
	esChunkEnd
)

// Start implements Protocol.
func (s *EventStream) Start(c *Client, dst []byte) []byte {
	c.Phase = esHead
	c.Extra = c.Extra[:0]
	path := s.Path
	if s.Query != nil {
		path += s.Query(c)
	}
	dst = fmt.Appendf(dst, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n", path, s.Host)
	for _, h := range s.Headers {
		dst = append(append(dst, h...), "\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// Closed implements Protocol: a stream is not opened again.
func (s *EventStream) Closed(*Client) bool { return false }

// Receive implements Protocol.
func (s *EventStream) Receive(c *Client, p []byte) (int, error) {
	used := 0
	if c.Phase == esHead {
		end := bytes.Index(p, []byte("\r\n\r\n"))
		if end < 0 {
			return 0, nil
		}
		head := p[:end+2]
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
			return 0, answered(p)
		}
		if v := Header(head, "Content-Type"); !bytes.HasPrefix(v, []byte("text/event-stream")) {
			return 0, fmt.Errorf("the server answered %s, not text/event-stream", v)
		}
		c.Phase, c.Left = esPlain, 0
		if bytes.EqualFold(Header(head, "Transfer-Encoding"), []byte("chunked")) {
			c.Phase = esChunked
		}
		if s.Event == nil {
			c.Ready()
		}
		used = end + 4
	}
	for used < len(p) {
		switch {
		case c.Phase == esPlain:
			return len(p), s.lines(c, p[used:])
		case c.Phase == esChunkEnd:
			if len(p)-used < 2 {
				return used, nil
			}
			if p[used] != '\r' || p[used+1] != '\n' {
				return used, errors.New("torn stream: a chunk does not end where it should")
			}
			used += 2
			c.Phase = esChunked
		case c.Left == 0:
			i := bytes.IndexByte(p[used:], '\n')
			if i < 0 {
				if len(p)-used > 64 {
					return used, errors.New("torn stream: no chunk size")
				}
				return used, nil
			}
			n, ok := chunkSize(p[used : used+i])
			if !ok {
				return used, fmt.Errorf("torn stream: %q is no chunk size", p[used:used+min(i, 40)])
			}
			if n == 0 {
				return used, errors.New("ended by the server")
			}
			used += i + 1
			c.Left = n
		default:
			n := min(c.Left, len(p)-used)
			if err := s.lines(c, p[used:used+n]); err != nil {
				return used, err
			}
			used += n
			if c.Left -= n; c.Left == 0 {
				c.Phase = esChunkEnd
			}
		}
	}
	return used, nil
}

func chunkSize(line []byte) (n int, ok bool) {
	line, _, _ = bytes.Cut(bytes.TrimSuffix(line, []byte("\r")), []byte(";"))
	if len(line) == 0 || len(line) > 7 {
		return 0, false
	}
	for _, b := range line {
		d := hexValue[b|0x20]
		if d > 15 {
			return 0, false
		}
		n = n<<4 | int(d)
	}
	return n, true
}

const maxLine = 1 << 20

// lines takes further bytes of the body and handles each line that they complete.
func (s *EventStream) lines(c *Client, p []byte) error {
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			if len(c.Part)+len(p) > maxLine {
				return errors.New("a line of the stream is too long")
			}
			c.Part = append(c.Part, p...)
			return nil
		}
		line := p[:i]
		if len(c.Part) > 0 {
			c.Part = append(c.Part, line...)
			line = c.Part
		}
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		err := s.line(c, line)
		c.Part = c.Part[:0]
		if err != nil {
			return err
		}
		p = p[i+1:]
	}
}

func (s *EventStream) line(c *Client, line []byte) error {
	if len(line) == 0 {
		c.Extra = c.Extra[:0]
		return nil
	}
	field, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(field) {
	case "event":
		c.Extra = append(c.Extra[:0], value...)
	case "data":
		if s.Packed && Scan(c, value) > 0 || !s.Packed && c.Message(value) {
			return nil
		}
		if s.Event != nil {
			return s.Event(c, c.Extra, value)
		}
		c.Foreign()
	}
	return nil
}
