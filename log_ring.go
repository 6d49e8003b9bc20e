package gpoll

// A ring is a first-in, first-out queue that grows. The zero ring is empty. It is not safe for concurrent use.
type ring[T any] struct {
	buf   []T // its length is a power of two
	start int
	len   int
}

func (q *ring[T]) at(i int) T { return q.buf[(q.start+i)&(len(q.buf)-1)] }

// ref is at, in place. A push may move it.
func (q *ring[T]) ref(i int) *T { return &q.buf[(q.start+i)&(len(q.buf)-1)] }

func (q *ring[T]) push(v T) {
	if q.len == len(q.buf) {
		grown := make([]T, max(4, 2*len(q.buf)))
		n := copy(grown, q.buf[q.start:])
		copy(grown[n:], q.buf[:q.start])
		q.buf, q.start = grown, 0
	}
	q.buf[(q.start+q.len)&(len(q.buf)-1)] = v
	q.len++
}

func (q *ring[T]) pop() T {
	v := q.buf[q.start]
	q.drop()
	return v
}

// first is what pop would return, in place.
func (q *ring[T]) first() *T { return &q.buf[q.start] }

// drop is pop without the result.
func (q *ring[T]) drop() {
	var zero T
	q.buf[q.start] = zero
	q.start = (q.start + 1) & (len(q.buf) - 1)
	q.len--
	if q.len == 0 && len(q.buf) > 64 {
		q.buf, q.start = nil, 0 // a burst does not keep its memory
	}
}
