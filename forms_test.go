package gpoll

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// fillForms makes every wire form of rec.
func fillForms(rec *record) {
	for f := range formCount {
		rec.in(f)
	}
	rec.answer()
}

// settledHeap is liveHeap without what pools and finalizers hold on to from earlier tests.
func settledHeap() int {
	for range 3 {
		runtime.GC()
	}
	return liveHeap()
}

// The windows take no more memory than History.Bytes allows. That bounds the messages, their cost beside the data, and
// their wire forms, and not only a count.
func TestWindowMemory(t *testing.T) {
	const bytes = 2 << 20
	for _, c := range []struct {
		name   string
		size   int
		noForm bool
		own    bool // each message has a topic with limits of its own
		spoil  func(*Message, uint64)
	}{
		{name: "100 bytes", size: 100},
		{name: "10 KB", size: 10_000},
		{name: "100 bytes, no forms", size: 100, noForm: true},
		{name: "10 KB, no forms", size: 10_000, noForm: true},
		{name: "100 bytes in topics", size: 100, spoil: func(m *Message, seq uint64) {
			m.Topic = fmt.Sprint("topic-", seq%100)
		}},
		{name: "100 bytes, not UTF-8", size: 100, spoil: func(m *Message, _ uint64) { m.Data[0] = 0xff }},
		{name: "100 bytes with Except", size: 100, spoil: func(m *Message, seq uint64) {
			m.Except = make([]string, 20)
			for i := range m.Except {
				m.Except[i] = fmt.Sprintf("%032x", seq*100+uint64(i))
			}
		}},
		{name: "100 bytes in own windows", size: 100, own: true},
		{name: "10 KB in own windows", size: 10_000, own: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := settledHeap()
			few := func(string) Limits { return Limits{Count: 3} }
			l := newMessageLog(Position{1, 0}, Limits{Count: 100_000, Bytes: bytes}, few, 200)
			l.spawn = func(func()) {}
			want := &interest{}
			var items []item
			published := 0
			for seq := uint64(1); published < 2*bytes; seq++ {
				m := Message{Position: Position{1, seq}, Data: []byte(strings.Repeat("x", c.size))}
				if c.spoil != nil {
					c.spoil(&m, seq)
				}
				if c.own {
					m.Topic = fmt.Sprint("topic-", seq/2)
					l.askFirst(m.Topic)
				}
				l.appendMessage(&m)
				want.topics = []string{m.Topic}
				items, _, _ = l.read(Position{1, seq - 1}, want, replay{10, 1 << 20}, items[:0])
				if len(items) != 1 {
					t.Fatalf("%d items", len(items))
				}
				published += items[0].rec.weigh()
				if !c.noForm {
					fillForms(items[0].rec)
				}
			}
			clear(items)
			held := settledHeap() - before
			// Lanes that only remember what has left them are not part of the window. They are counted, and there are
			// at most maxFading.
			faded := 0
			for _, s := range l.lanes {
				if s.recs.len == 0 {
					faded++
				}
			}
			held -= faded * laneBytes
			limit := bytes - bytes/formsShare
			if c.own {
				limit = bytes
			}
			if !c.noForm {
				limit += bytes / formsShare
			}
			_, _, _, messages, counted := l.windowStats()
			t.Logf("%d messages, %d lanes are faded; counted %d of %d bytes, held %+.1f %%",
				messages, faded, counted, limit, 100*float64(held-counted)/float64(counted))
			if counted > limit || counted < limit*97/100 {
				t.Errorf("%d bytes are counted, the limit is %d", counted, limit)
			}
			if off := float64(held) / float64(counted); off < 0.94 || off > 1.06 {
				t.Errorf("%d bytes are held, %d are counted", held, counted)
			}
			runtime.KeepAlive(l)
		})
	}
}

// The count of the forms is exact whatever happens to records. The forms of a record that has left its window do not
// count.
func TestFormCacheCounts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	l := newMessageLog(Position{1, 0}, Limits{Count: 50, Bytes: 64 << 10}, nil, 200)
	var all []*record
	epoch, seq := uint64(1), uint64(0)
	for range 20_000 {
		if rnd.IntN(500) == 0 {
			epoch, seq = epoch+1, 0
		}
		if rnd.IntN(3) == 0 {
			seq++
			m := Message{Position: Position{epoch, seq}, Data: make([]byte, rnd.IntN(2000))}
			l.appendMessage(&m)
			items, _, _ := l.read(Position{epoch, seq - 1}, &interest{}, replay{1, 1 << 20}, nil)
			all = append(all, items[0].rec)
			if len(all) > 100 {
				all = all[1:]
			}
		}
		if len(all) > 0 {
			rec := all[rnd.IntN(len(all))]
			if f := form(rnd.IntN(int(formCount) + 1)); f < formCount {
				if len(rec.in(f)) == 0 {
					t.Fatal("an empty form")
				}
			} else {
				rec.answer()
			}
		}
		l.verifyForms(t)
	}
}

// verifyForms holds the list of forms against their count.
func (l *messageLog) verifyForms(t *testing.T) {
	t.Helper()
	listed, counted := 0, 0
	for set := l.forms.oldest; set != nil; set = set.newer {
		counted += set.bytes
		if listed++; set.rec.gone.Load() || set.rec.forms.Load() != set || set.bytes == 0 || set.freed {
			t.Fatalf("a set is listed: %+v", set)
		}
	}
	if counted != l.forms.bytes || listed > l.shared.count || l.forms.bytes > l.forms.limit && listed > 1 {
		t.Fatalf("%d records with %d bytes of forms, counted %d, the limit is %d; %d messages",
			listed, counted, l.forms.bytes, l.forms.limit, l.shared.count)
	}
}

// Readers make forms while the log moves on and frees them. No form of a record that has left counts, and all readers
// get the same form.
func TestFormsConcurrently(t *testing.T) {
	l := newMessageLog(Position{1, 0}, Limits{Count: 20, Bytes: 64 << 10}, nil, 200)
	const messages = 3000
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { // ends when it has read the last message
			at := Position{1, 0}
			var items []item
			for at.Seq < messages {
				items, at, _ = l.read(at, &interest{}, replay{1 + i, 1 << 20}, items[:0])
				for _, it := range items {
					if it.rec == nil {
						continue
					}
					fillForms(it.rec)
					want := fmt.Sprintf("%s %d", strings.Repeat("x", 1000), it.rec.pos.Seq)
					if !strings.Contains(string(it.rec.in(formFrame)), want) || it.rec.answer().body != want {
						t.Errorf("message %v is another", it.rec.pos)
					}
				}
			}
		})
	}
	for seq := range uint64(messages) {
		l.appendMessage(&Message{Position: Position{1, seq + 1},
			Data: fmt.Appendf(nil, "%s %d", strings.Repeat("x", 1000), seq+1)})
	}
	wg.Wait()
	l.verifyForms(t)
}

// A form that was freed is made again, with the same bytes. A reader that still has the old one keeps it.
func TestFormsAreMadeAgain(t *testing.T) {
	l := newMessageLog(Position{1, 0}, Limits{Count: 100, Bytes: 100 << 10}, nil, 200)
	for seq := range uint64(50) {
		l.appendMessage(&Message{Position: Position{1, seq + 1}, Data: []byte(strings.Repeat("x", 1000))})
	}
	items, _, _ := l.read(Position{1, 0}, &interest{}, replay{100, 1 << 20}, nil)
	first := items[0].rec.in(formEvent)
	text := string(first)
	for _, it := range items {
		fillForms(it.rec)
	}
	if items[0].rec.made(formEvent) != nil || items[49].rec.made(formEvent) == nil {
		t.Error("the oldest form was kept, or the newest was not")
	}
	if string(first) != text || string(items[0].rec.in(formEvent)) != text {
		t.Error("the form has changed")
	}
}
