package gpoll

import (
	"fmt"
	"slices"
	"testing"
)

// In the tests what cannot be stops them.
func init() { impossible = func(what string) { panic("gpoll: " + what) } }

// An answer in the plain form has one message, which ends it: a second one is never put in its place.
func TestPlainAnswerHasOneMessage(t *testing.T) {
	message := func(seq uint64) item {
		rec := &record{pos: Position{1, seq}, data: fmt.Sprint("m", seq)}
		return item{rec: rec, pos: rec.pos}
	}
	gap := item{gap: &Gap{1, 2, 2, gapEvicted}, pos: Position{1, 2}}
	defer func(panics func(string)) { impossible = panics }(impossible)
	complaints := 0
	impossible = func(string) { complaints++ }
	a := plainAnswer([]item{message(1), gap, message(3)}, Position{1, 3})
	if a.body != "m1" || !slices.Contains(a.fields, field{"Gpoll-Position", Position{1, 1}.String()}) || complaints != 1 {
		t.Errorf("%+v, %d complaints", a, complaints)
	}
}
