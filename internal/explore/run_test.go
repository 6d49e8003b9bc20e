//go:build explore && linux

package explore

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll/internal/step"
)

// TestSchedules runs as many schedules as GPOLL_SCHEDULES says, from GPOLL_SEED on. It keeps the present seed in the
// file GPOLL_AT, in case this process dies.
func TestSchedules(t *testing.T) {
	runtime.GOMAXPROCS(1)
	first, count := number(t, "GPOLL_SEED", 1), number(t, "GPOLL_SCHEDULES", 1)
	at, err := os.OpenFile(os.Getenv("GPOLL_AT"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	var present atomic.Uint64
	stuck := watch(&present)
	defer stuck.Stop()
	var sum tally
	began := time.Now()
	for seed := first; seed < first+count; seed++ {
		present.Store(seed)
		stuck.Reset(patience)
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], seed)
		if _, err := at.WriteAt(b[:], 0); err != nil {
			t.Fatal(err)
		}
		r := explore(t, seed)
		sum.add(&r.tally)
		if testing.Verbose() && count == 1 {
			t.Logf("the script:\n%s", r.script)
		}
		if len(r.faults) > 0 {
			t.Errorf("seed %d: %s\nthe script:\n%s\nagain: GPOLL_SEED=%d GPOLL_SCHEDULES=1 go test -count 1 -v "+
				"./internal/explore",
				seed, strings.Join(r.faults, "\n    "), r.script, seed)
			break
		}
	}
	sum.Seconds = time.Since(began).Seconds()
	sum.print()
}

// TestReplay runs schedules twice: a seed is a schedule.
func TestReplay(t *testing.T) {
	runtime.GOMAXPROCS(1)
	first, count := number(t, "GPOLL_SEED", 1), number(t, "GPOLL_SCHEDULES", 100)
	same := 0
	for seed := first; seed < first+count; seed++ {
		a, b := explore(t, seed), explore(t, seed)
		if a.trace == b.trace && a.Points == b.Points {
			same++
		} else {
			fmt.Printf("seed %d: %d points, then %d\n", seed, a.Points, b.Points)
		}
	}
	fmt.Printf("replayed %d of %d\n", same, count)
	if same*2 < int(count) {
		t.Errorf("only %d of %d schedules were the same again", same, count)
	}
}

// print prints the tally as one line.
func (s *tally) print() {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // numbers
	}
	fmt.Printf("%s%s\n", tallyMark, text)
}

// patience is for one schedule, in real time.
const patience = 30 * time.Second

// watch ends the process if a schedule does not end: a goroutine waits for a lock that is none of internal/step's, or
// spins.
func watch(seed *atomic.Uint64) *time.Timer {
	return time.AfterFunc(patience, func() {
		buf := make([]byte, 4<<20)
		buf = buf[:runtime.Stack(buf, true)]
		fmt.Printf("seed %d does not end:\n%s\n", seed.Load(), buf)
		os.Exit(3)
	})
}

// A result is what one run showed.
type result struct {
	tally
	script string
	faults []string
	trace  uint64
}

// explore runs the script and the schedule of a seed.
func explore(t *testing.T, seed uint64) (r result) {
	before := step.Held()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(seed)
		w.run()
		r = w.result
	})
	if held := step.Held() - before; held != 0 {
		r.faults = append(r.faults, fmt.Sprintf("%d locks are held at the end", held))
	}
	return r
}
