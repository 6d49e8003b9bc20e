// Command nethttp measures handlers written with net/http alone: one that flushes Server-Sent Events, and one for
// long-polls with a cursor.
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
		mux.HandleFunc("/lp-same", polls.serveSame)
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
	s.serve(w, r, func(h http.Header, at uint64, _ int) {
		h.Set("Cache-Control", "no-store")
		h.Set("Position", strconv.FormatUint(at, 10))
	})
}

// serveSame answers with the head lines that gpoll's answers have.
func (s *polls) serveSame(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, func(h http.Header, at uint64, size int) {
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Vary", "Origin, Gpoll-Client-Id")
		h.Set("Gpoll-Position", "9f86d081884c7d65-"+strconv.FormatUint(at, 10))
		if size > 0 {
			h.Set("Content-Length", strconv.Itoa(size))
		}
	})
}

func (s *polls) serve(w http.ResponseWriter, r *http.Request, head func(h http.Header, at uint64, size int)) {
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
			head(w.Header(), at, len(msg))
			_, _ = w.Write(msg)
			return
		}
		select {
		case <-wait:
		case <-timeout.C:
			head(w.Header(), position, 0)
			w.WriteHeader(http.StatusNoContent)
			return
		case <-r.Context().Done():
			return
		}
	}
}
