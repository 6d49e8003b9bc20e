package load

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Tally is what the clients of an engine saw.
type Tally struct {
	Deliveries uint64 // messages that arrived, each counted once per client
	Lost       uint64 // messages that a client never got although a later one, or the end of the run, came
	Repeated   uint64
	Disordered uint64 // messages that came after a later one
	Damaged    uint64
	Foreign    uint64 // messages of another run or publisher
	Gaps       uint64 // gap notices of the server: what they cover is counted as lost too
	Closed     int    // clients whose connection ended
	Reasons    map[string]int
	Redials    int // poll connections that the server closed between two answers, and that were opened again

	// Pause is the longest time for which the generator did not read. If it is long, the machine gave this process no
	// time, and the latency is not the server's.
	Pause time.Duration

	First, Last int64                   // when the first message was made and the last delivery came, by Now
	Latency     *hdrhistogram.Histogram // microseconds from publish to arrival
}

// Rate is deliveries per second from the first publish to the last arrival.
func (t *Tally) Rate() float64 {
	if t.Last <= t.First {
		return 0
	}
	return float64(t.Deliveries) / (float64(t.Last-t.First) / 1e9)
}

// Quantile is the latency that q percent of the deliveries did not exceed.
func (t *Tally) Quantile(q float64) time.Duration {
	if t.Latency == nil {
		return 0
	}
	return time.Duration(t.Latency.ValueAtQuantile(q)) * time.Microsecond
}

// Clean says that every message arrived once, unaltered, in order.
func (t *Tally) Clean() bool {
	return t.Lost == 0 && t.Repeated == 0 && t.Disordered == 0 && t.Damaged == 0 && t.Closed == 0
}

const slowest = int64(5 * time.Minute / time.Microsecond)

func newTally() *Tally {
	return &Tally{Latency: hdrhistogram.New(1, slowest, 3), Reasons: map[string]int{}}
}

// stream is what one publisher numbers 1, 2, 3, … and some of the clients receive.
type stream struct {
	mark    []byte
	run     uint32
	clients int
	counts  []uint32 // counts[i]: clients that are past message base+i
	base    uint64   // every client is past all messages before base
}

// passed records that one more client is past the messages from..to.
func (s *stream) passed(from, to uint64) {
	for seq := from; seq <= to; seq++ {
		if seq < s.base {
			continue
		}
		i := int(seq - s.base)
		for i >= len(s.counts) {
			s.counts = append(s.counts, 0)
		}
		s.counts[i]++
	}
	s.advance()
}

// leave records that a client that expected message next is gone: nothing waits for it any more.
func (s *stream) leave(next uint64) {
	for seq := s.base; seq < next && int(seq-s.base) < len(s.counts); seq++ {
		s.counts[seq-s.base]--
	}
	s.clients--
	s.advance()
}

func (s *stream) advance() {
	done := 0
	for done < len(s.counts) && int(s.counts[done]) >= s.clients {
		done++
	}
	if done == 0 {
		return
	}
	s.base += uint64(done)
	s.counts = s.counts[:copy(s.counts, s.counts[done:])]
}

// maxMissing bounds how many of a client's missing messages are remembered, to tell a late message from a repeated one.
const maxMissing = 1 << 16

// sequence is one client's place in its stream.
type sequence struct {
	next    uint64 // the number expected
	missing map[uint64]struct{}
}

// take records that message seq came. Anything but the number expected is counted in t.
func (q *sequence) take(s *stream, t *Tally, seq uint64) {
	switch {
	case seq == q.next:
	case seq > q.next:
		t.Lost += seq - q.next
		if q.missing == nil {
			q.missing = map[uint64]struct{}{}
		}
		for m := q.next; m < seq && len(q.missing) < maxMissing; m++ {
			q.missing[m] = struct{}{}
		}
	default:
		if _, late := q.missing[seq]; late {
			delete(q.missing, seq)
			t.Lost--
			t.Disordered++
			t.Deliveries++
		} else {
			t.Repeated++
		}
		return
	}
	t.Deliveries++
	s.passed(q.next, seq)
	q.next = seq + 1
}
