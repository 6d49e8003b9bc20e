package gpoll

// The reply lane: what the client of a stream has asked for and what it is told, in the order in which it asked, and in
// its place among the messages. Where the routine carries the client an operation is done and answered at once, and the
// routine goes on (session.inPlace). Else it waits in attach.ops for the goroutine that serves the attach. What waits
// is bounded: whoever brings a client's commands asks full first, and takes no more of a client whose answers have no
// room.

// An operation is done at a cursor, and answered there. The zero operation brings the topics of a Grant that has been
// renewed.
type operation struct {
	did    string   // what the answer says of the topics that the client names: subscribed or unsubscribed; "": they stay
	topics []string // a sorted set
	under  *grantee // what allowed it
	answer []byte   // JSON, where nothing is done
}

const (
	subscribed   = "subscribed"
	unsubscribed = "unsubscribed"
)

// So many bytes of operations, about, may wait.
const mostWaiting = 32 << 10

// post has op done after what was posted before. It asks the application, and waits for nobody else.
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
// while there is room.
func (a *attach) full() <-chan struct{} {
	r := a.client.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := 0
	for i := range a.ops {
		waiting += a.ops[i].size()
	}
	if waiting < mostWaiting || a.client.attach != a {
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
	for _, topic := range op.topics {
		n += 32 + 2*len(topic)
	}
	return n
}

// roomLocked lets those go on that wait for room.
func (a *attach) roomLocked() {
	if a.room != nil {
		close(a.room)
		a.room = nil
	}
}

// operate does what was posted, in its order, at the cursor of the goroutine that serves the attach, and appends the
// answers to buf. When the topics have changed, what is queued was chosen by the old ones: the goroutine reads on from
// the log.
func (a *attach) operate(buf []byte) []byte {
	c := a.client
	r := c.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	defer a.roomLocked()
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

// allowLocked asks the application whether op may be done, without the lock; op becomes a refusal where it may not.
// What an operation is allowed and what it does are one step: the Grant that was asked is the one in force when the
// topics change. allowLocked reports false when the attach has ended.
func (a *attach) allowLocked(op *operation) bool {
	c := a.client
	r := c.routine
	for c.attach == a && a.asksLocked(op) {
		g := a.grantee
		no := func() *refusal {
			r.mu.Unlock()
			defer r.mu.Lock() // also where the application ends the goroutine
			return g.mayRead(r.b, op.topics)
		}()
		switch {
		case a.grantee != g:
			continue // it was renewed meanwhile: what the old one allows counts no more
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
	return op.did == subscribed && op.under != a.grantee && a.grantee.grant.Subscribe != nil
}

// doLocked does op at a Position up to which the client has everything, and appends its answer. What is offered from
// now on is chosen by the topics that it leaves; changed says that these are others than before.
func (a *attach) doLocked(buf []byte, op *operation, at Position) (answered []byte, changed bool) {
	c := a.client
	named := c.named
	switch op.did {
	case subscribed:
		named = union(named, op.topics)
		if most := c.routine.b.set.maxTopics; len(named) > most {
			no := a.refusal(refuseTooManyTopics(most))
			op = &no
		}
	case unsubscribed:
		named = without(named, op.topics)
	}
	if op.answer != nil {
		return a.appendAnswer(buf, op.answer), false
	}
	if changed = c.setTopicsLocked(named, a.grantee.given()); changed {
		a.want = c.interestLocked()
	}
	if op.did != "" {
		buf = a.appendAnswer(buf, subscriptionJSON(op.did, op.topics, at))
	}
	return buf, changed
}

// refusal returns what is done in the place of an operation that is refused.
func (a *attach) refusal(why *refusal) operation {
	a.client.routine.b.counts.refused.add(why.code)
	a.client.routine.b.logRefusal(why, nil)
	return operation{answer: errorJSON(why)}
}
