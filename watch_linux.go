package gpoll

import (
	"net"
	"os"
	"sync"
	"syscall"
)

// A watch waits for many kept connections at once, with one goroutine and an epoll(7) of its own: a goroutine for each
// would cost more memory than all the rest of a connection that is kept.
type watch struct {
	mu    sync.Mutex
	file  *os.File // the epoll; nil: none
	raw   syscall.RawConn
	fd    int
	tried bool
	over  bool // close was called
	conns []watched
	free  []int32 // indices in conns
}

// A watched is a place for a connection. An event names its index and its turn: one that was under way when the
// connection left is for nobody.
type watched struct {
	conn *pollConn
	turn int32
}

// add begins to watch a connection, of which c.look is told what happens. It reports false where that cannot be.
func (w *watch) add(c *pollConn) bool {
	switch c.Conn.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.tried {
		w.tried = true
		w.beginLocked()
	}
	if w.file == nil || w.over {
		return false
	}
	if len(w.free) == 0 {
		w.free = append(w.free, int32(len(w.conns)))
		w.conns = append(w.conns, watched{})
	}
	at := w.free[len(w.free)-1]
	place := &w.conns[at]
	const edge = 1 << 31 // EPOLLET, which syscall has with a sign
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | edge, Fd: at, Pad: place.turn}
	var failed error
	err := c.raw.Control(func(fd uintptr) { failed = syscall.EpollCtl(w.fd, syscall.EPOLL_CTL_ADD, int(fd), &event) })
	if err != nil || failed != nil {
		return false
	}
	w.free = w.free[:len(w.free)-1]
	place.conn, c.watched = c, at
	return true
}

func (w *watch) beginLocked() {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return
	}
	_ = syscall.SetNonblock(fd, true) // the runtime waits for it
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return
	}
	w.file, w.raw, w.fd = file, raw, fd
	go w.run() // ends with close
}

// remove ends what add began.
func (w *watch) remove(c *pollConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if place := &w.conns[c.watched]; place.conn == c {
		place.conn = nil
		place.turn++
		w.free = append(w.free, c.watched)
		if w.over {
			return
		}
		_ = c.raw.Control(func(fd uintptr) { // a closed socket has left by itself
			_ = syscall.EpollCtl(w.fd, syscall.EPOLL_CTL_DEL, int(fd), nil)
		})
	}
}

// run tells the connections what has happened to them.
func (w *watch) run() {
	events := make([]syscall.EpollEvent, 128)
	conns := make([]*pollConn, 0, len(events))
	for {
		n := 0
		err := w.raw.Read(func(fd uintptr) bool {
			n, _ = syscall.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		w.mu.Lock()
		for _, e := range events[:n] {
			place := w.conns[e.Fd]
			if place.conn == nil || place.turn != e.Pad {
				continue
			}
			if e.Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
				place.conn.hungUp.Store(true)
			}
			conns = append(conns, place.conn)
		}
		w.mu.Unlock()
		for _, c := range conns {
			c.look()
		}
		conns = emptied(conns)
	}
}

// close ends the watch. The connections that it has are being closed.
func (w *watch) close() {
	w.mu.Lock()
	file := w.file
	w.over = true
	w.mu.Unlock()
	if file != nil {
		_ = file.Close()
	}
}
