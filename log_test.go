package gpoll

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A logModel is the window of a messageLog, said as simply as can be: a list.
type logModel struct {
	history Limits
	base    uint64            // the log begins behind it
	hi      uint64            // its end
	kept    []*record         // in the order of their windows
	limits  map[string]Limits // of the topics that have some
	lost    map[address]uint64
	why     map[address]string
}

func (m *logModel) owned(to address) bool {
	return to.kind == kindTopic && m.limits[to.name] != Limits{}
}

// drop removes the oldest record that matches.
func (m *logModel) drop(match func(*record) bool, why string) {
	i := slices.IndexFunc(m.kept, match)
	rec := m.kept[i]
	m.kept = slices.Delete(m.kept, i, i+1)
	m.lost[rec.to], m.why[rec.to] = rec.pos.Seq, why
}

// bound drops what one window no longer holds.
func (m *logModel) bound(limits Limits, forLane int, match func(*record) bool, now time.Time) {
	for {
		count, bytes := m.held(forLane, match)
		i := slices.IndexFunc(m.kept, match)
		switch {
		case count > 1 && (count > limits.Count || bytes > limits.Bytes):
			m.drop(match, gapEvicted)
		case count > 0 && limits.Age > 0 && now.Sub(m.kept[i].at) > limits.Age:
			m.drop(match, gapExpired)
		default:
			return
		}
	}
}

// held counts the records that match, and their bytes, with so many for each address.
func (m *logModel) held(forLane int, match func(*record) bool) (count, bytes int) {
	lanes := map[address]bool{}
	for _, rec := range m.kept {
		if match(rec) {
			count, bytes, lanes[rec.to] = count+1, bytes+rec.weigh(), true
		}
	}
	return count, bytes + forLane*len(lanes)
}

// boundAll drops messages that are too old, and messages beyond the bounds of the window to which a message for to was
// just added.
func (m *logModel) boundAll(to address, now time.Time) {
	for topic, own := range m.limits {
		if own.or(m.history).Age > 0 || to == (address{kindTopic, topic}) {
			m.bound(own.or(m.history), 0, func(rec *record) bool { return rec.to == address{kindTopic, topic} }, now)
		}
	}
	owned := Limits{Count: ownedCount * m.history.Count, Bytes: m.history.Bytes}
	m.bound(owned, laneBytes, func(rec *record) bool { return m.owned(rec.to) }, now)
	shared := m.history
	shared.Bytes -= shared.Bytes / formsShare
	m.bound(shared, laneBytes, func(rec *record) bool { return !m.owned(rec.to) }, now)
}

// read is what a cursor is owed, whole.
func (m *logModel) read(cursor uint64, want *interest) (seen []string) {
	lost, why := uint64(0), ""
	var owed []*record
	wanted := map[address]bool{}
	want.addresses(func(to address) {
		wanted[to] = true
		known := slices.Collect(maps.Keys(m.lost))
		for _, rec := range m.kept {
			known = append(known, rec.to)
		}
		for _, topic := range known {
			if topic.kind == kindTopic && to.kind == kindTopic && matches(to.name, topic.name) {
				wanted[topic] = true
			}
		}
	})
	for to := range wanted {
		left, reason := m.base, gapEvicted
		if seq, ok := m.lost[to]; ok {
			left, reason = seq, m.why[to]
		}
		if left > cursor && left > lost {
			lost, why = left, reason
		}
		for _, rec := range m.kept {
			if rec.to == to && rec.pos.Seq > cursor {
				owed = append(owed, rec)
			}
		}
	}
	slices.SortFunc(owed, func(a, b *record) int { return int(a.pos.Seq) - int(b.pos.Seq) })
	at := cursor
	gap := func(until uint64) {
		if at < until {
			seen = append(seen, fmt.Sprintf("gap %d..%d %s", at+1, until, why))
			at = until
		}
	}
	for _, rec := range owed {
		until := min(lost, rec.first()-1)
		if rec.excepts(want.client) && at < until {
			continue // the gap goes on beyond it
		}
		gap(until)
		switch {
		case rec.hole != nil:
			seen = append(seen, fmt.Sprintf("gap %d..%d broker", max(rec.first(), at+1), rec.pos.Seq))
		case !rec.excepts(want.client):
			seen = append(seen, fmt.Sprint(rec.pos.Seq))
		}
		at = rec.pos.Seq
	}
	gap(lost)
	return seen
}

// Messages are published, left out by the broker, bounded by windows and read in pieces. The log always holds what its
// model holds. A reader sees what the model says, in answers that keep to their bounds.
func TestLogAgainstModel(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) { logAgainstModel(t, uint64(seed)) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func logAgainstModel(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 13))
	pick := func(limits ...Limits) Limits { return limits[rnd.IntN(len(limits))] }
	seconds := func(least, most int) time.Duration { return time.Duration(least+rnd.IntN(most-least)) * time.Second }
	history := Limits{Count: 1 + rnd.IntN(30), Bytes: 1 << (10 + rnd.IntN(8))}
	if rnd.IntN(2) == 0 {
		history.Age = seconds(10, 60)
	}
	base := uint64(rnd.IntN(2) * rnd.IntN(50))
	topics := []string{"a", "a.b", "a.c", "b.c", "a.b.c"}
	patterns := []string{"a.*", "*.c", "a.>", ">", "*.*"}
	own := map[string]Limits{}
	for _, topic := range topics {
		few := Limits{Count: 1 + rnd.IntN(10)}
		own[topic] = pick(Limits{}, Limits{Count: 1}, few, Limits{Bytes: 2000}, Limits{Age: seconds(1, 41)})
	}
	topicLimits := func(topic string) Limits { return own[topic] }
	l := newMessageLog(Position{1, base}, history, topicLimits, 1<<20)
	l.spawn = func(func()) {} // here the test is askAll
	m := &logModel{history: history, base: base, hi: base,
		limits: map[string]Limits{}, lost: map[address]uint64{}, why: map[address]string{}}

	// learn says the limits of a topic, to the log and to the model.
	learn := func(topic string) {
		l.askFirst(topic)
		if _, known := m.limits[topic]; !known && own[topic] != (Limits{}) {
			m.limits[topic] = own[topic]
			// What it has goes behind what is there.
			to := address{kindTopic, topic}
			mine := slices.Collect(func(yield func(*record) bool) {
				for _, rec := range m.kept {
					if rec.to == to && !yield(rec) {
						return
					}
				}
			})
			m.kept = append(slices.DeleteFunc(m.kept, func(rec *record) bool { return rec.to == to }), mine...)
			m.boundAll(to, time.Now())
		}
	}
	for range 200 {
		switch rnd.IntN(20) {
		case 0:
			m.hi += uint64(1 + rnd.IntN(3)) // the broker loses some
		case 1, 2:
			time.Sleep(time.Duration(rnd.IntN(8)) * time.Second)
			l.expire(time.Now())
			m.boundAll(address{}, time.Now())
		case 3:
			learn(topics[rnd.IntN(len(topics))])
		}
		m.hi++
		msg := Message{Position: Position{1, m.hi}, Data: make([]byte, rnd.IntN(300))}
		switch rnd.IntN(4) {
		case 0:
			if rnd.IntN(3) == 0 {
				msg.Except = []string{"me"}
			}
		case 1:
			msg.To = ToClient([]string{"me", "other"}[rnd.IntN(2)])
		default:
			msg.Topic = topics[rnd.IntN(len(topics))]
			if rnd.IntN(3) > 0 {
				learn(msg.Topic)
			}
		}
		end := l.end().Seq
		if l.appendMessage(&msg) == dropped {
			t.Fatalf("append of %v refused", msg.Position)
		}
		now := time.Now()
		if end+1 < m.hi {
			m.kept = append(m.kept, &record{pos: Position{1, m.hi - 1}, at: now, hole: &Gap{1, end + 1, m.hi - 1, gapBroker}})
			m.boundAll(address{}, now)
		}
		rec := recordOf(&msg)
		m.kept = append(m.kept, rec)
		m.boundAll(rec.to, now)

		_, lo, hi, messages, bytes := l.windowStats()
		count, size := m.held(laneBytes, func(*record) bool { return true })
		oldest := m.hi + 1
		if i := slices.IndexFunc(m.kept, func(rec *record) bool { return !m.owned(rec.to) }); i >= 0 {
			oldest = m.kept[i].pos.Seq
		}
		if messages != count || bytes != size || lo != oldest || hi != m.hi {
			t.Fatalf("at %d the windows hold %d messages, %d bytes, from %d to %d; want %d, %d, from %d to %d",
				m.hi, messages, bytes, lo, hi, count, size, oldest, m.hi)
		}
		if n := l.shared.order.len + l.owned.order.len; n > 2*count+2*64 {
			t.Fatalf("%d places for %d messages", n, count)
		}
		if rnd.IntN(10) > 0 {
			continue
		}
		want := &interest{client: "me"}
		for _, topic := range topics {
			if rnd.IntN(3) > 0 {
				want.topics = append(want.topics, topic)
			}
		}
		for range rnd.IntN(2) * rnd.IntN(4) {
			want.topics = union(want.topics, patterns[:1+rnd.IntN(len(patterns))])
		}
		cursor := uint64(rnd.Int64N(int64(m.hi + 1)))
		expected := m.read(cursor, want)
		const many = 1 << 30
		for _, max := range []replay{{many, many}, {1, many}, {1 + rnd.IntN(20), many}, {many, rnd.IntN(1000)}} {
			if seen := readInPieces(t, l, Position{1, cursor}, want, max); !slices.Equal(seen, expected) {
				t.Fatalf("read from %d with %+v, %v, limits %v:\n%s\nwant\n%s",
					cursor, want, max, m.limits, strings.Join(seen, ", "), strings.Join(expected, ", "))
			}
		}
	}
}

// readInPieces reads to the end of the log, and verifies the bounds of each piece.
func readInPieces(t *testing.T, l *messageLog, after Position, want *interest, max replay) (seen []string) {
	for more := true; more; {
		var items []item
		items, after, more = l.read(after, want, max, nil)
		size := 0
		for i, it := range items {
			if it.gap != nil {
				seen, size = append(seen, fmt.Sprintf("gap %d..%d %s", it.gap.From, it.gap.To, it.gap.Reason)), size+gapSize
				continue
			}
			seen, size = append(seen, fmt.Sprint(it.rec.pos.Seq)), size+it.rec.size()
			if i < len(items)-1 && max.count == 1 {
				t.Fatalf("something follows the message that ends an answer: %v", seen)
			}
		}
		one := len(items) == 1 || len(items) == 2 && items[0].gap != nil // a message and the gap before it
		if !one && (len(items) > max.count || size > max.bytes) || more && len(items) == 0 {
			t.Fatalf("%d items, %d bytes in one answer, more %v; the bounds are %v", len(items), size, more, max)
		}
	}
	if after != l.end() {
		t.Fatalf("read up to %v, the log ends at %v", after, l.end())
	}
	return seen
}
