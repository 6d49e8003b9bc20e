package stacks

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gin-gonic/gin"

	"github.com/corvuscrypto/gpoll"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	os.Exit(m.Run())
}

// A wire is a protocol below the handlers.
type wire struct {
	name      string
	tls, h2   bool
	webSocket bool
}

var wires = []wire{
	{"http/1.1", false, false, true},
	{"https/1.1", true, false, true},
	{"https/2", true, true, false},
	{"h2c", false, true, false},
}

// TestRouters runs every transport under every router.
func TestRouters(t *testing.T) {
	found := newTable(t, "routers", len(routers))
	for _, r := range routers {
		for _, on := range wires {
			t.Run(r.name+"/"+on.name, func(t *testing.T) {
				t.Parallel()
				cells(t, found, r.name, on, r.mount)
			})
		}
	}
}

// TestMiddleware runs every transport behind every piece of middleware.
func TestMiddleware(t *testing.T) {
	found := newTable(t, "middleware", len(wrappers))
	for _, m := range wrappers {
		for _, on := range wires {
			t.Run(m.name+"/"+on.name, func(t *testing.T) {
				t.Parallel()
				cells(t, found, m.name, on, func(b *gpoll.Broadcaster) http.Handler { return m.wrap(routers[0].mount(b)) })
			})
		}
	}
}

func cells(t *testing.T, found *table, what string, on wire, mount func(*gpoll.Broadcaster) http.Handler) {
	for _, zipped := range []bool{false, true} {
		name := "identity"
		if zipped {
			name = "gzip"
		}
		t.Run(name, func(t *testing.T) {
			s := serve(t, on, mount)
			s.zipped = zipped
			for _, transport := range []struct {
				name string
				run  func(context.Context, *stack) error
			}{{"poll", poll}, {"json", jsonPoll}, {"sse", events}, {"websocket", webSocket}} {
				if transport.name == "websocket" && !on.webSocket {
					continue
				}
				t.Run(transport.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					defer cancel()
					err := transport.run(ctx, s)
					r, refuses := errors.AsType[*refused](err)
					found.note(what, transport.name, refuses)
					if refuses {
						if !strings.Contains(s.logged(), "level=ERROR") {
							t.Errorf("%v, and the log says nothing:\n%s", err, s.logged())
						}
						t.Log("refused:", r)
						return
					}
					if err != nil {
						t.Errorf("%v\nlog: %s", err, s.logged())
					}
				})
			}
			if log := s.logged(); strings.Contains(log, "superfluous") || strings.Contains(log, "panic") {
				t.Errorf("the log: %s", log)
			}
		})
	}
}

// refused is an answer that says in a sentence what to change.
type refused struct {
	Status  int
	Code    string `json:"error"`
	Message string `json:"message"`
}

func (r *refused) Error() string { return fmt.Sprintf("%d %s: %s", r.Status, r.Code, r.Message) }

type stack struct {
	b      *gpoll.Broadcaster
	url    string
	client *http.Client
	zipped bool

	mu  sync.Mutex
	log bytes.Buffer
}

func (s *stack) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *stack) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

func serve(t *testing.T, on wire, mount func(*gpoll.Broadcaster) http.Handler) *stack {
	s := &stack{}
	logger := slog.New(slog.NewTextHandler(s, nil))
	s.b = &gpoll.Broadcaster{Logger: logger, Heartbeat: 500 * time.Millisecond}
	srv := httptest.NewUnstartedServer(mount(s.b))
	srv.Config.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelWarn)
	srv.EnableHTTP2 = on.tls && on.h2
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!on.h2)
	if on.h2 && !on.tls {
		protocols.SetUnencryptedHTTP2(true)
		srv.Config.Protocols = protocols
	}
	transport := &http.Transport{DisableCompression: true}
	if on.tls {
		srv.StartTLS()
		transport.TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		transport.ForceAttemptHTTP2 = on.h2
		if !on.h2 {
			transport.TLSClientConfig.NextProtos = nil
		}
	} else {
		srv.Start()
		if on.h2 {
			transport.Protocols = protocols
		}
	}
	s.url, s.client = srv.URL, &http.Client{Transport: transport}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.b.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		transport.CloseIdleConnections()
		srv.Close()
	})
	return s
}

// get answers the response to a request, with its body as it is without Content-Encoding.
func (s *stack) get(ctx context.Context, path string) (*http.Response, io.Reader, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return nil, nil, err
	}
	if s.zipped {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	body := io.Reader(res.Body)
	if res.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return nil, nil, fmt.Errorf("Content-Encoding: gzip over something else: %w", err)
		}
	}
	if res.StatusCode >= 400 {
		return nil, nil, refusal(res, body)
	}
	return res, body, nil
}

// refusal makes an error of an answer that is one: *refused where it is gpoll's 501.
func refusal(res *http.Response, body io.Reader) error {
	r := &refused{Status: res.StatusCode}
	text, _ := io.ReadAll(body)
	if res.StatusCode == http.StatusNotImplemented && json.Unmarshal(text, r) == nil && r.Code != "" && r.Message != "" {
		return r
	}
	return fmt.Errorf("%s: %s", res.Status, text)
}

func (s *stack) register(ctx context.Context) (id string, err error) {
	res, body, err := s.get(ctx, "/poll?client-id=0")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer struct {
		ID string `json:"client-id"`
	}
	err = json.NewDecoder(body).Decode(&answer)
	return answer.ID, err
}

// said are messages long enough for compression to set in.
var said = []string{"first " + strings.Repeat("0123456789", 300), "second " + strings.Repeat("abcdefghij", 300)}

func poll(ctx context.Context, s *stack) error {
	id, err := s.register(ctx)
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	for i, want := range said {
		if i == 0 {
			s.b.Send(want)
		} else {
			time.AfterFunc(50*time.Millisecond, func() { s.b.Send(want) }) // while the poll waits
		}
		res, body, err := s.get(ctx, "/poll?client-id="+url.QueryEscape(id))
		if err != nil {
			return err
		}
		got, err := io.ReadAll(body)
		res.Body.Close()
		if err != nil || string(got) != want {
			return fmt.Errorf("a poll: %s, %.40q, %v", res.Status, got, err)
		}
	}
	return nil
}

func jsonPoll(ctx context.Context, s *stack) error {
	id, err := s.register(ctx)
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	s.b.Send(said[0])
	s.b.Send(said[1])
	res, body, err := s.get(ctx, "/poll?format=json&client-id="+url.QueryEscape(id))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var batch struct{ Messages []struct{ Data string } }
	if err := json.NewDecoder(body).Decode(&batch); err != nil {
		return err
	}
	if len(batch.Messages) != 2 || batch.Messages[0].Data != said[0] || batch.Messages[1].Data != said[1] {
		return fmt.Errorf("the batch has %d messages", len(batch.Messages))
	}
	return nil
}

func events(ctx context.Context, s *stack) error {
	res, body, err := s.get(ctx, "/poll/events")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	got := 0
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, `data: {"client-id"`):
			s.b.Send(said[0])
			s.b.Send(said[1])
		case line == "data: "+said[min(got, 1)]:
			if got++; got == 2 {
				return nil
			}
		}
	}
	return fmt.Errorf("the stream ended after %d messages: %w", got, cmpErr(lines.Err(), io.EOF))
}

func webSocket(ctx context.Context, s *stack) error {
	h := http.Header{}
	if s.zipped {
		h.Set("Accept-Encoding", "gzip")
	}
	c, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.url, "http")+"/poll/ws",
		&websocket.DialOptions{HTTPClient: s.client, HTTPHeader: h})
	if err != nil {
		if res != nil && res.StatusCode >= 400 {
			return refusal(res, res.Body)
		}
		return err
	}
	defer c.CloseNow()
	if _, _, err := c.Read(ctx); err != nil {
		return fmt.Errorf("the registration: %w", err)
	}
	for _, want := range said {
		s.b.Send(want)
		if _, got, err := c.Read(ctx); err != nil || string(got) != want {
			return fmt.Errorf("%.40q, %v", got, err)
		}
	}
	return c.Close(websocket.StatusNormalClosure, "")
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
