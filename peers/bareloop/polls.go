package main

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// startPolls answers long-polls: a request parks its socket, a message answers all that are parked. There is no cursor, so a publisher
// waits until everybody is parked again.
func startPolls(ln net.Listener) func([]byte) error {
	var mu sync.Mutex
	all := sync.NewCond(&mu)
	var clients int
	var parked []int32

	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		panic(err)
	}
	lfd := listenFD(ln)
	go func() { // ends with the process
		for {
			c, _, err := unix.Accept4(lfd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if err != nil {
				return
			}
			_ = unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			mu.Lock()
			clients++
			mu.Unlock()
			_ = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, c, &unix.EpollEvent{Events: unix.EPOLLIN | 1<<31, Fd: int32(c)})
		}
	}()
	go func() { // ends with the process
		events := make([]unix.EpollEvent, 512)
		buf := make([]byte, 4096)
		for {
			n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
			if errno != 0 || n == 0 {
				m, err := unix.EpollWait(ep, events, -1)
				if err != nil {
					continue
				}
				n = uintptr(m)
			}
			mu.Lock()
			for _, ev := range events[:n] {
				m, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(ev.Fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
				if errno == 0 && m > 0 && bytes.HasSuffix(buf[:m], []byte("\r\n\r\n")) {
					parked = append(parked, ev.Fd)
				}
			}
			if len(parked) == clients {
				all.Signal()
			}
			mu.Unlock()
		}
	}()
	var answer []byte
	return func(p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		for len(parked) < clients {
			all.Wait()
		}
		answer = fmt.Appendf(answer[:0], "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n%s", len(p), p)
		now := parked
		parked = make([]int32, 0, len(now))
		for _, fd := range now {
			write(int(fd), answer)
		}
		return nil
	}
}
