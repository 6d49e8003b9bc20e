package gpoll

import "time"

// recordOf returns what the log keeps of m.
func recordOf(m *Message) *record {
	return newRecord(m.Position, m.address(), m.Except, m.Data, time.Now())
}

// appendMessage appends m, however far readers are behind.
func (l *messageLog) appendMessage(m *Message) appendResult { return l.append(recordOf(m), 1<<30) }

// HoldRounds keeps every routine from taking messages until letGo is called.
func (b *Broadcaster) HoldRounds() (letGo func()) {
	var turns []*scratch
	for range cap(b.turns) {
		turns = append(turns, <-b.turns)
	}
	return func() {
		for _, t := range turns {
			b.turns <- t
		}
	}
}
