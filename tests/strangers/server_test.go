//go:build unix

package strangers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// serverEnv holds the config of a child process. Where it is set, the test binary is the server.
const serverEnv = "GPOLL_STRANGERS_SERVER"

type config struct {
	Addr           string
	Listener       bool
	DisconnectSlow bool
}

// What the server promises to keep, and its times.
const (
	window        = 200
	ageTopic      = "age.a"
	windowAge     = 700 * time.Millisecond
	grantLife     = 2 * time.Second
	clientTTL     = 3 * time.Second
	pollWait      = time.Second
	heartbeat     = 700 * time.Millisecond
	writeTimeout  = 5 * time.Second
	shutdownLimit = 1500 * time.Millisecond
	bufferSize    = 100
)

// ownWindow returns the count of a topic's own window, or 0. "win.3" keeps three messages.
func ownWindow(topic string) int {
	rest, ok := strings.CutPrefix(topic, "win.")
	if !ok {
		return 0
	}
	n, _ := strconv.Atoi(rest)
	return n
}

func userNumber(user string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(user, "u"))
	if err != nil {
		return -1
	}
	return n
}

// granted returns the topics that the server adds for a user.
func granted(user string) []string {
	if userNumber(user)%4 == 1 {
		return []string{"perk"}
	}
	return nil
}

// mayRead is the application's rule; forbid commands add to it.
func mayRead(user, topic string) bool {
	return !strings.HasPrefix(topic, "secret.") || userNumber(user) >= 0 && userNumber(user)%2 == 0
}

type command struct {
	N                   int
	Op                  string // publish, ban, unban, revoke, remove, cleanup, forbid, shutdown
	Topic, User, Client string
	Except              []string
	Routine             int
	Data                []byte
}

type reply struct {
	N    int
	Pos  string
	Err  string
	Addr string
}

// rules is what the application behind Authorize knows.
type rules struct {
	mu     sync.Mutex
	banned map[string]bool
	forbid map[[2]string]bool
}

func (ru *rules) authorize(r *http.Request) (gpoll.Grant, error) {
	user := ""
	if c, err := r.Cookie("user"); err == nil {
		user = c.Value
	}
	if a, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		user = a
	}
	ru.mu.Lock()
	defer ru.mu.Unlock()
	if ru.banned[user] {
		return gpoll.Grant{}, errors.New("banned")
	}
	return gpoll.Grant{
		User:    user,
		Topics:  granted(user),
		Expires: time.Now().Add(grantLife),
		Subscribe: func(topic string) bool {
			ru.mu.Lock()
			defer ru.mu.Unlock()
			return mayRead(user, topic) && !ru.forbid[[2]string{user, topic}]
		},
	}, nil
}

// serve is the child process.
func serve(raw string) error {
	var cfg config
	if err := json.Unmarshal([]byte(raw), &cfg); err != nil {
		return err
	}
	ru := &rules{banned: map[string]bool{}, forbid: map[[2]string]bool{}}
	b := gpoll.NewBroadcaster()
	b.RoutineMaxClients = 40
	b.PollWait, b.Heartbeat = pollWait, heartbeat
	b.PongTimeout, b.WriteTimeout = writeTimeout, writeTimeout
	b.ClientTTL, b.AttachTimeout = clientTTL, clientTTL
	b.ShutdownSpread = shutdownLimit
	b.MaxClientsPerUser = 200
	b.ClientBufferSize = bufferSize
	b.History = gpoll.Limits{Count: window}
	b.TopicLimits = func(topic string) gpoll.Limits {
		if topic == ageTopic {
			return gpoll.Limits{Age: windowAge}
		}
		return gpoll.Limits{Count: ownWindow(topic)}
	}
	b.DisconnectSlow = cfg.DisconnectSlow
	b.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	b.Authorize = ru.authorize
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	var ln net.Listener
	lc := net.ListenConfig{Control: smallBuffers}
	for try := 0; ; try++ { // the port may be held for a moment by the one before
		var err error
		if ln, err = lc.Listen(context.Background(), "tcp", cfg.Addr); err == nil {
			break
		}
		if try == 50 {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	addr := ln.Addr().String()
	if cfg.Listener {
		ln = b.Listener(ln)
	}
	srv := &http.Server{Handler: mux}
	go srv.Serve(ln)

	var out sync.Mutex
	answer := func(r reply) {
		line, _ := json.Marshal(r)
		out.Lock()
		defer out.Unlock()
		os.Stdout.Write(append(line, '\n'))
	}
	answer(reply{Addr: addr})
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil // the parent has gone
		}
		var c command
		if err := json.Unmarshal(line, &c); err != nil {
			return err
		}
		if c.Op == "shutdown" {
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
			defer cancel()
			err := errors.Join(b.Shutdown(ctx), srv.Shutdown(ctx))
			r := reply{N: c.N}
			if err != nil {
				r.Err = err.Error()
			}
			answer(r)
			return nil
		}
		go func() { answer(do(b, ru, c)) }()
	}
}

func do(b *gpoll.Broadcaster, ru *rules, c command) reply {
	r := reply{N: c.N}
	switch c.Op {
	case "publish":
		m := gpoll.Message{Topic: c.Topic, Data: c.Data}
		if c.User != "" {
			m.To = gpoll.ToUser(c.User)
		}
		if c.Client != "" {
			m.To = gpoll.ToClient(gpoll.PublicID(c.Client))
		}
		for _, id := range c.Except {
			m.Except = append(m.Except, gpoll.PublicID(id))
		}
		pos, err := b.Publish(context.Background(), m)
		if err != nil {
			r.Err = err.Error()
		} else {
			r.Pos = pos.String()
		}
	case "ban", "unban", "forbid", "revoke":
		ru.mu.Lock()
		switch c.Op {
		case "unban":
			delete(ru.banned, c.User)
		case "forbid":
			ru.forbid[[2]string{c.User, c.Topic}] = true
		default:
			ru.banned[c.User] = true
		}
		ru.mu.Unlock()
		if c.Op == "revoke" {
			b.Revoke(c.User)
		}
	case "remove":
		b.RemoveClient(c.Client)
	case "cleanup":
		b.CleanUp([]int{c.Routine})
	}
	return r
}

// A server is the parent's hold on the child.
type server struct {
	cmd    *exec.Cmd
	addr   string
	in     *json.Encoder
	errors *bytes.Buffer // what it said on stderr, to be read when it has gone
	gone   chan struct{}

	mu      sync.Mutex
	n       int
	pending map[int]chan reply
	dead    bool
}

func start(cfg config) (*server, error) {
	raw, _ := json.Marshal(cfg)
	s := &server{cmd: exec.Command(os.Args[0]), errors: new(bytes.Buffer), gone: make(chan struct{}),
		pending: map[int]chan reply{}}
	s.cmd.Env = append(os.Environ(), serverEnv+"="+string(raw))
	s.cmd.Stderr = s.errors
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.in = json.NewEncoder(in)
	d := json.NewDecoder(out)
	var hello reply
	if err := d.Decode(&hello); err != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		return nil, fmt.Errorf("the server does not start: %v\n%s", err, s.errors)
	}
	s.addr = hello.Addr
	go func() {
		for {
			var r reply
			if d.Decode(&r) != nil {
				break
			}
			s.mu.Lock()
			ch := s.pending[r.N]
			delete(s.pending, r.N)
			s.mu.Unlock()
			if ch != nil {
				ch <- r
			}
		}
		s.mu.Lock()
		s.dead = true
		for _, ch := range s.pending {
			close(ch)
		}
		s.pending = nil
		s.mu.Unlock()
		s.cmd.Wait()
		close(s.gone)
	}()
	return s, nil
}

var errGone = errors.New("the server has gone")

// call sends a command and waits for its reply. errGone says that it may or may not have been done.
func (s *server) call(c command) (reply, error) {
	ch := make(chan reply, 1)
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		return reply{}, errGone
	}
	s.n++
	c.N = s.n
	s.pending[c.N] = ch
	s.in.Encode(c)
	s.mu.Unlock()
	r, ok := <-ch
	if !ok {
		return r, errGone
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}
