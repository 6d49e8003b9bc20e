//go:build linux

package serve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/corvuscrypto/gpoll/internal/load"
)

// TakesPosts reports whether the server has an address to which publishers can post.
func (p *Process) TakesPosts() bool { return p.posts != "" }

// PublishBy has n publishers post to the server for d. Each posts its next message when all of e's clients have the one
// before. PublishBy lets everything arrive and returns what the clients saw of it.
func (p *Process) PublishBy(e *load.Engine, n int, d time.Duration) (*load.Tally, error) {
	var publishers sync.WaitGroup
	everywhere := newMark(p.last)
	e.OnDone(everywhere.reach)
	defer e.OnDone(nil)
	end := time.Now().Add(d)
	giveUp := time.AfterFunc(d+quiet, everywhere.giveUp)
	defer giveUp.Stop()
	type result struct {
		last uint64
		err  error
	}
	results := make(chan result, n)
	for range n {
		publishers.Go(func() {
			last, err := p.publisher(everywhere, end)
			results <- result{last, err}
		})
	}
	over := make(chan struct{})
	go func() { // ends with the publishers
		publishers.Wait()
		close(over)
	}()
	err := e.Run(func() bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	})
	everywhere.giveUp()
	<-over
	for range n {
		r := <-results
		p.last = max(p.last, r.last)
		err = errors.Join(err, r.err)
	}
	if err != nil {
		return nil, err
	}
	if _, err := e.Drain(p.last, quiet); err != nil {
		return nil, err
	}
	return e.Take([]uint64{p.last}), nil
}

// publisher posts until end, and returns the number of its last message.
func (p *Process) publisher(everywhere *mark, end time.Time) (last uint64, err error) {
	conn, err := net.Dial("tcp4", p.posts)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(end.Add(2 * quiet)); err != nil {
		return 0, err
	}
	in := bufio.NewReader(conn)
	request := "POST / HTTP/1.1\r\nHost: " + p.posts + "\r\nContent-Length: 0\r\n\r\n"
	for time.Now().Before(end) {
		if _, err := io.WriteString(conn, request); err != nil {
			return last, err
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return last, err
		}
		_, err = fmt.Fscan(res.Body, &last)
		if err = errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusOK {
			return last, fmt.Errorf("a publisher was answered %s: %w", res.Status, err)
		}
		if !everywhere.await(last) {
			return last, errors.New("messages were lost: a publisher waited in vain for all clients to have its message")
		}
	}
	return last, nil
}

// A mark is a number that grows and is waited for.
type mark struct {
	mu     sync.Mutex
	grown  sync.Cond
	at     uint64
	closed bool
}

func newMark(at uint64) *mark {
	m := &mark{at: at}
	m.grown.L = &m.mu
	return m
}

func (m *mark) reach(at uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = max(m.at, at)
	m.grown.Broadcast()
}

func (m *mark) giveUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.grown.Broadcast()
}

// await reports whether the mark reached at before it was given up.
func (m *mark) await(at uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.at < at && !m.closed {
		m.grown.Wait()
	}
	return m.at >= at
}
