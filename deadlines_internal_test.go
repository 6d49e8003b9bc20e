package gpoll

import (
	"testing"
	"testing/synctest"
	"time"
)

// A slowDeadliner notes the write deadline, and takes its time.
type slowDeadliner struct {
	takes time.Duration
	set   time.Time
}

func (s *slowDeadliner) SetReadDeadline(time.Time) error { return nil }

func (s *slowDeadliner) SetWriteDeadline(t time.Time) error {
	time.Sleep(s.takes)
	s.set = t
	return nil
}

// The guard of an answer touches the connection while the handler has it, and never afterwards.
func TestGuardKeepsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := func() (*deadlines, *slowDeadliner) {
			s := &slowDeadliner{takes: time.Second}
			d := &deadlines{conn: s, set: make(chan struct{})}
			if !d.write() || !d.state.CompareAndSwap(writing, guarded) {
				t.Fatal("the answer is not being written")
			}
			return d, s
		}
		d, s := begin()
		if d.end() {
			t.Error("the guard is forgotten")
		}
		d.guard(time.Minute)
		if !s.set.IsZero() {
			t.Error("the guard has set a deadline after the end")
		}
		d, s = begin()
		began := time.Now()
		go d.guard(time.Minute)
		synctest.Wait()
		if d.end() {
			t.Error("the guard is forgotten")
		}
		if s.set != began.Add(time.Minute) || time.Since(began) != time.Second {
			t.Errorf("the end came %v after the guard, which has set %v", time.Since(began), s.set.Sub(began))
		}
	})
}

// Whoever has looked at a poll's deadlines beside its handler may still do so.
func TestDeadlinesAlone(t *testing.T) {
	for state, alone := range map[uint32]bool{young: true, grown: true, lifted: true, writing: true, guarded: false} {
		d := &deadlines{}
		d.state.Store(state)
		if d.end() != alone || d.state.Load() != over {
			t.Errorf("state %d: alone is not %v", state, alone)
		}
	}
}
