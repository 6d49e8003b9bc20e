// Package step makes the order in which goroutines run an input. It has the points at which an instrumented program
// asks whether it goes on, and locks and atomic values that have such points. Only the copies of the package's files
// that the explorer makes use it (see internal/explore). An ordinary build has no trace of it.
//
// A schedule runs inside a testing/synctest bubble. At a point the schedule, drawn from a seed, lets the goroutine go
// on, or sends it to sleep for some of the bubble's time. While it sleeps, every other goroutine that can run does so.
// Locks are made of channels: a goroutine that waits for one is durably blocked, and the bubble's time goes on.
package step

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A Schedule says at each point whether the goroutine goes on. Begin makes one the schedule of all points.
type Schedule struct {
	mu     sync.Mutex // guards the fields below; never held across a wait
	rnd    *rand.Rand
	chance float64 // of a sleep at a point
	again  float64 // of a sleep at the next point of a goroutine that has slept
	span   float64 // natural logarithm of the longest sleep, in nanoseconds
	awake  bool    // the goroutine that runs has just slept: nobody else has run since
	points int
	slept  int
	trace  uint64
	wakes  map[int64]struct{} // instants at which a goroutine wakes: the bubble's order at one instant is not the seed's
}

var (
	present atomic.Pointer[Schedule]
	held    atomic.Int64
)

// Begin starts the schedule of a seed. Each seed has its own frequency and length of sleeps. A short sleep at every
// point interleaves finely. A rare long sleep lets a goroutine stand still in the most awkward place while everything
// else goes on (probabilistic concurrency testing, Burckhardt et al., ASPLOS 2010: most bugs need few such places). In
// most schedules a goroutine that has slept is likely to sleep again at its next point: it is slow for a while, and the
// others do much between two of its steps.
func Begin(seed uint64) *Schedule {
	s := &Schedule{rnd: rand.New(rand.NewPCG(seed, 0x5354_4550)), wakes: map[int64]struct{}{}}
	s.chance = [...]float64{1, 0.3, 0.1, 0.03, 0.01}[s.rnd.IntN(5)]
	s.span = math.Log([...]float64{1e2, 1e4, 1e6, 1e8, 3e8}[s.rnd.IntN(5)])
	s.again = [...]float64{0, 0.5, 0.8}[s.rnd.IntN(3)]
	present.Store(s)
	return s
}

// Longest returns about how long a goroutine sleeps at a point at most, in nanoseconds.
func (s *Schedule) Longest() float64 { return math.Exp(s.span) }

// End ends the schedule: points do nothing any more. It returns how many points were passed, and at how many a
// goroutine slept.
func (s *Schedule) End() (points, slept int) {
	present.CompareAndSwap(s, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.points, s.slept
}

// Trace returns a hash of the points that were passed and of the decisions there, in order. If two runs of one seed
// were the same, they have the same hash.
func (s *Schedule) Trace() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trace
}

// Held returns how many locks are held at the moment.
func Held() int { return int(held.Load()) }

// Point is where a goroutine may have to wait for the others.
func Point() {
	if s := present.Load(); s != nil {
		s.point()
	}
}

func (s *Schedule) point() {
	s.mu.Lock()
	s.points++
	var d time.Duration
	chance, length := s.chance, s.rnd.Float64()
	if s.awake {
		s.awake = false
		if s.again > chance {
			chance, length = s.again, max(length, s.rnd.Float64())
		}
	}
	if s.rnd.Float64() < chance {
		now := time.Now().UnixNano()
		for d = time.Duration(math.Exp(length*s.span)) + 1; ; d++ {
			if _, taken := s.wakes[now+int64(d)]; !taken {
				break
			}
		}
		s.wakes[now+int64(d)] = struct{}{}
		s.slept++
	}
	s.trace = s.trace*0x9E3779B97F4A7C15 + uint64(d) + 1
	s.mu.Unlock()
	if d > 0 {
		time.Sleep(d)
		s.mu.Lock()
		s.awake = true
		s.mu.Unlock()
	}
}

// N is rand.N of math/rand/v2, drawn from the schedule.
func N[Int interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}](n Int) Int {
	s := present.Load()
	if s == nil {
		return rand.N(n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Int(s.rnd.Uint64N(uint64(n)))
}

// caller names the function that misuses a lock, for a panic.
func caller() string {
	pc, file, line, _ := runtime.Caller(2)
	name := "?"
	if f := runtime.FuncForPC(pc); f != nil {
		name = f.Name()
	}
	return fmt.Sprintf("%s (%s:%d)", name, file, line)
}
