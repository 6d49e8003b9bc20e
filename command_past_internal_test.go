package gpoll

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// What is remembered of commands, against a list that forgets as it should.
func TestPastCommands(t *testing.T) {
	type entry struct {
		id, data, answer string
		at               moment
	}
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		var p pastCommands
		var list []entry
		now := moment(1)
		large := rnd.IntN(2) * 60_000
		for step := range 4000 {
			now += moment(rnd.Int64N(int64(300 * time.Millisecond)))
			if rnd.IntN(500) == 0 {
				now += moment(3 * time.Minute)
			}
			for len(list) > 0 && now-list[0].at > moment(commandIDAge) {
				list = list[1:]
			}
			cmd := &command{id: fmt.Sprint(step), data: fmt.Append(nil, step%7)}
			if len(list) > 0 && rnd.IntN(2) == 0 { // one that was there, perhaps with other content
				cmd.id = list[rnd.IntN(len(list))].id
			}
			var want entry
			kept, found := 0, -1
			for i := len(list) - 1; i >= 0; i-- {
				kept += len(list[i].answer)
				if list[i].id == cmd.id {
					want, found = list[i], i
					break
				}
			}
			answer, was := p.find(cmd, now)
			switch {
			case found < 0 && was != unheardOf,
				found >= 0 && want.data != string(cmd.data) && was != another,
				was == answered && string(answer) != want.answer,
				found >= 0 && want.data == string(cmd.data) && (kept <= replyBytes-mostChunk || found == len(list)-1) &&
					was != answered,
				kept > replyBytes+mostChunk && found >= 0 && found < len(list)-1 && was == answered:

				t.Fatalf("seed %d, step %d: %q is %d, at %d of %d, %d bytes behind it", seed, step, cmd.id, was, found, len(list),
					kept)
			}
			if was != unheardOf {
				continue
			}
			answer = []byte(cmd.id + strings.Repeat("x", rnd.IntN(20)+rnd.IntN(large+1)))
			if rnd.IntN(2) == 0 { // as most answers are made
				answer = append(p.tail(rnd.IntN(100)), answer...)
			}
			p.add(cmd, answer, now)
			if list = append(list, entry{cmd.id, string(cmd.data), string(answer), now}); len(list) > commandIDCount {
				list = list[1:]
			}
			held := 0
			for i := range p.chunks.len {
				held += cap(p.chunks.at(i))
			}
			if held > 2*(replyBytes+large)+mostChunk {
				t.Fatalf("%d bytes for answers", held)
			}
		}
		if p.forget(now + moment(commandIDAge) + 1); p.buckets != nil || p.done.buf != nil || p.chunks.buf != nil {
			t.Errorf("after a while it holds %+v", p)
		}
	}
}
