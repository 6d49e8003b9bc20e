//go:build linux

package socket

import (
	"net"
	"testing"
)

// A listening is a connection that a Watch waits for.
type listening struct {
	net.Conn
	looks chan bool // whether the peer sends no more
}

func (l *listening) Look(hungUp bool) { l.looks <- hungUp }

func TestWatch(t *testing.T) {
	var w Watch[*listening]
	defer w.Close()
	pairs := newNetwork(t)
	type end struct {
		*listening
		far net.Conn
		at  int32
	}
	add := func() end {
		t.Helper()
		near, far := pairs.pair()
		l := &listening{near, make(chan bool, 8)}
		at, ok := w.Add(l, near, Raw(near))
		if !ok {
			t.Fatal("a socket is not watched")
		}
		return end{l, far, at}
	}
	a, b := add(), add()
	if a.at == b.at {
		t.Errorf("two connections have place %d", a.at)
	}
	for range 3 {
		wrote(t, a.far, "hello")
		if <-a.looks {
			t.Error("what arrives is the end")
		}
	}
	w.Remove(a.listening, Raw(a.Conn), a.at)
	w.Remove(a.listening, Raw(a.Conn), a.at) // which changes nothing
	wrote(t, a.far, "nobody looks")
	c := add()
	if c.at != a.at {
		t.Errorf("place %d is free, and %d is given", a.at, c.at)
	}
	w.Remove(a.listening, Raw(a.Conn), a.at) // it is c's by now
	wrote(t, c.far, "hello")
	if <-c.looks {
		t.Error("what arrives is the end")
	}
	b.far.Close()
	if !<-b.looks {
		t.Error("the end is not told")
	}
	if len(a.looks)+len(b.looks)+len(c.looks) > 0 {
		t.Error("somebody was told more than happened")
	}

	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if _, ok := w.Add(a.listening, near, nil); ok {
		t.Error("a pipe is watched")
	}
	w.Close()
	if _, ok := w.Add(a.listening, a.Conn, Raw(a.Conn)); ok {
		t.Error("a connection is watched after Close")
	}
	w.Remove(c.listening, Raw(c.Conn), c.at)
}
