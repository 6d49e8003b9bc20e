//go:build unix

package strangers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const socketBuffer = 8 << 10

// smallBuffers is a net.Dialer's or net.ListenConfig's Control.
func smallBuffers(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = errors.Join(
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, socketBuffer),
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, socketBuffer))
	}); e != nil {
		return e
	}
	return err
}

// A link is a connection of a client, with an HTTP/1.1 client on it.
type link struct {
	conn     net.Conn
	br       *bufio.Reader
	pace     func() // is called before each read of the socket: here a slow client takes its time
	got      atomic.Int64
	requests int
	dialed   time.Time
	closed   atomic.Bool // by the client
}

func dial(addr string, pace func()) (*link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	d := net.Dialer{Control: smallBuffers}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &link{conn: conn, pace: pace, dialed: time.Now()}
	l.br = bufio.NewReaderSize(l, 4096)
	return l, nil
}

// Read implements io.Reader for br.
func (l *link) Read(p []byte) (int, error) {
	if l.pace != nil {
		l.pace()
	}
	n, err := l.conn.Read(p)
	l.got.Add(int64(n))
	return n, err
}

func (l *link) close() {
	l.closed.Store(true)
	l.conn.Close()
}

func (l *link) halfClose() { l.conn.(*net.TCPConn).CloseWrite() }

type field struct{ name, value string }

// send writes a request.
func (l *link) send(method, target, host string, fields []field, body []byte) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, host)
	for _, f := range fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.name, f.value)
	}
	if method == "POST" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.Write(body)
	l.requests++
	l.got.Store(0)
	l.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, err := l.conn.Write(b.Bytes())
	return err
}

type head struct {
	status int
	fields textproto.MIMEHeader
}

func (h *head) get(name string) string { return h.fields.Get(name) }

// head reads the head of an answer.
func (l *link) head() (*head, error) {
	r := textproto.NewReader(l.br)
	line, err := r.ReadLine()
	if err != nil {
		return nil, err
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if proto != "HTTP/1.1" || err != nil || len(code) != 3 {
		return nil, &malformed{fmt.Sprintf("%.80q is no status line", line)}
	}
	fields, err := r.ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	return &head{status, fields}, nil
}

// malformed is an error of the bytes, not of the connection.
type malformed struct{ what string }

func (m *malformed) Error() string { return m.what }

// body returns the reader of an answer's body, and whether the connection can be used again after it.
func (l *link) body(h *head) (io.Reader, bool, error) {
	keep := !strings.EqualFold(h.get("Connection"), "close")
	switch te, cl := h.get("Transfer-Encoding"), h.fields["Content-Length"]; {
	case h.status == 204 || h.status == 304 || h.status < 200:
		if te != "" || len(cl) > 0 && cl[0] != "0" {
			return nil, false, &malformed{"a body where there is none"}
		}
		return strings.NewReader(""), keep, nil
	case te != "":
		if !strings.EqualFold(te, "chunked") || len(cl) > 0 {
			return nil, false, &malformed{"Transfer-Encoding " + te}
		}
		return &chunked{l.br, 0, false}, keep, nil
	case len(cl) > 0:
		n, err := strconv.ParseUint(cl[0], 10, 31)
		if err != nil || len(cl) > 1 {
			return nil, false, &malformed{fmt.Sprintf("Content-Length %q", cl)}
		}
		return &exactly{l.br, int64(n)}, keep, nil
	case keep:
		return nil, false, &malformed{"a body without an end"}
	}
	return l.br, false, nil
}

// exactly reads n bytes and fails when there are fewer.
type exactly struct {
	r io.Reader
	n int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.n)])
	e.n -= int64(n)
	if err == io.EOF && e.n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunked reads RFC 9112, section 7.1.
type chunked struct {
	r    *bufio.Reader
	n    int64
	last bool
}

func (c *chunked) Read(p []byte) (int, error) {
	if c.last {
		return 0, io.EOF
	}
	if c.n == 0 {
		line, err := c.line()
		if err != nil {
			return 0, err
		}
		size, _, _ := strings.Cut(line, ";")
		if c.n, err = strconv.ParseInt(size, 16, 32); err != nil || c.n < 0 {
			return 0, &malformed{fmt.Sprintf("%.40q is no size of a chunk", line)}
		}
		if c.n == 0 {
			c.last = true
			for {
				if line, err = c.line(); err != nil {
					return 0, err
				}
				if line == "" {
					return 0, io.EOF
				}
			}
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.n)])
	c.n -= int64(n)
	if err == nil && c.n == 0 {
		var line string
		if line, err = c.line(); err == nil && line != "" {
			err = &malformed{"a chunk that is longer than its size"}
		}
	}
	return n, torn(err)
}

func (c *chunked) line() (string, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", torn(err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

func torn(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// common checks what every answer has: section 4.
func common(h *head, stream bool) []item {
	var wrongs []item
	want := func(name, value string) {
		if h.get(name) != value {
			wrongs = append(wrongs, bad("status %d: %s is %q, not %q", h.status, name, h.get(name), value))
		}
	}
	if stream {
		cc := strings.Split(strings.ReplaceAll(h.get("Cache-Control"), " ", ""), ",")
		for _, token := range []string{"no-store", "no-transform"} {
			if !slices.Contains(cc, token) {
				wrongs = append(wrongs, bad("Cache-Control %q lacks %s", h.get("Cache-Control"), token))
			}
		}
		want("X-Accel-Buffering", "no")
	} else {
		want("Cache-Control", "no-store")
	}
	want("Vary", "Origin, Gpoll-Client-Id")
	want("X-Content-Type-Options", "nosniff")
	want("Referrer-Policy", "no-referrer")
	return wrongs
}

// statuses are those of the codes: section 12.
var statuses = map[string][]int{
	"unknown-client": {404}, "removed": {404}, "superseded": {409}, "unauthorized": {401}, "origin": {403},
	"topic-forbidden": {403}, "bad-client-id": {400}, "bad-position": {400}, "bad-topic": {400},
	"too-many-topics": {400}, "bad-request": {400}, "body-on-get": {400}, "query-too-long": {414}, "too-large": {413},
	"unsupported-media-type": {415}, "method": {405}, "not-websocket": {426, 400}, "rate": {429},
	"too-many-clients": {503, 429}, "shutdown": {503}, "closed": {503}, "internal": {500},
}

// refusal reads an HTTP error: section 12.
func refusal(h *head, body []byte) []item {
	items := common(h, false)
	var e struct {
		Error   string `json:"error"`
		Message string `json:"message"`
		Retry   *int64 `json:"retry_ms"`
	}
	if err := decode(body, &e); err != nil || h.get("Content-Type") != "application/json" {
		return append(items, bad("status %d with body %.60q: %v", h.status, body, err),
			item{kind: ended, at: time.Now(), status: h.status, code: "?"})
	}
	if e.Error != h.get("Gpoll-Error") || e.Error == "" || e.Message == "" {
		items = append(items, bad("status %d: error %q, Gpoll-Error %q, message %q",
			h.status, e.Error, h.get("Gpoll-Error"), e.Message))
	}
	end := item{kind: ended, at: time.Now(), status: h.status, code: e.Error, detail: e.Message}
	if h.status == 429 || h.status == 503 {
		if e.Retry == nil || h.get("Retry-After") == "" {
			items = append(items, bad("status %d without retry_ms or Retry-After", h.status))
		}
	}
	if e.Retry != nil {
		end.hasRetry, end.retry = true, time.Duration(*e.Retry)*time.Millisecond
	}
	if !slices.Contains(statuses[e.Error], h.status) {
		items = append(items, bad("error %q has status %d", e.Error, h.status))
	}
	return append(items, end)
}

// cut is the end of an attach by an error of its connection.
func cut(l *link, err error) item {
	it := item{kind: ended, at: time.Now(), detail: err.Error(),
		untold: l.got.Load() == 0, reused: l.requests > 1, dialed: l.dialed}
	if l.closed.Load() {
		it.kind = left
	}
	var m *malformed
	if errors.As(err, &m) {
		it.kind = wrong
	}
	return it
}
