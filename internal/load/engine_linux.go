package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Engine drives all its clients from the goroutine that calls its methods; it is not safe for concurrent use.
type Engine struct {
	cfg     Config
	addr    unix.Sockaddr
	family  int
	epoll   int
	events  []unix.EpollEvent
	buf     []byte // what is being parsed
	scratch []byte
	clients []Client
	streams []*stream
	tally   *Tally
	now     int64 // when buf was read
	idle    int   // how many waits in a row ended with nothing
	stepped int64 // when the last step of this Run began

	readyClients int
	dialing      int
	closed       int
	next         int   // first client that was never opened
	redial       []int // clients to open again
	OnProgress   func(ready, clients int)

	onDone   func(uint64)
	lastDone uint64

	up *upstream // nil: the clients only listen
}

// New prepares an engine without opening a connection. It raises the soft limit on descriptors when it must and may;
// ErrDescriptors says that it may not.
func New(cfg Config) (*Engine, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	addr, err := net.ResolveTCPAddr("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if err := RaiseDescriptors(cfg.Clients + 64); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, events: make([]unix.EpollEvent, 512), buf: make([]byte, 512<<10), tally: newTally()}
	if ip4 := addr.IP.To4(); ip4 != nil || len(addr.IP) == 0 {
		e.family = unix.AF_INET
		sa := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte{127, 0, 0, 1}}
		if ip4 != nil {
			copy(sa.Addr[:], ip4)
		}
		e.addr = sa
	} else {
		e.family = unix.AF_INET6
		sa := &unix.SockaddrInet6{Port: addr.Port}
		copy(sa.Addr[:], addr.IP)
		e.addr = sa
	}
	if e.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	for i := range cfg.Streams {
		run := cfg.Run + uint32(i)
		e.streams = append(e.streams, &stream{mark: appendMark(nil, run), run: run, base: 1})
	}
	e.clients = make([]Client, cfg.Clients)
	for i := range e.clients {
		c := &e.clients[i]
		c.engine, c.Index, c.index, c.fd = e, i, int32(i), -1
		c.stream = e.streams[i%cfg.Streams]
		c.stream.clients++
		c.sequence.next = 1
	}
	return e, nil
}

// Close ends every connection at once. It may be called again.
func (e *Engine) Close() {
	for i := range e.clients {
		if c := &e.clients[i]; c.fd >= 0 {
			c.hangUp()
		}
	}
	if e.epoll >= 0 {
		_ = unix.Close(e.epoll) // nothing is in it any more
		e.epoll = -1
	}
}

// hangUp resets the connection, so that no local port is held in TIME_WAIT.
func (c *Client) hangUp() {
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(c.fd)
	c.fd = -1
}

// Connect opens all connections and returns when each is ready. If timeout passes after the last one became ready, it
// returns a wrapped ErrStalled that says how many were not.
func (e *Engine) Connect(ctx context.Context, timeout time.Duration) error {
	last, seen := time.Now(), 0
	for e.readyClients < len(e.clients) {
		for e.dialing < e.cfg.Pending && e.next < len(e.clients) {
			if err := e.dial(&e.clients[e.next]); err != nil {
				return err
			}
			e.next++
		}
		if err := e.step(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if e.closed > 0 {
			return fmt.Errorf("load: %d of %d clients were refused: %s", e.closed, len(e.clients), e.worstReason())
		}
		if e.readyClients > seen {
			last, seen = time.Now(), e.readyClients
			if e.OnProgress != nil {
				e.OnProgress(seen, len(e.clients))
			}
		} else if time.Since(last) > timeout {
			return fmt.Errorf("%w: %d of %d clients got ready", ErrStalled, seen, len(e.clients))
		}
	}
	return nil
}

func (e *Engine) worstReason() string {
	var worst string
	for reason, n := range e.tally.Reasons {
		if n > e.tally.Reasons[worst] || worst == "" {
			worst = reason
		}
	}
	return worst
}

// Run lets messages arrive until done, asked at least every 10 ms and between any two rounds of reading, returns true.
func (e *Engine) Run(done func() bool) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e.stepped = 0
	for !done() {
		if err := e.step(); err != nil {
			return err
		}
	}
	return nil
}

// Drain lets messages arrive until every open client is past message last of every stream, or nothing has arrived for
// quiet. It reports whether all clients got there.
func (e *Engine) Drain(last uint64, quiet time.Duration) (bool, error) {
	return e.DrainEach(slices.Repeat([]uint64{last}, len(e.streams)), quiet)
}

// DrainEach is Drain with a last message for each stream.
func (e *Engine) DrainEach(last []uint64, quiet time.Duration) (bool, error) {
	e.idle = 0
	stalled := false
	err := e.Run(func() bool {
		all := true
		for i, s := range e.streams {
			all = all && (s.base > last[i] || s.clients == 0)
		}
		if all {
			return true
		}
		// Counted in empty waits, not by the clock: when the machine gives this process no time, messages lie in the sockets.
		stalled = time.Duration(e.idle)*waitTime >= quiet
		return stalled
	})
	return !stalled, err
}

// OnDone has f called with the highest number up to which every client of the first stream has every message,
// whenever it rises.
func (e *Engine) OnDone(f func(seq uint64)) { e.onDone, e.lastDone = f, e.streams[0].base-1 }

// Snapshot is what has been seen since the last Take. It is the engine's own: valid until the next call of a method.
func (e *Engine) Snapshot() *Tally { return e.tally }

// Take returns what was seen since the last Take and begins anew. It counts messages up to last that are missing in a
// stream as lost, and no longer expects them. If last is nil, no message is missing yet.
func (e *Engine) Take(last []uint64) *Tally {
	if last != nil {
		for i := range e.clients {
			c := &e.clients[i]
			if end := last[i%len(e.streams)]; c.next <= end {
				e.tally.Lost += end - c.next + 1
				if c.state != stateClosed {
					c.stream.passed(c.next, end)
				}
				c.next = end + 1
			}
		}
	}
	t := e.tally
	t.Closed = e.closed
	e.tally = newTally()
	return t
}

func (e *Engine) dial(c *Client) error {
	fd, err := unix.Socket(e.family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return fmt.Errorf("%w: none left after %d connections", ErrDescriptors, c.Index)
		}
		return fmt.Errorf("load: socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	err = unix.Connect(fd, e.addr)
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return fmt.Errorf("load: connect to %s: %w", e.cfg.Addr, err)
	}
	c.fd, c.state, c.Phase, c.Left = fd, stateDialing, 0, 0
	c.rest, c.out, c.Part = c.rest[:0], c.out[:0], c.Part[:0]
	e.dialing++
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | epollET, Fd: c.index}
	if err := unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("load: epoll: %w", err)
	}
	return nil
}

const epollET = 1 << 31 // unix.EPOLLET is negative on some systems

// waitTime is how long step waits for something to arrive.
const waitTime = 10 * time.Millisecond

// step handles one batch of events, waiting for the first up to waitTime.
func (e *Engine) step() error { return e.stepFor(true) }

// stepFor is step, or does not wait.
func (e *Engine) stepFor(waits bool) error {
	for len(e.redial) > 0 {
		c := &e.clients[e.redial[0]]
		e.redial = e.redial[1:]
		if err := e.dial(c); err != nil {
			return err
		}
	}
	now := Now()
	if e.stepped != 0 {
		e.tally.Pause = max(e.tally.Pause, time.Duration(now-e.stepped)-waitTime)
	}
	e.stepped = now
	// Tried first without telling the scheduler: under load there is always something.
	n, errno := epollPoll(e.epoll, e.events)
	if errno != 0 && errno != unix.EINTR {
		return fmt.Errorf("load: epoll: %w", errno)
	}
	if n == 0 && waits {
		var err error
		if n, err = unix.EpollWait(e.epoll, e.events, int(waitTime/time.Millisecond)); err != nil &&
			!errors.Is(err, unix.EINTR) {
			return fmt.Errorf("load: epoll: %w", err)
		}
		if n == 0 && err == nil {
			e.idle++
		}
	}
	if n > 0 {
		e.idle = 0
	}
	for i := range max(n, 0) {
		e.handle(&e.clients[e.events[i].Fd], e.events[i].Events)
	}
	if e.onDone != nil {
		if done := e.streams[0].base - 1; done > e.lastDone {
			e.lastDone = done
			e.onDone(done)
		}
	}
	return nil
}

func (e *Engine) handle(c *Client, events uint32) {
	if c.fd < 0 {
		return
	}
	if c.state == stateDialing {
		if n, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || n != 0 {
			e.fail(c, "connect: "+syscall.Errno(n).Error())
			return
		}
		if events&unix.EPOLLOUT == 0 {
			return
		}
		c.state = stateOpen
		e.dialing--
		e.scratch = e.cfg.Protocol.Start(c, e.scratch[:0])
		c.Send(e.scratch)
	}
	if len(c.out) > 0 && events&unix.EPOLLOUT != 0 {
		if c.flush(); e.up != nil && len(c.out) == 0 {
			e.up.ready = append(e.up.ready, c)
		}
	}
	if c.fd >= 0 && events&^unix.EPOLLOUT != 0 {
		e.read(c, events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
	}
}

// read takes what has arrived. ending says that the end of the stream is behind it, which is not announced again.
func (e *Engine) read(c *Client, ending bool) {
	for {
		have := copy(e.buf, c.rest)
		if have == len(e.buf) {
			e.fail(c, "an answer of the server is larger than the generator's buffer")
			return
		}
		n, errno := rawRead(c.fd, e.buf[have:])
		switch {
		case errno == unix.EAGAIN:
			return
		case errno == unix.EINTR:
			continue
		case errno != 0:
			e.fail(c, errno.Error())
			return
		case n == 0:
			if have == 0 && e.cfg.Protocol.Closed(c) {
				e.dialAgain(c)
				return
			}
			e.fail(c, "closed by the server")
			return
		}
		e.now = Now()
		p := e.buf[:have+n]
		used, err := e.cfg.Protocol.Receive(c, p)
		if err != nil {
			e.fail(c, err.Error())
			return
		}
		if c.again {
			e.dialAgain(c)
			return
		}
		c.rest = append(c.rest[:0], p[used:]...)
		if have+n < len(e.buf) && !ending {
			return // a short read leaves nothing behind
		}
	}
}

// dialAgain closes the connection of a client that goes on with a new one.
func (e *Engine) dialAgain(c *Client) {
	c.hangUp()
	c.state, c.again = stateNew, false
	e.tally.Redials++
	e.redial = append(e.redial, c.Index)
}

// fail ends the client for good.
// retryHint is what gpoll adds to why it ended a connection: another number for each client.
var retryHint = regexp.MustCompile(`[,;]"?retry_ms"?[:=]\d+`)

func (e *Engine) fail(c *Client, reason string) {
	if c.state == stateDialing {
		e.dialing--
	}
	c.hangUp()
	c.state = stateClosed
	e.closed++
	e.tally.Reasons[retryHint.ReplaceAllString(reason, "")]++
	c.stream.leave(c.next)
}

// Send writes p. If the socket does not take all of it, Send keeps the rest and writes it when the socket has room.
func (c *Client) Send(p []byte) {
	if len(c.out) > 0 {
		c.out = append(c.out, p...)
		return
	}
	n, errno := rawWrite(c.fd, p)
	if errno != 0 && errno != unix.EAGAIN {
		return // reading tells why
	}
	if n < len(p) {
		c.out = append(c.out, p[max(n, 0):]...)
	}
}

func (c *Client) flush() {
	p := c.out
	c.out = nil
	c.Send(p)
}

// The calls below never block, so the scheduler need not know of them. This halves their cost in user space.

func rawRead(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)))
	return int(n), errno
}

func rawWrite(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)))
	return int(n), errno
}

func epollPoll(epoll int, events []unix.EpollEvent) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	return int(n), errno
}

// RaiseDescriptors makes sure that this process may open n files, raising the soft limit up to the hard one.
func RaiseDescriptors(n int) error {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if lim.Cur >= uint64(n) {
		return nil
	}
	if lim.Max < uint64(n) {
		return fmt.Errorf("%w: %d are needed and the hard limit is %d; raise it (ulimit -Hn) or ask for fewer clients",
			ErrDescriptors, n, lim.Max)
	}
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("%w: %d are needed and the soft limit could not be raised: %v", ErrDescriptors, n, err)
	}
	return nil
}
