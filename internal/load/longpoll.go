package load

import (
	"bytes"
	"errors"
)

// LongPoll asks, waits for the answer and asks again on the same connection.
type LongPoll struct {
	// Request appends the next request: the first, or the one after an answer.
	Request func(c *Client, dst []byte) []byte

	// Answer is given the status, the head and the body of an answer. It verifies the messages, notes the cursor for
	// the next request, and calls c.Ready as soon as the client's next request is owed everything.
	Answer func(c *Client, status int, head, body []byte) error

	// ReadyAtOnce says that there is no registration: a client is ready when its first poll is sent.
	ReadyAtOnce bool

	scratch []byte
}

// Start implements Protocol.
func (l *LongPoll) Start(c *Client, dst []byte) []byte {
	if l.ReadyAtOnce {
		c.Ready()
	}
	return l.Request(c, dst)
}

// Closed implements Protocol. A server may close a connection between two answers; the client goes on with a new
// connection.
func (l *LongPoll) Closed(*Client) bool { return true }

// Receive implements Protocol.
func (l *LongPoll) Receive(c *Client, p []byte) (int, error) {
	used := 0
	for used < len(p) {
		q := p[used:]
		end := bytes.Index(q, []byte("\r\n\r\n"))
		if end < 0 {
			return used, nil
		}
		head := q[:end+2]
		if len(head) < len("HTTP/1.1 200\r\n") || string(head[:9]) != "HTTP/1.1 " {
			return used, answered(q)
		}
		status := digits(head[9:12])
		size := 0
		if status != 204 && status != 304 {
			if size = digits(Header(head, "Content-Length")); size < 0 {
				n, body, err := chunkedBody(q[end+4:])
				if err != nil {
					return used, err
				}
				if n == 0 {
					return used, nil
				}
				if bytes.EqualFold(Header(head, "Transfer-Encoding"), []byte("chunked")) {
					if err := l.answer(c, status, head, body); err != nil {
						return used, err
					}
					used += end + 4 + n
					continue
				}
				return used, errors.New("an answer has no Content-Length")
			}
		}
		if len(q) < end+4+size {
			return used, nil
		}
		if err := l.answer(c, status, head, q[end+4:end+4+size]); err != nil {
			return used, err
		}
		used += end + 4 + size
	}
	return used, nil
}

func (l *LongPoll) answer(c *Client, status int, head, body []byte) error {
	if err := l.Answer(c, status, head, body); err != nil {
		return err
	}
	if bytes.EqualFold(Header(head, "Connection"), []byte("close")) {
		c.Redial()
		return nil
	}
	l.scratch = l.Request(c, l.scratch[:0])
	c.Send(l.scratch)
	return nil
}

// chunkedBody returns the body of a chunked answer that is all there and the length it takes; 0 if it is not all there.
func chunkedBody(p []byte) (n int, body []byte, err error) {
	for {
		i := bytes.IndexByte(p[n:], '\n')
		if i < 0 {
			return 0, nil, nil
		}
		size, ok := chunkSize(p[n : n+i])
		if !ok {
			return 0, nil, errors.New("an answer has neither Content-Length nor chunks")
		}
		n += i + 1
		if len(p)-n < size+2 {
			return 0, nil, nil
		}
		body = append(body, p[n:n+size]...)
		n += size + 2
		if size == 0 {
			return n, body, nil
		}
	}
}
