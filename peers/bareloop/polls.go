package main

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollers answer long-polls. A socket is owed every message since its first request, one for each request. If it has
// all, it is parked.
type pollers struct {
	mu      sync.Mutex
	answers [1024][]byte  // the newest, by number
	last    int           // number of the newest
	next    map[int32]int // of each socket, the number of the message that it gets next
	parked  []int32
}

func startPolls(ln net.Listener) func([]byte) error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		panic(err)
	}
	s := &pollers{next: map[int32]int{}}
	go s.accept(listenFD(ln), ep) // ends with the process
	go s.read(ep)                 // ends with the process
	return func(p []byte) error {
		s.publish(p)
		return nil
	}
}

func (s *pollers) accept(listener, epoll int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		s.mu.Lock()
		s.next[int32(fd)] = s.last + 1
		s.mu.Unlock()
		_ = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | 1<<31, Fd: int32(fd)})
	}
}

func (s *pollers) read(epoll int) {
	events := make([]unix.EpollEvent, 512)
	buf := make([]byte, 4096)
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
			uintptr(len(events)), 0, 0, 0)
		if errno != 0 || n == 0 {
			m, err := unix.EpollWait(epoll, events, -1)
			if err != nil {
				continue
			}
			n = uintptr(m)
		}
		s.mu.Lock()
		for _, ev := range events[:n] {
			m, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(ev.Fd), uintptr(unsafe.Pointer(&buf[0])),
				uintptr(len(buf)))
			if errno == 0 && m > 0 && bytes.HasSuffix(buf[:m], []byte("\r\n\r\n")) && !s.answerLocked(ev.Fd) {
				s.parked = append(s.parked, ev.Fd)
			}
		}
		s.mu.Unlock()
		runtime.Gosched() // whoever publishes gets the processor
	}
}

// answerLocked writes the next message that fd is owed, and reports whether there is one.
func (s *pollers) answerLocked(fd int32) bool {
	next := s.next[fd]
	if next > s.last {
		return false
	}
	write(int(fd), s.answers[next%len(s.answers)])
	s.next[fd] = next + 1
	return true
}

func (s *pollers) publish(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	answer := &s.answers[s.last%len(s.answers)]
	*answer = fmt.Appendf((*answer)[:0], "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Cache-Control: no-store\r\nContent-Length: %d\r\n\r\n%s", len(p), p)
	for _, fd := range s.parked {
		s.answerLocked(fd)
	}
	s.parked = s.parked[:0]
}
