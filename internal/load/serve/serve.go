//go:build linux

// Package serve is what the measured servers have in common. They listen on a port of the loopback and say so on
// standard output. Then they follow the commands on standard input: publish at a pace, publish back to back, report the
// cost. [Process] is the other end.
package serve

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/corvuscrypto/gpoll/internal/load"
)

// Peer is one server under measurement.
type Peer struct {
	// Start begins to serve on ln, which it owns, and returns a function that publishes one message to all clients. The
	// bytes given to publish are valid during the call only.
	Start func(ln net.Listener) (publish func([]byte) error, err error)

	// Stats, if set, replaces the figures of this process, for a server that runs in a process of its own.
	Stats func(gc bool) (Stats, error)

	// Heard, if set, is how many messages of clients have reached the handler.
	Heard func() uint64

	// Stop, if set, is called at the end.
	Stop func()

	// Flags, if set, adds flags of the server's own, before they are parsed.
	Flags func(*flag.FlagSet)
}

// Stats is what a server has cost since it began.
type Stats struct {
	CPU time.Duration `json:"cpu_ns"` // user and system time
	RSS int64         `json:"rss"`    // resident bytes

	At    int64  `json:"at,omitempty"`    // when that was, by load.Now
	Heard uint64 `json:"heard,omitempty"` // messages of clients
}

// Command is one line of standard input.
type Command struct {
	Do    string        `json:"do"` // paced, saturated, stats, gc, profile
	Count int           `json:"count,omitempty"`
	Every time.Duration `json:"every_ns,omitempty"`
	For   time.Duration `json:"for_ns,omitempty"`
	// Window is how many messages the publisher may be ahead of the slowest client. 0 leaves that to the server.
	Window  uint64 `json:"window,omitempty"`
	Greedy  bool   `json:"greedy,omitempty"` // never give way between two messages
	Timed   bool   `json:"timed,omitempty"`  // reply with Sends
	Profile string `json:"profile,omitempty"`
}

// Reply is one line of standard output.
type Reply struct {
	Addr  string `json:"addr,omitempty"`
	Posts string `json:"posts,omitempty"` // where a POST publishes the next message and is answered its number
	First uint64 `json:"first,omitempty"` // numbers of the messages published
	Last  uint64 `json:"last,omitempty"`
	Stats
	Sends []time.Duration `json:"sends_ns,omitempty"` // how long each message took to publish
	Error string          `json:"error,omitempty"`
}

// AckFD is the descriptor from which a server reads 8 bytes, little-endian, whenever all clients have every message up
// to that number.
const AckFD = 3

// Main serves until standard input ends. It parses the flags and is the program's main function.
func Main(p Peer) {
	os.Exit(Run(p, os.Args[0], os.Args[1:]))
}

// Run is Main for a program that has other things to do too. It returns the exit code.
func Run(p Peer, name string, args []string) int {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	c := &control{peer: p, out: json.NewEncoder(os.Stdout)}
	flags.IntVar(&c.size, "size", 128, "`bytes` of a message")
	flags.UintVar(&c.run, "run", 1, "`number` that marks the messages")
	flags.StringVar(&c.addr, "addr", "127.0.0.1:0", "`address` to listen on")
	if p.Flags != nil {
		p.Flags(flags)
	}
	if err := flags.Parse(args); err != nil {
		return 2
	}
	log.SetOutput(io.Discard) // what a library says of connections that are reset is no part of the measurement
	if err := load.RaiseDescriptors(20000); err != nil {
		_ = load.RaiseDescriptors(11000) // a short run needs fewer; accept tells when it does not
	}
	c.acked = sync.NewCond(&c.mu)
	if err := c.serve(); err != nil {
		_ = c.out.Encode(Reply{Error: err.Error()})
		return 1
	}
	return 0
}

type control struct {
	peer    Peer
	size    int
	run     uint
	addr    string
	out     *json.Encoder
	publish func([]byte) error

	sending sync.Mutex // guards the fields below, so that numbers are in the order of publishing
	seq     uint64
	buf     []byte

	mu    sync.Mutex
	acked *sync.Cond
	done  uint64 // guarded by mu
}

func (c *control) serve() error {
	ln, err := net.Listen("tcp4", c.addr)
	if err != nil {
		return err
	}
	addr := ln.Addr().String()
	if c.publish, err = c.peer.Start(ln); err != nil {
		return err
	}
	if c.peer.Stop != nil {
		defer c.peer.Stop()
	}
	go c.readAcks() // ends with the process
	posts, err := c.takePosts()
	if err != nil {
		return err
	}
	if err := c.out.Encode(Reply{Addr: addr, Posts: posts}); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var cmd Command
		if err := json.Unmarshal(in.Bytes(), &cmd); err != nil {
			return err
		}
		reply, err := c.do(cmd)
		if err != nil {
			reply.Error = err.Error()
		}
		if err := c.out.Encode(reply); err != nil {
			return err
		}
	}
	return in.Err()
}

func (c *control) do(cmd Command) (Reply, error) {
	switch cmd.Do {
	case "paced":
		return c.paced(cmd)
	case "saturated":
		return c.saturated(cmd)
	case "profile":
		stop, err := profile(cmd.Profile)
		if err == nil {
			time.AfterFunc(cmd.For, stop)
		}
		return Reply{}, err
	case "stats", "gc":
		stats := ownStats
		if c.peer.Stats != nil {
			stats = c.peer.Stats
		}
		s, err := stats(cmd.Do == "gc")
		if s.At = load.Now(); c.peer.Heard != nil {
			s.Heard = c.peer.Heard()
		}
		return Reply{Stats: s}, err
	}
	return Reply{}, fmt.Errorf("no command %q", cmd.Do)
}

// takePosts lets publishers come over HTTP, as they do to an application's own handlers, and returns where.
func (c *control) takePosts() (addr string, err error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		seq, err := c.sendNow()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprint(w, seq) // a publisher that has gone needs no answer
	})
	go func() { _ = http.Serve(ln, h) }() // ends with the process
	return ln.Addr().String(), nil
}

// sendNow publishes the next message and returns its number.
func (c *control) sendNow() (seq uint64, err error) {
	c.sending.Lock()
	defer c.sending.Unlock()
	err = c.sendLocked(load.Now())
	return c.seq, err
}

// send publishes the next message as one that was due at stamp.
func (c *control) send(stamp int64) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.sendLocked(stamp)
}

func (c *control) sendLocked(stamp int64) error {
	c.seq++
	c.buf = load.Payload(c.buf[:0], uint32(c.run), c.seq, stamp, c.size)
	return c.publish(c.buf)
}

// overtime is how long after its end paced publishes messages that are late.
const overtime = 100 * time.Millisecond

// paced publishes at a pace. If it is late, it catches up, and the latency of a message counts from the moment at which
// it was due. If it cannot publish all messages in time, Last says so.
func (c *control) paced(cmd Command) (Reply, error) {
	r := Reply{First: c.seq + 1, Last: c.seq}
	stop, err := profile(cmd.Profile)
	if err != nil {
		return r, err
	}
	defer stop()
	began, stamp := time.Now(), load.Now()
	end := time.Duration(cmd.Count)*cmd.Every + overtime
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := range cmd.Count {
		due := time.Duration(i+1) * cmd.Every
		timer.Reset(time.Until(began.Add(due)))
		<-timer.C
		if time.Since(began) > end {
			break
		}
		err := c.send(stamp + int64(due))
		r.Last = c.seq
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// saturated publishes back to back. After each message the publisher gives way, as a request handler that publishes
// does by ending. A greedy publisher does not give way: with one processor, nothing else runs then until the publisher
// waits for something or the scheduler's 10 ms are over.
func (c *control) saturated(cmd Command) (Reply, error) {
	r := Reply{First: c.seq + 1}
	stop, err := profile(cmd.Profile)
	if err != nil {
		return r, err
	}
	defer stop()
	end := time.Now().Add(cmd.For)
	for time.Now().Before(end) {
		if cmd.Window > 0 && !c.wait(cmd.Window, end.Add(5*time.Second)) {
			return r, errors.New("messages were lost: the window never opened again")
		}
		began := load.Now()
		err := c.send(began)
		if cmd.Timed {
			r.Sends = append(r.Sends, time.Duration(load.Now()-began))
		}
		r.Last = c.seq
		if err != nil {
			return r, err
		}
		if !cmd.Greedy {
			runtime.Gosched()
		}
	}
	return r, nil
}

// profile writes a CPU profile to path until stop is called. No path is no profile.
func profile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

// wait blocks until fewer than window messages are on their way, at most until deadline.
func (c *control) wait(window uint64, deadline time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seq-c.done < window {
		return true
	}
	t := time.AfterFunc(time.Until(deadline), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.acked.Broadcast()
	})
	defer t.Stop()
	for c.seq-c.done >= window {
		if time.Now().After(deadline) {
			return false
		}
		c.acked.Wait()
	}
	return true
}

func (c *control) readAcks() {
	if err := syscall.SetNonblock(AckFD, true); err != nil {
		return // started by hand, without the pipe
	}
	f := os.NewFile(AckFD, "acks")
	var b [8]byte
	for {
		if _, err := io.ReadFull(f, b[:]); err != nil {
			return
		}
		c.mu.Lock()
		c.done = max(c.done, binary.LittleEndian.Uint64(b[:]))
		c.acked.Broadcast()
		c.mu.Unlock()
	}
}

func ownStats(gc bool) (Stats, error) {
	if gc {
		runtime.GC()
		debug.FreeOSMemory()
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return Stats{}, err
	}
	rss, err := RSS(os.Getpid())
	return Stats{CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano()), RSS: rss}, err
}

// RSS is the resident memory of a process in bytes.
func RSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var total, resident int64
	if _, err := fmt.Fscan(strings.NewReader(string(b)), &total, &resident); err != nil {
		return 0, err
	}
	return resident * int64(os.Getpagesize()), nil
}
