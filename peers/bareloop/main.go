// Command bareloop is the limit for all others: it writes each message to every socket with write(2), and does nothing
// else that could be left out.
//
// The kinds ws and sse write in a loop. The kinds ws-batch and sse-batch write all messages that were published during
// a round as one write per client. The kind lp answers parked polls.
package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/corvuscrypto/gpoll/internal/load/serve"
)

func main() {
	var kind string
	flags := func(f *flag.FlagSet) { f.StringVar(&kind, "kind", "ws", "ws, ws-batch, sse, sse-batch or lp") }
	serve.Main(serve.Peer{Flags: flags, Start: func(ln net.Listener) (func([]byte) error, error) {
		switch kind {
		case "ws":
			return startLoop(ln, wsAnswer, wsFrame), nil
		case "sse":
			return startLoop(ln, sseAnswer, sseChunk), nil
		case "ws-batch":
			return startBatch(ln, wsAnswer, wsFrame), nil
		case "sse-batch":
			return startBatch(ln, sseAnswer, sseChunk), nil
		case "lp":
			return startPolls(ln), nil
		}
		return nil, fmt.Errorf("no kind %q", kind)
	}})
}

// wsAnswer accepts every handshake with the value that belongs to the key of RFC 6455's example, which the generator
// sends.
const (
	wsAnswer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	sseAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n" +
		"Transfer-Encoding: chunked\r\n\r\n"
)

func wsFrame(dst, p []byte) []byte {
	if len(p) < 126 {
		dst = append(dst, 0x81, byte(len(p)))
	} else {
		dst = binary.BigEndian.AppendUint16(append(dst, 0x81, 126), uint16(len(p)))
	}
	return append(dst, p...)
}

func sseChunk(dst, p []byte) []byte {
	dst = fmt.Appendf(dst, "%x\r\ndata: ", len("data: ")+len(p)+2)
	return append(append(dst, p...), "\n\n\r\n"...)
}

// sockets are the connections that have been answered, in order of arrival.
type sockets struct {
	mu  sync.Mutex
	fds []int
}

// accept takes connections as plain descriptors: nothing of package net stays with them.
func (s *sockets) accept(ln net.Listener, answer string) {
	fd := listenFD(ln)
	buf := make([]byte, 4096)
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		for n := 0; !bytes.Contains(buf[:n], []byte("\r\n\r\n")); {
			m, err := unix.Read(c, buf[n:])
			if m <= 0 || err != nil {
				break
			}
			n += m
		}
		if _, err := unix.Write(c, []byte(answer)); err != nil {
			_ = unix.Close(c)
			continue
		}
		_ = unix.SetNonblock(c, true)
		s.mu.Lock()
		s.fds = append(s.fds, c)
		s.mu.Unlock()
	}
}

// listenFD is a blocking duplicate of the listener's socket.
func listenFD(ln net.Listener) int {
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		panic(err) // a listener of net has a file
	}
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		panic(err)
	}
	_ = unix.SetNonblock(fd, false)
	return fd
}

// writeAll writes p to every socket and waits for one that is full.
func (s *sockets) writeAll(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range s.fds {
		write(fd, p)
	}
}

func write(fd int, p []byte) {
	for len(p) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch errno {
		case 0:
			p = p[n:]
		case unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		case unix.EINTR:
		default:
			return // the client has gone
		}
	}
}

func startLoop(ln net.Listener, answer string, frame func(dst, p []byte) []byte) func([]byte) error {
	s := &sockets{}
	go s.accept(ln, answer) // ends with the process
	var buf []byte
	return func(p []byte) error {
		buf = frame(buf[:0], p)
		s.writeAll(buf)
		return nil
	}
}

// behind is how many messages a publisher may be ahead of the writing loop, as gpoll's RoutineBufferSize.
const behind = 200

// startBatch has a goroutine of its own write. Messages that are published during a round go out together in the next.
func startBatch(ln net.Listener, answer string, frame func(dst, p []byte) []byte) func([]byte) error {
	s := &sockets{}
	go s.accept(ln, answer) // ends with the process
	var mu sync.Mutex
	var pending []byte
	var count int
	wake := sync.NewCond(&mu)
	room := sync.NewCond(&mu)
	go func() { // ends with the process
		var batch []byte
		for {
			mu.Lock()
			for count == 0 {
				wake.Wait()
			}
			batch, pending, count = pending, batch[:0], 0
			room.Broadcast()
			mu.Unlock()
			s.writeAll(batch)
		}
	}()
	return func(p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		for count >= behind {
			room.Wait()
		}
		pending = frame(pending, p)
		count++
		wake.Signal()
		return nil
	}
}
