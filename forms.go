package gpoll

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// What a message costs beside its data, its topic and its Except: the record, its places in the lane, in the window and
// in what the routines have not taken. A test measures it.
const recordBytes = int(unsafe.Sizeof(record{})) + 56

// What a lane with messages costs beside them: itself, its first places, and what the map of lanes has for it.
const laneBytes = int(unsafe.Sizeof(lane{})) + 88

// formsShare is which part of History.Bytes the wire forms have; the messages have the rest.
const formsShare = 4

// A formSet is the wire forms of a record that somebody has asked for.
type formSet struct {
	rec   *record
	made  [formCount]atomic.Pointer[[]byte]
	plain atomic.Pointer[answer] // of a poll

	// Guarded by the mu of the formCache.
	older, newer *formSet
	bytes        int // that are counted; 0: the set is not in the list
	freed        bool
}

// A formCache bounds the memory of the forms of a log's records. The set to which a form was added the longest ago goes
// first; whoever wants one of its forms again makes it again. So what a client asks for never costs another a message.
// The forms of a record that has left its window live as long as somebody uses it, and do not count.
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

// keep keeps a form and returns it, or the one that somebody else has made meanwhile.
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

// count counts n bytes more, and frees the oldest sets where there are too many. What is added to a set that has just
// been freed goes with it.
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

// leave is called when rec leaves its window. Whoever adds a form at the same time sees either that it is gone, or is
// seen here: gone is set before forms is looked at, and count looks at gone after the set is in forms.
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
