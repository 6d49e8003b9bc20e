package gpoll

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// matches says what a pattern means, as simply as can be.
func matches(pattern, topic string) bool {
	p, tokens := strings.Split(pattern, "."), strings.Split(topic, ".")
	if last := len(p) - 1; p[last] == ">" {
		if len(tokens) < len(p) {
			return false
		}
		p, tokens = p[:last], tokens[:last]
	}
	return slices.EqualFunc(p, tokens, func(p, token string) bool { return p == "*" || p == token })
}

// What is matched by what. The first are the examples of NATS's documentation.
var patternTable = []struct {
	pattern string
	yes, no []string
}{
	{"time.*.east", []string{"time.us.east", "time.eu.east"},
		[]string{"time.us.east.atlanta", "time.east", "time.us.west"}},
	{"time.us.*", []string{"time.us.east", "time.us.west"}, []string{"time.new.york", "time.us", "time.us.east.atlanta"}},
	{"time.us.>", []string{"time.us.east", "time.us.east.atlanta"}, []string{"time.us", "time.eu.east", "time"}},
	{"*.*.east.>", []string{"time.us.east.atlanta"}, []string{"time.us.east", "time.east.us.atlanta"}},
	{">", []string{"a", "a.b", ".", "..", "a."}, nil},
	{"*", []string{"a", "a:b", "~"}, []string{"a.b", ".", "a."}},
	{"*.*", []string{"a.b", ".", "a.", ".b"}, []string{"a", "a.b.c", ".."}},
	{"a.*", []string{"a.b", "a."}, []string{"a", "a.b.", "b.a", "aa.b"}},
	{"a.>", []string{"a.b", "a.", "a..", "a.b.c"}, []string{"a", "aa", "b.a"}},
	{"a..>", []string{"a..b", "a.."}, []string{"a.b", "a.", "a.b.c"}},
	{"*.b", []string{"a.b", ".b"}, []string{"b", "a.b.c", "a.B"}},
	{"a.*.*.b", []string{"a.x.y.b"}, []string{"a.x.b", "a.x.y.z.b"}},
	{strings.Repeat("a.", 15) + ">", []string{strings.Repeat("a.", 15) + "b", strings.Repeat("a.", 127) + "b"},
		[]string{strings.Repeat("a.", 14) + "a"}},
	{strings.Repeat("a.", 15) + "*", []string{strings.Repeat("a.", 15) + "b"}, []string{strings.Repeat("a.", 16) + "b"}},
	{strings.Repeat("a.", 14) + "*.b", []string{strings.Repeat("a.", 15) + "b"},
		[]string{strings.Repeat("a.", 15) + "b.b"}},
}

func TestPatternsMatch(t *testing.T) {
	for _, c := range patternTable {
		if !topicname.ValidPattern(c.pattern) || !topicname.IsPattern(c.pattern) || topicname.Valid(c.pattern) {
			t.Errorf("%q is no pattern", c.pattern)
		}
		for _, topic := range append(slices.Clone(c.yes), c.no...) {
			comparePatterns(t, []string{c.pattern}, []string{topic})
			if got, want := matches(c.pattern, topic), slices.Contains(c.yes, topic); got != want {
				t.Errorf("%q matches %q: %v", c.pattern, topic, got)
			}
		}
	}
}

func TestBadPatterns(t *testing.T) {
	for _, s := range []string{"", "a", "a.b", "a*", "*a", "a.*b", "**", "a.>.b", ">.a", ">>", "a>", ">a", "a.>*", "a b.*",
		"é.*", "*.*.*.*.*", strings.Repeat("a.", 16) + "*", strings.Repeat("a.", 16) + ">", strings.Repeat("x", 254) + ".*"} {
		if topicname.ValidPattern(s) {
			t.Errorf("%q is a pattern", s)
		}
	}
	for _, s := range []string{"*.*.*.*", "*.*.*.*.>", strings.Repeat("x", 253) + ".*", "a/b:c~@-_.*"} {
		if !topicname.ValidPattern(s) {
			t.Errorf("%q is no pattern", s)
		}
	}
}

// comparePatterns compares what a patternTree and the index of the lanes find with what the patterns mean.
func comparePatterns(t testing.TB, patterns, topics []string) {
	t.Helper()
	var tree patternTree[string]
	for _, p := range patterns {
		tree.put(p, new(p))
	}
	l := newMessageLog(Position{1, 0}, Limits{Count: 1000, Bytes: 1 << 20}, nil, 200)
	for i, topic := range topics {
		if i == len(topics)/2 {
			l.indexLocked() // half of them are there before it
		}
		l.appendMessage(&Message{Topic: topic, Position: Position{1, uint64(i + 1)}})
	}
	after := len(topics) / 3
	for _, topic := range topics {
		var want, got []string
		for _, p := range patterns {
			if matches(p, topic) {
				want = append(want, p)
			}
		}
		tree.match(topic, func(p *string) { got = append(got, *p) })
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%q is matched by %q, want %q of %q", topic, got, want, patterns)
		}
	}
	var all []string
	for _, p := range patterns {
		var want, got []string
		for i, topic := range topics {
			if i >= after && matches(p, topic) {
				want = append(want, topic)
			}
		}
		for _, s := range l.matchingLocked([]string{p}, uint64(after)) {
			got = append(got, s.to.name)
		}
		want = sortedSet(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%q finds %q after %d, want %q", p, got, after, want)
		}
		all = union(all, want)
	}
	if found := l.matchingLocked(patterns, uint64(after)); len(found) != len(all) {
		t.Fatalf("%q find %d topics, want each of %q once", patterns, len(found), all)
	}
	for i, p := range patterns {
		if tree.len != len(patterns)-i {
			t.Fatalf("%d patterns, want %d", tree.len, len(patterns)-i)
		}
		tree.put(p, nil)
		for _, other := range patterns[i+1:] {
			found := false
			topic := strings.NewReplacer("*", "x", ">", "x.y").Replace(other)
			tree.match(topic, func(p *string) { found = found || *p == other })
			if !found {
				t.Fatalf("%q went with %q", other, p)
			}
		}
	}
	if n := tree.root; len(n.next) > 0 || n.star != nil || n.rest != nil {
		t.Fatalf("all patterns are removed, and %+v is left", n)
	}
}

// FuzzPatterns compares the two matchers with what patterns mean. Both inputs are lists with commas.
func FuzzPatterns(f *testing.F) {
	for _, c := range patternTable {
		f.Add(c.pattern, strings.Join(append(slices.Clone(c.yes), c.no...), ","))
	}
	f.Add("a.*,*.b,>,a.>,*.*,a.b.>", "a.b,a,b,a.b.c,a.c,c.b,a.b,.,a.")
	f.Fuzz(func(t *testing.T, patterns, topics string) {
		var good []string
		for p := range strings.SplitSeq(patterns, ",") {
			if topicname.ValidPattern(p) != (topicname.IsPattern(p) && matchable(p)) {
				t.Fatalf("%q is a pattern: %v", p, topicname.ValidPattern(p))
			}
			if topicname.ValidPattern(p) && len(good) < 50 {
				good = append(good, p)
			}
		}
		named := slices.DeleteFunc(strings.Split(topics, ","), func(s string) bool { return !topicname.Valid(s) })
		comparePatterns(t, sortedSet(good), named[:min(len(named), 200)])
	})
}

// matchable says by topicname.PatternRule whether s, which has a wildcard, is a pattern.
func matchable(s string) bool {
	tokens := strings.Split(s, ".")
	for i, token := range tokens {
		if token != "" && token != "*" && !(token == ">" && i == len(tokens)-1) && !topicname.Valid(token) {
			return false
		}
	}
	return len(s) <= 255 && len(tokens) <= 16 && strings.Count(s, "*") <= 4
}

// The index of the lanes follows them as they are forgotten and come anew. A reader of a pattern gets every message
// that is there, and a gap covers every one that has left.
func TestPatternOverForgottenLanes(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 21))
		own := func(string) Limits { return Limits{} }
		if seed%2 == 0 {
			own = func(topic string) Limits { return Limits{Count: len(topic) % 3} }
		}
		l := newMessageLog(Position{1, 0}, Limits{Count: 1 + rnd.IntN(30), Bytes: 1 << 20}, own, 1<<20)
		l.spawn = func(func()) {}
		l.maxFading = 1 + rnd.IntN(5)
		token := func() string { return []string{"a", "b", "c", "", fmt.Sprint(rnd.IntN(30))}[rnd.IntN(5)] }
		name := func() string {
			tokens := []string{token(), token(), token(), token()}
			return strings.Join(tokens[:1+rnd.IntN(4)], ".")
		}
		var topics []string
		for i := range 200 {
			topic := name()
			if topic == "" {
				topic = "x"
			}
			topics = append(topics, topic)
			l.askFirst(topic)
			l.appendMessage(&Message{Topic: topic, Position: Position{1, uint64(i + 1)}})
			if rnd.IntN(10) > 0 {
				continue
			}
			pattern := strings.Replace(name()+".", "b.", "*.", 1) + []string{"*", ">"}[rnd.IntN(2)]
			checkPatternRead(t, l, topics, pattern, uint64(rnd.IntN(i+1)), rnd)
			checkIndex(t, l)
		}
	}
}

func checkPatternRead(t *testing.T, l *messageLog, topics []string, pattern string, cursor uint64, rnd *rand.Rand) {
	t.Helper()
	kept := map[uint64]bool{}
	for _, s := range l.lanes {
		for i := range s.recs.len {
			kept[s.recs.at(i).pos.Seq] = true
		}
	}
	covered, seen := map[uint64]bool{}, map[uint64]bool{}
	want := &interest{topics: []string{pattern, "a.b", "a.>"}, client: "me"}
	at := Position{1, cursor}
	for more := true; more; {
		var items []item
		items, at, more = l.read(at, want, replay{1 + rnd.IntN(9), 1 << 20}, nil)
		for _, it := range items {
			switch {
			case it.gap != nil:
				for seq := it.gap.From; seq <= it.gap.To; seq++ {
					covered[seq] = true
				}
			case seen[it.pos.Seq] || covered[it.pos.Seq]:
				t.Fatalf("%d came after it had come or a gap had covered it", it.pos.Seq)
			default:
				seen[it.pos.Seq] = true
			}
		}
	}
	for i, topic := range topics {
		seq := uint64(i + 1)
		owed := seq > cursor && (matches(pattern, topic) || topic == "a.b" || matches("a.>", topic))
		if got := seen[seq]; got != (owed && kept[seq]) || owed && !kept[seq] && !covered[seq] {
			t.Fatalf("%d to %q from %d by %q: there %v, came %v, covered %v", seq, topic, cursor, pattern, kept[seq], got,
				covered[seq])
		}
	}
}

// checkIndex compares the index with the lanes.
func checkIndex(t *testing.T, l *messageLog) {
	t.Helper()
	lanes := 0
	var walk func(n *laneNode)
	walk = func(n *laneNode) {
		if n.lane != nil {
			lanes++
			if l.lanes[n.lane.to] != n.lane || n.lane.node != n {
				t.Fatalf("the index has a lane of %q that the log has not", n.lane.to.name)
			}
		}
		if n.parent != nil && n.lane == nil && n.first == nil {
			t.Fatal("the index keeps a node of nothing")
		}
		count, newest := 0, n.newest
		for child := n.first; child != nil; child = child.after {
			if count++; child.newest > newest || n.child(child.token) != child || child.parent != n {
				t.Fatalf("%q is out of order", child.token)
			}
			newest = child.newest
			walk(child)
		}
		if count != n.count || n.children != nil && count != len(n.children) {
			t.Fatalf("%d children in order, %d by token, and %d counted", count, len(n.children), n.count)
		}
	}
	walk(l.indexLocked())
	for to := range l.lanes {
		if to.kind == kindTopic {
			lanes--
		}
	}
	if lanes != 0 {
		t.Fatalf("the index has %d lanes more than the log", lanes)
	}
}

// A routine finds the patterns of a topic, and a read its topics, without allocating. A pattern costs a routine little.
func TestPatternsCost(t *testing.T) {
	var tree patternTree[subscribers]
	for i := range 1000 {
		tree.put(fmt.Sprintf("sensors.%d.*", i), new(subscribers))
	}
	tree.put("sensors.>", new(subscribers))
	n := 0
	if allocs := testing.AllocsPerRun(100, func() { tree.match("sensors.7.t", func(*subscribers) { n++ }) }); allocs > 0 {
		t.Errorf("%v allocations to match", allocs)
	}
	if size := unsafe.Sizeof(patternNode[int]{}); size > 32 {
		t.Errorf("a node has %d bytes", size)
	}
}

func BenchmarkPatternMatch(b *testing.B) {
	matching := []string{"sensors.>", "*.hall.*", "sensors.hall.>", ">", "sensors.*.t0", "*.*.t0", "sensors.hall.*",
		"sensors.*.*", "*.*.*", "*.>"}
	for _, c := range []struct{ others, matching int }{{0, 0}, {1, 0}, {100, 0}, {10_000, 0}, {10_000, 1}, {10_000, 10}} {
		b.Run(fmt.Sprintf("others=%d/matching=%d", c.others, c.matching), func(b *testing.B) {
			var t patternTree[int]
			for i := range c.others {
				t.put(fmt.Sprintf("sensors.room%d.*", i), new(i))
			}
			for i, p := range matching[:c.matching] {
				t.put(p, new(i))
			}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				t.match("sensors.hall.t0", func(*int) { n++ })
			}
			if n != b.N*c.matching {
				b.Fatalf("%d matches", n)
			}
		})
	}
}

// A read by a pattern that matches the topics of a window, so far behind its end.
func BenchmarkPatternRead(b *testing.B) {
	for _, topics := range []int{1, 100, 10_000} {
		for _, behind := range []int{0, 1, 100, 10_000} {
			for _, pattern := range []string{"sensors.*", "*.*.none"} {
				b.Run(fmt.Sprintf("topics=%d/behind=%d/%s", topics, behind, pattern), func(b *testing.B) {
					l := newMessageLog(Position{1, 0}, Limits{Count: 10_000, Bytes: 64 << 20}, nil, 200)
					for i := range 20_000 {
						l.appendMessage(&Message{Topic: fmt.Sprintf("sensors.%d", i*7919%topics), Data: []byte("hello"),
							Position: Position{1, uint64(i + 1)}})
					}
					want := &interest{topics: []string{pattern}, client: "somebody"}
					var items []item
					b.ReportAllocs()
					for b.Loop() {
						items, _, _ = l.read(Position{1, uint64(20_000 - behind)}, want, replay{500, 1 << 20}, items[:0])
					}
					b.ReportMetric(float64(len(items)), "items")
				})
			}
		}
	}
}

// A publish to a topic beside the patterns of clients that it does not concern, until the clients that it concerns have
// it, with one processor.
func BenchmarkPatternPublish(b *testing.B) {
	const star = "sensors.room%d.*"
	for _, c := range []struct {
		name             string
		others, matching int
		other            string
	}{
		{"no pattern", 0, 0, ""}, {"10,000 topics", 10_000, 0, "sensors.room%d.t0"},
		{"1 pattern", 1, 0, star}, {"100 patterns", 100, 0, star}, {"10,000 patterns", 10_000, 0, star},
		{"1 matches", 0, 1, star}, {"1 of 10,000 matches", 10_000, 1, star}, {"10 match", 10_000, 10, star},
		{"100 match", 10_000, 100, star},
	} {
		b.Run(c.name, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			s := &Broadcaster{RegisterRate: -1, AttachTimeout: time.Hour, ClientTTL: time.Hour, ClientBufferSize: 10}
			if err := s.start(); err != nil {
				b.Fatal(err)
			}
			defer s.Reset()
			client := func(pattern string) *Client {
				client, refused := s.register(registration{named: []string{pattern}})
				if refused != nil {
					b.Fatal(refused.code)
				}
				return client
			}
			var pipes []chan string
			for i := range c.matching {
				matching := []string{"sensors.>", "*.hall.*", "sensors.hall.>", "sensors.*.t0", "sensors.hall.*"}
				pipe, err := client(matching[i%len(matching)]).openChannel()
				if err != nil {
					b.Fatal(err)
				}
				pipes = append(pipes, pipe)
			}
			before := liveHeap()
			for i := range c.others {
				client(fmt.Sprintf(c.other, i))
			}
			heap := liveHeap() - before
			m := Message{Topic: "sensors.hall.t0", Data: []byte("hello")}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Publish(b.Context(), m); err != nil {
					b.Fatal(err)
				}
				for _, pipe := range pipes {
					<-pipe
				}
			}
			if c.others > 1 {
				b.ReportMetric(float64(heap)/float64(c.others), "B/other")
			}
		})
	}
}

// What the index of the lanes costs: to make it, and for each topic.
func BenchmarkPatternIndex(b *testing.B) {
	l := newMessageLog(Position{1, 0}, Limits{Count: 10_000, Bytes: 64 << 20}, nil, 200)
	for i := range 30_000 {
		l.appendMessage(&Message{Topic: fmt.Sprintf("sensors.%d.%d", i%100, i), Data: []byte("hello"),
			Position: Position{1, uint64(i + 1)}})
	}
	heap := liveHeap()
	l.indexLocked()
	heap = liveHeap() - heap
	for b.Loop() {
		l.index = nil
		l.indexLocked()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(len(l.lanes)), "ns/topic")
	b.ReportMetric(float64(heap)/float64(len(l.lanes)), "B/topic")
}

// An append to one of 10,000 topics, with and without the index.
func BenchmarkPatternAppend(b *testing.B) {
	for _, indexed := range []bool{false, true} {
		b.Run(fmt.Sprintf("indexed=%v", indexed), func(b *testing.B) {
			l := newMessageLog(Position{1, 0}, Limits{Count: 10_000, Bytes: 64 << 20}, nil, 200)
			if indexed {
				l.indexLocked()
			}
			topics := make([]string, 10_000)
			for i := range topics {
				topics[i] = fmt.Sprintf("sensors.%d.%d", i%100, i*7919%10_000)
			}
			m := Message{Data: []byte("hello"), Position: Position{1, 0}}
			b.ReportAllocs()
			for b.Loop() {
				m.Position.Seq++
				m.Topic = topics[m.Position.Seq%10_000]
				l.appendMessage(&m)
			}
		})
	}
}
