// Command nethttp measures what one writes with net/http alone: a handler that flushes Server-Sent Events, and a long-poll handler with a cursor.
package main

import (
	"bytes"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
	"github.com/corvuscrypto/gpoll/peers/internal/web"
)

func main() {
	events := &streams{clients: map[chan []byte]struct{}{}}
	polls := &polls{next: 1, wake: make(chan struct{})}
	serve.Main(serve.Peer{Start: func(ln net.Listener) (func([]byte) error, error) {
		mux := http.NewServeMux()
		mux.Handle("/sse", events)
		mux.Handle("/lp", polls)
		web.Serve(ln, "/", mux)
		return func(p []byte) error {
			msg := bytes.Clone(p)
			events.broadcast(msg)
			polls.broadcast(msg)
			return nil
		}, nil
	}})
}

// streams gives each SSE client a buffered channel and drops the client that does not keep up.
type streams struct {
	mu      sync.Mutex
	clients map[chan []byte]struct{}
}

func (s *streams) broadcast(msg []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		select {
		case c <- msg:
		default:
			delete(s.clients, c)
			close(c)
		}
	}
}

func (s *streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if err := rc.Flush(); err != nil {
		return
	}
	c := make(chan []byte, 256)
	s.mu.Lock()
	s.clients[c] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.clients, c)
	}()
	var buf []byte
	for {
		select {
		case msg, ok := <-c:
			if !ok {
				return
			}
			buf = append(append(append(buf[:0], "data: "...), msg...), "\n\n"...)
			if _, err := w.Write(buf); err != nil {
				return
			}
			if err := rc.Flush(); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// polls keeps the newest messages and answers each poll with the first one after its cursor.
type polls struct {
	mu   sync.Mutex
	ring [1024][]byte
	next uint64
	wake chan struct{} // closed by the next message
}

func (s *polls) broadcast(msg []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring[s.next%uint64(len(s.ring))] = msg
	s.next++
	close(s.wake)
	s.wake = make(chan struct{})
}

// after returns the first message after a position that is still there, or what to wait for.
func (s *polls) after(position uint64) (msg []byte, at uint64, wait <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if position+1 >= s.next {
		return nil, position, s.wake
	}
	at = position + 1
	if oldest := s.next - min(s.next-1, uint64(len(s.ring))); at < oldest {
		at = oldest
	}
	return s.ring[at%uint64(len(s.ring))], at, nil
}

func (s *polls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	position, err := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
	if err != nil {
		http.Error(w, "after is no number", http.StatusBadRequest)
		return
	}
	timeout := time.NewTimer(25 * time.Second)
	defer timeout.Stop()
	for {
		msg, at, wait := s.after(position)
		if wait == nil {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("Position", strconv.FormatUint(at, 10))
			_, _ = w.Write(msg)
			return
		}
		select {
		case <-wait:
		case <-timeout.C:
			w.Header().Set("Position", strconv.FormatUint(position, 10))
			w.WriteHeader(http.StatusNoContent)
			return
		case <-r.Context().Done():
			return
		}
	}
}
