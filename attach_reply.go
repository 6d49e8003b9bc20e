package gpoll

import (
	"time"

	"github.com/corvuscrypto/gpoll/internal/frame"
)

// The reply lane: gpoll does what the client of a stream asks for in the order in which it asked, and answers in its
// place among the messages. Where the routine carries the client, an operation is done and answered at once
// (streamConn.inPlace). Otherwise it waits in attach.ops for the goroutine that serves the attach. The waiting
// operations are bounded: the reader of a client's commands calls full first, and reads no more while there is no room.

// An operation is done and answered at a cursor. did may also say that the client watches topics, and no others.
// The zero operation brings the topics of a renewed Grant.
type operation struct {
	did    string   // the client's topics are subscribed or unsubscribed, and the answer says so; "": they stay
	topics []string // a sorted set
	under  *grantee // what allowed it
	answer []byte   // JSON, for an operation that only answers
	ask    *ask     // likewise
}

const (
	subscribed   = "subscribed"
	unsubscribed = "unsubscribed"
	watching     = "watching"
)

// About so many bytes of operations may wait.
const mostWaiting = 32 << 10

// post has op done after the operations that were posted before. It waits for the application only.
func (a *attach) post(op operation) {
	if a.allow(&op) && !a.by.perform(&op) {
		a.queueUp(&op)
	}
}

func (a *attach) queueUp(op *operation) {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.client.attach == a {
		a.ops = append(a.ops, *op)
		a.attendLocked()
	}
}

func (a *attach) allow(op *operation) bool {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	return a.allowLocked(op)
}

// full returns a channel that is closed when there may be room for another operation, or the attach has ended; nil
// while there is room. It also returns what the client may do at the moment.
func (a *attach) full() (room <-chan struct{}, g *grantee) {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := 0
	for i := range a.ops {
		waiting += a.ops[i].size()
	}
	if waiting < mostWaiting || a.client.attach != a {
		return nil, a.grantee
	}
	if a.room == nil {
		a.room = make(chan struct{})
	}
	return a.room, a.grantee
}

// unanswered returns a channel that is closed when operations may have been answered, or the attach has ended; nil
// while none waits, nor an answer is being written. What ends the attach from the client's side waits for it: what the
// client is told does not depend on how much of what it says has arrived together.
func (a *attach) unanswered() <-chan struct{} {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(a.ops) == 0 && !a.answering || a.client.attach != a {
		return nil
	}
	if a.room == nil {
		a.room = make(chan struct{})
	}
	return a.room
}

// size is about how much memory the operation and its answer take.
func (op *operation) size() int {
	n := 128 + len(op.answer)
	if op.ask != nil {
		n += len(op.ask.json)
	}
	for _, topic := range op.topics {
		n += 32 + 2*len(topic)
	}
	return n
}

// roomLocked wakes the goroutines that wait for room, or for answers.
func (a *attach) roomLocked() {
	if a.room != nil {
		close(a.room)
		a.room = nil
	}
}

// operate does the posted operations in their order, at the cursor of the goroutine that serves the attach, and appends
// the answers to buf. When the topics change, the goroutine reads on from the log: the queue was chosen by the old
// topics.
func (a *attach) operate(buf []byte) []byte {
	c := a.client
	r := c.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	defer a.roomLocked()
	a.answering = true // until the goroutine calls step, when it has written buf
	for len(a.ops) > 0 {
		op := a.ops[0]
		if !a.allowLocked(&op) {
			return buf
		}
		a.ops = a.ops[1:]
		var changed bool
		if buf, changed = a.doLocked(buf, &op, a.cursor); changed {
			a.verified = false
			a.queue, c.queue = nil, nil
			a.heavy.Store(0)
			c.hot().mode = reading
		}
	}
	a.ops = nil
	return buf
}

// allowLocked asks the application, without the lock, whether op may be done. An op that may not becomes a refusal. The
// Grant that was asked is still in force when the topics change. allowLocked reports false when the attach has ended.
func (a *attach) allowLocked(op *operation) bool {
	c := a.client
	r := c.routine
	for c.attach == a && a.asksLocked(op) {
		g := a.grantee
		no := func() *refusal {
			r.mu.Unlock()
			defer r.mu.Lock() // also where the application ends the goroutine
			return g.mayDo(r.b, op)
		}()
		switch {
		case a.grantee != g:
			continue // the Grant was renewed meanwhile: ask the new one
		case c.attach != a:
		case no == refuseInternal:
			r.endLocked(a, endInternal)
		case no != nil:
			*op = a.refusal(no)
		default:
			op.under = a.grantee
		}
	}
	return c.attach == a
}

// asksLocked reports whether the application has to be asked whether op may be done.
func (a *attach) asksLocked(op *operation) bool {
	return op.under != a.grantee && (op.did == watching || op.did == subscribed && a.grantee.grant.Subscribe != nil)
}

// doLocked does op at a Position up to which the client has everything, and appends its answer. From now on the client
// is offered messages of its new topics; changed says whether they differ from the old ones.
func (a *attach) doLocked(buf []byte, op *operation, at Position) (answered []byte, changed bool) {
	c := a.client
	named := c.named
	switch op.did {
	case subscribed:
		named = union(named, op.topics)
		if most := c.routine.b.set.maxTopics; len(named) > most {
			no := a.refusal(refuseTooManyTopics(most))
			op = &no
		} else if why := refuseManyPatterns(named); why != nil {
			no := a.refusal(why)
			op = &no
		}
	case unsubscribed:
		named = without(named, op.topics)
	}
	switch {
	case op.ask != nil:
		c.session().offered = op.ask.number
		return a.appendAsk(buf, op.ask), false
	case op.answer != nil:
		return a.appendAnswer(buf, op.answer), false
	case op.did == watching:
		c.rewatchLocked(a, op.topics)
		return a.appendAnswer(buf, subscriptionJSON(op.did, op.topics, at)), false
	}
	if changed = c.setTopicsLocked(named, a.grantee.given()); changed {
		a.want = c.interestLocked()
	}
	if op.did != "" {
		buf = a.appendAnswer(buf, subscriptionJSON(op.did, op.topics, at))
	}
	return buf, changed
}

// refusal returns the operation that takes the place of a refused one.
func (a *attach) refusal(why *refusal) operation {
	a.client.routine.b.noteRefusal(why, nil)
	return operation{answer: why.frame("")}
}

// subscriptionJSON needs to escape nothing: see topicname.Valid.
func subscriptionJSON(did string, topics []string, at Position) []byte {
	b := append([]byte(`{"`), did...)
	b = append(b, `":{"topics":[`...)
	for i, topic := range topics {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, topic...)
		b = append(b, '"')
	}
	b = append(b, `],"position":"`...)
	return append(at.append(b), `"}}`...)
}

// appendAnswer appends the answer to a command as the client gets it: only gpoll.v1 brings commands.
func (a *attach) appendAnswer(b, answer []byte) []byte { return frame.Append(b, frame.Text, answer) }

// answerWait bounds what answered waits for a client that does not read.
const answerWait = 200 * time.Millisecond

// answered waits until the commands before are answered, for nobody answers them once the attach has ended.
func (a *attach) answered() {
	answers := a.unanswered()
	if answers == nil {
		return
	}
	late := time.NewTimer(min(answerWait, a.client.routine.b.set.writeTimeout/2))
	defer late.Stop()
	for ; answers != nil; answers = a.unanswered() {
		select {
		case <-answers:
		case <-late.C:
			return
		}
	}
}
