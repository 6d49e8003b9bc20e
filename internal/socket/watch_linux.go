package socket

import (
	"net"
	"os"
	"sync"
	"syscall"
)

// A Watch waits for many sockets at once, with one goroutine and an epoll(7) of its own, which begin with the first Add
// and end with Close. A socket costs it 16 bytes, where a goroutine would cost thousands. The zero Watch is ready, and
// its methods may be called concurrently.
type Watch[C Watched] struct {
	mu    sync.Mutex // guards the fields below, but for raw and fd once run has begun
	file  *os.File   // the epoll; nil: none
	raw   syscall.RawConn
	fd    int
	tried bool
	over  bool // Close was called
	conns []place[C]
	free  []int32 // indices in conns
}

// A place is a connection's. An event names its index and its turn: one that was under way when the connection left is
// for nobody.
type place[C Watched] struct {
	conn C
	turn int32
}

// Add begins to tell c what happens on conn, whose socket is raw. Where that cannot be, ok is false. Otherwise the
// Watch keeps c until Remove, which has to know the place. Look may be called before Add has returned.
func (w *Watch[C]) Add(c C, conn net.Conn, raw syscall.RawConn) (at int32, ok bool) {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return 0, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.tried {
		w.tried = true
		w.beginLocked()
	}
	if w.file == nil || w.over {
		return 0, false
	}
	if len(w.free) == 0 {
		w.free = append(w.free, int32(len(w.conns)))
		w.conns = append(w.conns, place[C]{})
	}
	at = w.free[len(w.free)-1]
	p := &w.conns[at]
	const edge = 1 << 31 // EPOLLET, which syscall has with a sign
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | edge, Fd: at, Pad: p.turn}
	var failed error
	err := raw.Control(func(fd uintptr) { failed = syscall.EpollCtl(w.fd, syscall.EPOLL_CTL_ADD, int(fd), &event) })
	if err != nil || failed != nil {
		return 0, false
	}
	w.free = w.free[:len(w.free)-1]
	p.conn = c
	return at, true
}

func (w *Watch[C]) beginLocked() {
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
	go w.run() // ends with Close
}

// Remove ends what Add began, which gave c this place. It does nothing when c has left the place already.
func (w *Watch[C]) Remove(c C, raw syscall.RawConn, at int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &w.conns[at]
	if p.conn != c {
		return
	}
	*p = place[C]{turn: p.turn + 1}
	w.free = append(w.free, at)
	if w.over {
		return
	}
	_ = raw.Control(func(fd uintptr) { // a closed socket has left by itself
		_ = syscall.EpollCtl(w.fd, syscall.EPOLL_CTL_DEL, int(fd), nil)
	})
}

// run tells the connections what has happened to them.
func (w *Watch[C]) run() {
	const ends = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR
	type event struct {
		conn   C
		hungUp bool
	}
	events := make([]syscall.EpollEvent, 128)
	told := make([]event, 0, len(events))
	var none C
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
			if p := w.conns[e.Fd]; p.conn != none && p.turn == e.Pad {
				told = append(told, event{p.conn, e.Events&ends != 0})
			}
		}
		w.mu.Unlock()
		for i := range told {
			told[i].conn.Look(told[i].hungUp)
		}
		clear(told)
		told = told[:0]
	}
}

// Close ends the Watch: it tells nobody anything any more, and Add reports false. It does not wait for the goroutine,
// which ends at once, or with the Look that it is in.
func (w *Watch[C]) Close() {
	w.mu.Lock()
	file := w.file
	w.over = true
	w.mu.Unlock()
	if file != nil {
		_ = file.Close()
	}
}
