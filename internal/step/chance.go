package step

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Choose2 says from which of two channels a select receives. Where one is ready, Choose2 receives from it and returns a
// channel that holds what came, in its place, and nil for the other. Where both are, the schedule chooses. Where none
// is, Choose2 returns them as they are.
func Choose2[A, B any](a <-chan A, b <-chan B) (<-chan A, <-chan B) {
	a, b, _ = Choose3(a, b, (<-chan struct{})(nil))
	return a, b
}

// Choose3 is Choose2 for three channels.
func Choose3[A, B, C any](a <-chan A, b <-chan B, c <-chan C) (<-chan A, <-chan B, <-chan C) {
	first := N(3)
	for i := range 3 {
		switch (first + i) % 3 {
		case 0:
			if got := receive(a); got != nil {
				return got, nil, nil
			}
		case 1:
			if got := receive(b); got != nil {
				return nil, got, nil
			}
		case 2:
			if got := receive(c); got != nil {
				return nil, nil, got
			}
		}
	}
	return a, b, c
}

// receive returns a channel that is as ready as c, if c is: it holds what c held, or is closed. Else it returns nil.
func receive[T any](c <-chan T) <-chan T {
	select {
	case v, ok := <-c:
		got := make(chan T, 1)
		if ok {
			got <- v
		} else {
			close(got)
		}
		return got
	default:
		return nil
	}
}

// Sorted ranges over a map in the order of its keys as text.
func Sorted[M ~map[K]V, K comparable, V any](m M) iter.Seq2[K, V] {
	keys := slices.SortedFunc(maps.Keys(m), func(x, y K) int { return cmp.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
	return func(yield func(K, V) bool) {
		for _, k := range keys {
			if v, ok := m[k]; ok && !yield(k, v) {
				return
			}
		}
	}
}
