package load

import "testing"

// A client's view of a stream that another client of it receives undisturbed.
func TestSequence(t *testing.T) {
	tests := []struct {
		name                                   string
		arrive                                 []uint64
		deliveries, lost, repeated, disordered uint64
		done                                   uint64 // everybody is past it
	}{
		{name: "in order", arrive: []uint64{1, 2, 3}, deliveries: 3, done: 3},
		{name: "hole", arrive: []uint64{1, 3}, deliveries: 2, lost: 1, done: 3},
		{name: "first is missing", arrive: []uint64{2}, deliveries: 1, lost: 1, done: 2},
		{name: "repeat", arrive: []uint64{1, 1, 2}, deliveries: 2, repeated: 1, done: 2},
		{name: "swapped", arrive: []uint64{1, 3, 2, 4}, deliveries: 4, disordered: 1, done: 4},
		{name: "swapped, then repeated", arrive: []uint64{1, 3, 2, 2}, deliveries: 3, disordered: 1, repeated: 1, done: 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &stream{base: 1, clients: 2}
			s.passed(1, 10) // the other client
			tally := newTally()
			q := &sequence{next: 1}
			for _, seq := range tt.arrive {
				q.take(s, tally, seq)
			}
			if tally.Deliveries != tt.deliveries || tally.Lost != tt.lost || tally.Repeated != tt.repeated ||
				tally.Disordered != tt.disordered {
				t.Errorf("deliveries %d, lost %d, repeated %d, disordered %d; want %d, %d, %d, %d", tally.Deliveries,
					tally.Lost, tally.Repeated, tally.Disordered,
					tt.deliveries, tt.lost, tt.repeated, tt.disordered)
			}
			if got := s.base - 1; got != tt.done {
				t.Errorf("everybody is past %d, want %d", got, tt.done)
			}
		})
	}
}

// A client that has gone holds nobody up, and is not counted twice.
func TestStreamLeave(t *testing.T) {
	s := &stream{base: 1, clients: 3}
	s.passed(1, 2)
	s.passed(1, 2)
	s.leave(1) // the third never got anything
	if s.base != 3 {
		t.Errorf("base is %d after the one who waited has gone, want 3", s.base)
	}
	s.passed(3, 3)
	s.leave(4) // the one that has message 3
	if s.base != 3 {
		t.Errorf("base is %d, but the last client does not have message 3", s.base)
	}
	s.passed(3, 3)
	if s.base != 4 {
		t.Errorf("base is %d, want 4", s.base)
	}
}
