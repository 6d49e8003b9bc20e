package gpoll

import "slices"

// sortedSet returns a sorted copy of s without repetition; nil for none.
func sortedSet(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Clip(slices.Compact(s))
}

// union returns the sorted set of the strings in a, a sorted set, and in b.
func union(a, b []string) []string {
	if len(b) == 0 {
		return a
	}
	return sortedSet(append(slices.Clone(a), b...))
}

// without returns the strings of s that are not in minus.
func without(s, minus []string) []string {
	if len(minus) == 0 {
		return s
	}
	return slices.DeleteFunc(slices.Clone(s), func(v string) bool { return slices.Contains(minus, v) })
}
