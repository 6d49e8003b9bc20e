package gpoll

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// The memory of a message beside its data, its topic and its Except: the record and its places in the lane, in the
// window and among what the routines have not taken. A test measures it.
const recordBytes = int(unsafe.Sizeof(record{})) + 56

// The memory of a lane beside its messages: the lane, its first places and its entry in the map of lanes.
const laneBytes = int(unsafe.Sizeof(lane{})) + 88

// formsShare: one part in so many of History.Bytes is for the wire forms, the rest for the messages.
const formsShare = 4

// A formSet is the wire forms of a record, as far as they were asked for.
type formSet struct {
	rec   *record
	made  [formCount]atomic.Pointer[[]byte]
	plain atomic.Pointer[answer] // of a poll

	// Guarded by the mu of the formCache.
	older, newer *formSet
	bytes        int // of the set that are counted; 0: it is not in the list
	freed        bool
}

// A formCache bounds the memory of the forms of a log's records. The set that got no new form for the longest time goes
// first; its forms are made again when they are wanted. So what one client asks for never costs another a message. The
// forms of a record that has left its window live as long as the record is used, and do not count.
type formCache struct {
	mu             sync.Mutex // guards the fields below
	limit          int
	bytes          int
	oldest, newest *formSet
}

// made returns a form that is kept, or nil.
func (rec *record) made(f form) *[]byte {
	if set := rec.forms.Load(); set != nil {
		return set.made[f].Load()
	}
	return nil
}

// keep keeps a form and returns it, or the one that another goroutine has made meanwhile.
func (rec *record) keep(f form, made []byte) []byte {
	set := rec.formSet()
	if !set.made[f].CompareAndSwap(nil, &made) {
		return *set.made[f].Load()
	}
	set.count(cap(made) + int(unsafe.Sizeof(made)))
	return made
}

// keepPlain is keep for the answer to a plain poll.
func (rec *record) keepPlain(a *answer) {
	if set := rec.formSet(); set.plain.CompareAndSwap(nil, a) {
		set.count(a.size())
	}
}

// formSet returns the set of rec, a new one if it has none.
func (rec *record) formSet() *formSet {
	for {
		if set := rec.forms.Load(); set != nil {
			return set
		}
		if set := (&formSet{rec: rec}); rec.forms.CompareAndSwap(nil, set) {
			return set
		}
	}
}

// count counts n bytes more, and frees the oldest sets when the bytes are too many. A form that is added to a set that
// has just been freed goes with the set.
func (set *formSet) count(n int) {
	c := set.rec.cache
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if set.freed || set.rec.gone.Load() {
		return
	}
	if c.takeOutLocked(set); set.bytes == 0 {
		n += int(unsafe.Sizeof(*set))
	}
	set.bytes += n
	c.bytes += set.bytes
	if set.older = c.newest; set.older != nil {
		set.older.newer = set
	} else {
		c.oldest = set
	}
	c.newest = set
	for c.bytes > c.limit && c.oldest != set {
		old := c.oldest
		c.takeOutLocked(old)
		old.bytes, old.freed = 0, true
		old.rec.forms.CompareAndSwap(old, nil)
	}
}

// takeOutLocked takes a set out of the list, if it is there.
func (c *formCache) takeOutLocked(set *formSet) {
	if set.bytes == 0 {
		return
	}
	c.bytes -= set.bytes
	if set.older != nil {
		set.older.newer = set.newer
	} else {
		c.oldest = set.newer
	}
	if set.newer != nil {
		set.newer.older = set.older
	} else {
		c.newest = set.older
	}
	set.older, set.newer = nil, nil
}

// leave is called when rec leaves its window. A form that is added at the same time is not counted, or leave takes it
// out: leave sets gone before it looks at forms, and count looks at gone after the set is in forms.
func (c *formCache) leave(rec *record) {
	rec.gone.Store(true)
	if set := rec.forms.Load(); set != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.takeOutLocked(set)
		set.bytes = 0
	}
}

// held returns how many bytes are counted.
func (c *formCache) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
