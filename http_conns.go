package gpoll

import (
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"sync"
)

// A connIndex finds the connection of a request, where it is one of Listener. net/http tells a handler the LocalAddr of
// its connection: each connection has its own pointer.
type connIndex struct {
	mu     sync.RWMutex
	byAddr map[net.Addr]net.Conn
}

func (s *connIndex) add(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byAddr == nil {
		s.byAddr = map[net.Addr]net.Conn{}
	}
	s.byAddr[c.LocalAddr()] = c
}

func (s *connIndex) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byAddr, c.LocalAddr())
}

// all returns all connections.
func (s *connIndex) all() []net.Conn {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.byAddr))
}

// of returns the connection of r, or nil when it is none of Listener's.
func (s *connIndex) of(r *http.Request) net.Conn {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.byAddr) == 0 {
		return nil
	}
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || reflect.TypeOf(addr).Kind() != reflect.Pointer { // other types may not be comparable
		return nil
	}
	return s.byAddr[addr]
}
