package gpoll

// A channelSink carries an attach of GetChannel. While the consumer keeps up the routine sends; else a goroutine reads the log
// and waits for room.
type channelSink struct {
	ch   chan string
	stop chan struct{} // closed at the end, for the goroutine that waits for room
}

// openChannel attaches to c, or returns the channel of the attach that is there.
func (c *Client) openChannel() (chan string, error) {
	c.routine.mu.Lock()
	if a := c.attach; a != nil && a.channel != nil {
		defer c.routine.mu.Unlock()
		return a.channel.ch, nil
	}
	c.routine.mu.Unlock()
	b := c.routine.b
	sink := &channelSink{ch: make(chan string, b.set.clientBuffer), stop: make(chan struct{})}
	a, err := c.open(attachOptions{transport: channel, channel: sink, arrived: b.arrivals.Add(1)})
	if err == errAttached { // by another call that has come meanwhile
		return a.channel.ch, nil
	}
	if err != nil {
		return nil, err
	}
	c.routine.mu.Lock()
	if c.attach == a {
		a.back, c.hot().direct = direct, sink.ch
	}
	c.routine.mu.Unlock()
	a.pumpChannel()
	return sink.ch, nil
}

// pumpChannel sends what the client is owed until the routine takes over, without waiting; if the channel
// fills up, a goroutine goes on. That ends when the routine takes over or the attach ends.
func (a *attach) pumpChannel() {
	if ev, _ := a.step(); ev == gotHandedOver {
		return
	}
	a.client.routine.b.spawn(a.fillChannel)
}

// fillChannel sends what the client is owed, waiting for room, until the routine takes over or the attach ends. It closes the
// channel at the end.
func (a *attach) fillChannel() {
	defer a.rescueChannel()
	sink := a.channel
	b := a.client.routine.b
	var items []item
	for {
		var ev event
		items, ev = a.next(b.limitReplay(), items[:0])
		switch ev {
		case gotHandedOver:
			return
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
			if !sink.send(it.rec.data) {
				break // next reports the end; nothing is sent behind what was not
			}
			b.delivered.Add(1)
		}
	}
}

// send waits for room, and reports false when the attach has ended.
func (s *channelSink) send(data string) bool {
	select {
	case s.ch <- data:
		return true
	case <-s.stop:
		return false
	}
}

// endChannel ends an attach whose consumer cannot be told of a gap otherwise.
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

// offer sends recs from the routine and returns how many. When the channel is full a goroutine takes over.
func (s *channelSink) offer(c *Client, recs []*record) (sent uint64) {
	from := c.hot().from
	for _, rec := range recs {
		if rec.pos.Seq <= from {
			continue
		}
		if rec.hole == nil {
			select {
			case s.ch <- rec.data:
				sent++
				continue
			default:
			}
		}
		at := Position{rec.pos.Epoch, rec.pos.Seq - 1}
		if rec.hole != nil {
			at.Seq = rec.hole.From - 1
		}
		s.lagLocked(c, at)
		return sent
	}
	return sent
}

// lagLocked lets a goroutine carry the client on from that cursor, until it has caught up.
func (s *channelSink) lagLocked(c *Client, cursor Position) {
	a := c.attach
	a.cursor, a.verified = cursor, true
	c.hot().mode = reading
	c.routine.b.spawn(a.fillChannel)
}

// endLocked lets the consumer see the end. Without a goroutine that sends, the channel is closed here.
func (s *channelSink) endLocked(direct bool) {
	close(s.stop)
	if direct {
		close(s.ch)
	}
}
