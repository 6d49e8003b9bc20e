//go:build linux

package serve

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corvuscrypto/gpoll/internal/load"
)

// Process is a server that has been started. Its methods are for one goroutine.
type Process struct {
	Addr  string // where it listens
	posts string // where publishers post
	PID   int
	Sends []time.Duration // how long each message of the last Publish took, if its command was Timed

	cmd     *exec.Cmd
	in      io.WriteCloser
	acks    *os.File
	replies chan Reply // closed when the server's output ends
	stopped sync.Once
	last    uint64 // number of the newest message
}

// Start starts a server whose main function is Main and waits until it listens. If cpu is not negative, the server is
// bound to that processor and the procs-1 after it. GOMAXPROCS is procs, unless that is 0. The server dies with this
// process.
func Start(cmd *exec.Cmd, cpu, procs int) (*Process, error) {
	ackR, ackW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ackR.Close()
	p := &Process{cmd: cmd, acks: ackW, replies: make(chan Reply, 1)}
	if procs > 0 {
		cmd.Env = append(cmd.Environ(), fmt.Sprintf("GOMAXPROCS=%d", procs))
	}
	cmd.ExtraFiles = []*os.File{ackR} // AckFD
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // ^C is for this process, which ends the server in order
	}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, errors.Join(err, ackW.Close())
	}
	p.in = in
	if err := startOn(cmd, cpu, max(procs, 1)); err != nil {
		return nil, errors.Join(err, ackW.Close())
	}
	p.PID = cmd.Process.Pid
	go p.read(out) // ends with the server's output
	r, err := p.wait(20 * time.Second)
	if err != nil {
		p.Stop()
		return nil, err
	}
	p.Addr, p.posts = r.Addr, r.Posts
	return p, nil
}

// startOn starts cmd on some processors: a child inherits the affinity of the thread that forks it.
func startOn(cmd *exec.Cmd, cpu, procs int) error {
	if cpu < 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return err
	}
	for i := range procs {
		set.Set(cpu + i)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("processor %d: %w", cpu, err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &old) }()
	return cmd.Start()
}

func (p *Process) read(out io.Reader) {
	defer close(p.replies)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20) // there may be very many Sends
	for lines.Scan() {
		var r Reply
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			r.Error = fmt.Sprintf("it printed %q", lines.Text())
		}
		p.replies <- r
	}
}

func (p *Process) ask(c Command) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = p.in.Write(append(b, '\n'))
	return err
}

func (p *Process) wait(d time.Duration) (Reply, error) {
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case r, ok := <-p.replies:
		return check(r, ok)
	case <-late.C:
		return Reply{}, errors.New("the server did not answer in time")
	}
}

func check(r Reply, ok bool) (Reply, error) {
	switch {
	case !ok:
		return r, errors.New("the server ended")
	case r.Error != "":
		return r, errors.New(r.Error)
	}
	return r, nil
}

// Stats asks the server for its cost so far, after a garbage collection if gc is true.
func (p *Process) Stats(gc bool) (Stats, error) {
	do := "stats"
	if gc {
		do = "gc"
	}
	if err := p.ask(Command{Do: do}); err != nil {
		return Stats{}, err
	}
	r, err := p.wait(20 * time.Second)
	return r.Stats, err
}

// AskStats asks for what Stats returns. The result is called until it reports that the answer has come.
func (p *Process) AskStats() (answered func() (Stats, bool, error), err error) {
	return func() (Stats, bool, error) {
		select {
		case r, ok := <-p.replies:
			r, err := check(r, ok)
			return r.Stats, true, err
		default:
			return Stats{}, false, nil
		}
	}, p.ask(Command{Do: "stats"})
}

// Profile has the server write a CPU profile of the next d.
func (p *Process) Profile(file string, d time.Duration) error {
	if err := p.ask(Command{Do: "profile", Profile: file, For: d}); err != nil {
		return err
	}
	_, err := p.wait(20 * time.Second)
	return err
}

// quiet is how long nothing arrives until what is missing counts as lost.
const quiet = 3 * time.Second

// Publish has the server publish, lets everything arrive at e's clients and returns what they saw of it. If it returns
// an error and a tally, the error is the server's.
func (p *Process) Publish(e *load.Engine, cmd Command) (*load.Tally, error) {
	if cmd.Window > 0 {
		e.OnDone(p.ack)
		defer e.OnDone(nil)
		p.ack(p.last)
	}
	if err := p.ask(cmd); err != nil {
		return nil, err
	}
	var reply Reply
	var replied error
	deadline := time.Now().Add(cmd.For + time.Duration(cmd.Count)*cmd.Every + 30*time.Second)
	err := e.Run(func() bool {
		select {
		case r, ok := <-p.replies:
			reply, replied = check(r, ok)
			return true
		default:
		}
		if time.Now().After(deadline) {
			replied = errors.New("the server did not stop publishing")
			return true
		}
		return false
	})
	if err = errors.Join(err, replied); err != nil && reply.Last == 0 {
		return nil, err
	}
	if _, err := e.Drain(reply.Last, quiet); err != nil {
		return nil, err
	}
	p.last, p.Sends = reply.Last, reply.Sends
	return e.Take([]uint64{reply.Last}), err
}

// ack tells the server that all clients have every message up to seq.
func (p *Process) ack(seq uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], seq)
	_, _ = p.acks.Write(b[:]) // a server that has ended is noticed elsewhere
}

// Stop ends the server and waits for it.
func (p *Process) Stop() {
	p.stopped.Do(func() {
		_ = p.in.Close()
		kill := time.AfterFunc(3*time.Second, func() { _ = p.cmd.Process.Kill() })
		for range p.replies { // until its output ends
		}
		_ = p.cmd.Wait()
		kill.Stop()
		_ = p.acks.Close()
	})
}
