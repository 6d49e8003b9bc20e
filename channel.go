package gpoll

// A channelSink carries an attach of GetChannel. While the consumer keeps up the routine sends; else a goroutine reads
// the log and waits for room.
type channelSink struct {
	ch   chan string
	stop chan struct{} // closed at the end, for the goroutine that waits for room
}

// openChannel attaches to c, or returns the channel of the attach that is there.
func (c *Client) openChannel() (chan string, error) {
	sink, a, err := c.attachChannel()
	if err != nil {
		return nil, err
	}
	if a != nil {
		a.pumpChannel()
	}
	return sink.ch, nil
}

// attachChannel returns the channel of c, and the attach if it is new.
func (c *Client) attachChannel() (*channelSink, *attach, error) {
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	if c.attach != nil {
		if sink, ok := c.attach.by.(*channelSink); ok { // all calls share one
			return sink, nil, nil
		}
	}
	b := c.routine.b
	sink := &channelSink{ch: make(chan string, b.set.clientBuffer), stop: make(chan struct{})}
	a, err := c.openLocked(&attachOptions{transport: channel, by: sink, arrived: b.arrivals.Add(1), keeps: true})
	if err == nil {
		c.err = nil // it told why the last channel ended
	}
	return sink, a, err
}

// pumpChannel sends what the client is owed until the routine takes over, without waiting; if the channel fills up, a
// goroutine goes on. The goroutine ends when the routine takes over or the attach ends.
func (a *attach) pumpChannel() {
	if ev, _ := a.step(); ev == gotHandedOver {
		return
	}
	a.client.routine.b.spawn(a.fillChannel)
}

// fillChannel sends what the client is owed, waiting for room, until the routine takes over or the attach ends. It
// closes the channel at the end.
func (a *attach) fillChannel() {
	sink := a.by.(*channelSink)
	defer sink.rescue(a)
	b := a.client.routine.b
	var items []item
	for {
		var ev event
		items, ev = a.next(b.limitReplay(), items[:0])
		switch ev {
		case gotHandedOver:
			return
		case gotOp: // new topics, which Client.Subscribe brings
			a.operate(nil)
			continue
		case gotEnd:
			close(sink.ch)
			return
		}
		for _, it := range items {
			if it.gap != nil {
				b.countGap(it.gap)
				a.client.endChannel(a, it.gap)
				break // next reports the end
			}
			if !a.sendChannel(sink, it.rec) {
				break // next reports the end; what follows is not sent
			}
		}
	}
}

// sendChannel waits for room, and reports false when the attach has ended. Messages in the channel count as delivered:
// the client's next attach goes on after them. If it comes in the moment in which there is room again, it may bring
// that message once more.
func (a *attach) sendChannel(sink *channelSink, rec *record) bool {
	c := a.client
	select {
	case sink.ch <- rec.data:
	case <-sink.stop:
		return false
	}
	c.routine.b.delivered.Add(1)
	c.routine.mu.Lock()
	defer c.routine.mu.Unlock()
	if c.attach == a {
		c.cursor = rec.pos
	}
	return true
}

// endChannel ends an attach for a gap: a channel of strings cannot carry it.
func (c *Client) endChannel(a *attach, gap *Gap) {
	r := c.routine
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.attach != a {
		return
	}
	c.err = &EndError{Code: "gap", Gap: gap}
	r.endLocked(a, endSlow)
}

// take is carrier's.
func (s *channelSink) take(_ *Client, h *hotClient) { h.by, h.direct, h.mode = s, s.ch, direct }

func (*channelSink) pending() bool { return false }

// offer sends recs from the routine. When the channel is full a goroutine takes over.
func (s *channelSink) offer(r *routine, c *Client, recs []*record) {
	from := c.hot().from
	for _, rec := range recs {
		if rec.pos.Seq <= from {
			continue
		}
		if rec.hole == nil {
			select {
			case s.ch <- rec.data:
				r.sent++
				continue
			default:
			}
		}
		at := Position{rec.pos.Epoch, rec.pos.Seq - 1}
		if rec.hole != nil {
			at.Seq = rec.hole.From - 1
		}
		s.lagLocked(c, at)
		return
	}
}

func (*channelSink) perform(*operation) bool { return false }

func (*channelSink) inform(*attach) bool { return false }

func (s *channelSink) leave(r *routine, c *Client) { s.lagLocked(c, r.at) }

// reached returns the end of what was offered: messages in a channel count as delivered.
func (*channelSink) reached(r *routine, c *Client) Position { return maxPosition(r.at, c.hot().from) }

func (*channelSink) elapsed(*routine, *attach) {} // a channel is never due

func (*channelSink) overdue(*routine, *attach, moment) {}

// lagLocked lets a goroutine carry the client on from that cursor, until it has caught up.
func (s *channelSink) lagLocked(c *Client, cursor Position) {
	a := c.attach
	a.cursor, a.verified, c.cursor = cursor, true, cursor
	c.hot().mode = reading
	c.routine.b.spawn(a.fillChannel)
}

// ended lets the consumer see the end. Without a goroutine that sends, the channel is closed here.
func (s *channelSink) ended(_ *routine, a *attach, was mode, why *ending) {
	if c := a.client; c.err == nil {
		c.err = &EndError{Code: why.refusal.code}
	}
	close(s.stop)
	if was == direct {
		close(s.ch)
	}
}

// rescue is deferred in fillChannel, which closes the channel when its attach ends.
func (s *channelSink) rescue(a *attach) {
	if v := recover(); v != nil {
		a.client.routine.b.logPanic("a goroutine of a client", v)
		a.end(endInternal)
		close(s.ch)
	}
}
