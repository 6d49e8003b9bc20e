package gpolltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// TestBroker checks a broker against the promises of gpoll.Broker. Each promise has a subtest of its own, whose failure
// names the promise. open returns a new, empty broker, and has t.Cleanup close the broker and everything under it.
// TestBroker takes some seconds; it never waits for longer than ten.
//
// TestBroker cannot cause faults of the store. Outages, losses and restarts are for the broker's own tests.
func TestBroker(t *testing.T, open func(t *testing.T) gpoll.Broker) {
	for _, c := range brokerClauses {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), brokerPatience)
			defer cancel()
			if err := c.check(ctx, open(t)); err != nil {
				t.Errorf("%s\nthe promise: %s", err, c.promise)
			}
		})
	}
}

// brokerPatience bounds the check of one clause.
const brokerPatience = 10 * time.Second

// A brokerClause is one promise of gpoll.Broker.
type brokerClause struct {
	name    string
	promise string
	check   func(context.Context, gpoll.Broker) error // an error says how b breaks it
}

var brokerClauses = []brokerClause{
	{"carries", "Kind, Nonce, Prev, ID and Bytes come back as they were given, by Deliver and by History.", checkCarries},
	{"order", "Seqs of an epoch are consecutive. A Publish that begins when another has returned gets a later Position. " +
		"Deliver brings every record, in the order of the Positions that Publish returned.", checkOrder},
	{"window", "Window returns the Position before the oldest record that History can return and that of the newest, " +
		"equal when there is none, with an epoch that is not 0.", checkWindow},
	{"history", "History returns up to limit records after a Position, oldest first; a Position of another epoch reads " +
		"from the oldest. No record is an empty answer.", checkHistory},
	{"repeat", "A record whose ID was published before is not added again: Publish returns the Position of the first.",
		checkRepeat},
	{"outcome", "An error of Publish that does not wrap ErrUnknown says that the record was not added, and one that " +
		"does that it was added at most once.", checkOutcome},
	{"after", "Subscribe lets a Subscriber have every record after a Position, also while others publish.", checkAfter},
	{"other epoch", "A Subscriber that comes with a Position of another epoch is told of the present one first, by " +
		"Epoch or by a record, and reads from the oldest record.", checkOtherEpoch},
	{"one at a time", "The broker calls a Subscriber's methods one at a time.", checkOneAtATime},
	{"waits", "While a Subscriber waits in Deliver, Publish, History, Window and other Subscribers go on, and the one " +
		"that waited has every record afterwards.", checkWaits},
	{"from within", "All methods may be called from within the methods of a Subscriber.", checkFromWithin},
	{"stop", "When stop returns, no method of the Subscriber is under way and none will be called. stop may be called " +
		"again. Others that have subscribed notice nothing.", checkStop},
	{"context", "The end of its context ends a subscription. Subscribe with a context that has ended returns an error.",
		checkContext},
	{"memory", "Bytes that were delivered do not change, and what History returns belongs to the caller.", checkMemory},
	{"epoch", "A RecordEpoch begins a new epoch, only if its Prev.Position is that of the newest record; else the " +
		"error wraps ErrConflict. Of many that propose one at a time one wins.", checkEpoch},
	{"close", "Close ends all subscriptions, as stop does; Publish and Subscribe then return ErrClosed; a second Close " +
		"does nothing.", checkClose},
}

// A recorder is a Subscriber that remembers what it was told.
type recorder struct {
	during func() // called within every Deliver

	mu      sync.Mutex // guards the fields below
	inside  int        // calls that are under way
	overlap bool
	records []gpoll.Record // each Position once, the first time that it came
	seen    map[gpoll.Position]gpoll.Record
	late    []string // what is wrong with the order
	epochs  []gpoll.Position
	calls   int
	news    chan struct{} // closed at the next call; nil when nobody waits
}

func (s *recorder) enter() (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside++
	s.calls++
	s.overlap = s.overlap || s.inside > 1
	if s.news != nil {
		close(s.news)
		s.news = nil
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inside--
	}
}

// Deliver implements gpoll.Subscriber.
func (s *recorder) Deliver(records []gpoll.Record) {
	defer s.enter()()
	if s.during != nil {
		s.during()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		first, again := s.seen[r.Position]
		if again && !same(first, r) {
			s.late = append(s.late, fmt.Sprintf("two records were delivered at %v", r.Position))
		}
		if again {
			continue
		}
		if n := len(s.records); n > 0 {
			last := s.records[n-1].Position
			if last.Epoch == r.Position.Epoch && last.Seq > r.Position.Seq {
				s.late = append(s.late, fmt.Sprintf("%v was delivered after %v", r.Position, last))
			}
		}
		if s.seen == nil {
			s.seen = map[gpoll.Position]gpoll.Record{}
		}
		s.seen[r.Position] = r
		s.records = append(s.records, r)
	}
	if s.news != nil {
		close(s.news)
		s.news = nil
	}
}

// Hole implements gpoll.Subscriber.
func (s *recorder) Hole(gpoll.Position) { defer s.enter()() }

// Epoch implements gpoll.Subscriber.
func (s *recorder) Epoch(at gpoll.Position) {
	defer s.enter()()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epochs = append(s.epochs, at)
}

// Outage implements gpoll.Subscriber.
func (s *recorder) Outage(error) { defer s.enter()() }

// await waits until ready, which is called with s.mu held, returns true.
func (s *recorder) await(ctx context.Context, ready func() bool) error {
	for {
		s.mu.Lock()
		if ready() {
			s.mu.Unlock()
			return nil
		}
		if s.news == nil {
			s.news = make(chan struct{})
		}
		news := s.news
		s.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			return fmt.Errorf("after %d records, in %d calls, what was due did not come", len(s.records), s.calls)
		}
	}
}

// has waits until the record at every Position of want has come. It returns the records that came, in order.
func (s *recorder) has(ctx context.Context, want ...gpoll.Position) ([]gpoll.Record, error) {
	err := s.await(ctx, func() bool {
		return !slices.ContainsFunc(want, func(p gpoll.Position) bool { _, ok := s.seen[p]; return !ok })
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case len(s.late) > 0:
		return nil, errors.New(s.late[0])
	}
	return slices.Clone(s.records), nil
}

// same reports whether two records are the same, apart from their place.
func same(a, b gpoll.Record) bool {
	return a.Kind == b.Kind && a.Nonce == b.Nonce && a.Prev == b.Prev && a.ID == b.ID && bytes.Equal(a.Bytes, b.Bytes)
}

// plain is the nth record of a clause that needs nothing special.
func plain(n int) gpoll.Record {
	return gpoll.Record{Kind: gpoll.RecordMessage, Nonce: uint64(n) + 1, Bytes: fmt.Append([]byte{1, 0, 0, 0}, n)}
}

// add publishes records one after the other.
func add(ctx context.Context, b gpoll.Broker, records ...gpoll.Record) (at []gpoll.Position, err error) {
	for i, r := range records {
		r.Bytes = bytes.Clone(r.Bytes) // they become the broker's
		pos, err := b.Publish(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("Publish of record %d: %w", i, err)
		}
		at = append(at, pos)
	}
	return at, nil
}

// some publishes n plain records.
func some(ctx context.Context, b gpoll.Broker, n int) ([]gpoll.Position, error) {
	var records []gpoll.Record
	for i := range n {
		records = append(records, plain(i))
	}
	return add(ctx, b, records...)
}

// newest returns the Position of the newest record.
func newest(ctx context.Context, b gpoll.Broker) (gpoll.Position, error) {
	_, newest, err := b.Window(ctx)
	if err != nil {
		err = fmt.Errorf("the window: %w", err)
	}
	return newest, err
}

// listen subscribes s from the end.
func listen(ctx context.Context, b gpoll.Broker, s *recorder) (stop func(), err error) {
	end, err := newest(ctx, b)
	if err != nil {
		return nil, err
	}
	if stop, err = b.Subscribe(ctx, end, s); err != nil {
		return nil, fmt.Errorf("Subscribe: %w", err)
	}
	return stop, nil
}

func checkCarries(ctx context.Context, b gpoll.Broker) error {
	var s recorder
	stop, err := listen(ctx, b, &s)
	if err != nil {
		return err
	}
	defer stop()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	link := gpoll.Link{Position: gpoll.Position{Epoch: 1<<64 - 1, Seq: 1<<53 - 1}, Nonce: 1<<64 - 1}
	given := []gpoll.Record{
		{Kind: gpoll.RecordMessage, Bytes: []byte{1, 0, 0, 0}},
		{Kind: gpoll.RecordMessage, Nonce: 1<<64 - 1, Prev: link, ID: "an id: é\x00\xff", Bytes: all},
		{Kind: 255, Nonce: 1, Prev: gpoll.Link{Position: gpoll.Position{Epoch: 1}}, Bytes: []byte("of a newer server")},
		{Kind: 200, Nonce: 2},
		{Kind: gpoll.RecordMessage, Nonce: 3, Bytes: bytes.Repeat(all, 512)}, // 128 KiB
	}
	at, err := add(ctx, b, given...)
	if err != nil {
		return err
	}
	got, err := s.has(ctx, at...)
	if err != nil {
		return err
	}
	kept, err := b.History(ctx, gpoll.Position{}, 100)
	if err != nil {
		return fmt.Errorf("History: %w", err)
	}
	for by, records := range map[string][]gpoll.Record{"Deliver": got, "History": kept} {
		if len(records) != len(given) {
			return fmt.Errorf("%s brought %d records of %d", by, len(records), len(given))
		}
		for i, r := range records {
			if r.Position != at[i] || !same(r, given[i]) {
				return fmt.Errorf("%s brought record %d altered: %s; it was %s", by, i, show(r), show(given[i]))
			}
		}
	}
	return nil
}

func show(r gpoll.Record) string {
	return fmt.Sprintf("%v kind %d nonce %d prev %v/%d id %q, %d bytes %.16x",
		r.Position, r.Kind, r.Nonce, r.Prev.Position, r.Prev.Nonce, r.ID, len(r.Bytes), r.Bytes)
}

func checkOrder(ctx context.Context, b gpoll.Broker) error {
	const publishers, each = 8, 50
	var s recorder
	stop, err := listen(ctx, b, &s)
	if err != nil {
		return err
	}
	defer stop()
	before, err := newest(ctx, b)
	if err != nil {
		return err
	}
	var h History
	var all sync.WaitGroup
	failed := make(chan error, publishers)
	for p := range publishers {
		all.Go(func() {
			for n := range each {
				if _, err := h.Publish(ctx, PublishTo(b), gpoll.Message{Data: fmt.Append(nil, p, "-", n)}); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return fmt.Errorf("Publish: %w", err)
	default:
	}
	if v := (Checker{}).Check(&h); len(v) > 0 {
		return errors.New(v[0].String())
	}
	var want []gpoll.Position
	for n := range uint64(publishers * each) {
		want = append(want, gpoll.Position{Epoch: before.Epoch, Seq: before.Seq + n + 1})
	}
	got, err := s.has(ctx, want...)
	if err != nil {
		return err
	}
	if v := (Checker{}).CheckBroker(&h, got); len(v) > 0 {
		return errors.New("delivered: " + v[0].String())
	}
	return nil
}

func checkWindow(ctx context.Context, b gpoll.Broker) error {
	before, end, err := b.Window(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("the window: %w", err)
	case before != end || end.Epoch == 0:
		return fmt.Errorf("with nothing in it, the window is %v to %v", before, end)
	}
	at, err := some(ctx, b, 3)
	if err != nil {
		return err
	}
	from, to, err := b.Window(ctx)
	if err != nil || from != before || to != at[2] || at[0].Epoch != end.Epoch {
		return fmt.Errorf("with %v to %v in it, the window is %v to %v, %v; it was %v", at[0], at[2], from, to, err, end)
	}
	return nil
}

func checkHistory(ctx context.Context, b gpoll.Broker) error {
	end, err := newest(ctx, b)
	if err != nil {
		return err
	}
	if got, err := b.History(ctx, end, 10); err != nil || len(got) != 0 {
		return fmt.Errorf("with nothing there: %d records, %v", len(got), err)
	}
	at, err := some(ctx, b, 10)
	if err != nil {
		return err
	}
	other := gpoll.Position{Epoch: at[0].Epoch + 1, Seq: at[5].Seq}
	beyond := gpoll.Position{Epoch: at[0].Epoch, Seq: at[9].Seq + 100}
	for _, tt := range []struct {
		after gpoll.Position
		limit int
		want  []gpoll.Position
	}{
		{end, 100, at}, {end, 10, at}, {end, 3, at[:3]}, {at[3], 2, at[4:6]}, {at[8], 5, at[9:]}, {at[9], 5, nil},
		{beyond, 5, nil}, {other, 4, at[:4]}, {gpoll.Position{}, 100, at},
	} {
		got, err := b.History(ctx, tt.after, tt.limit)
		if err != nil {
			return fmt.Errorf("after %v, at most %d: %w", tt.after, tt.limit, err)
		}
		var places []gpoll.Position
		for _, r := range got {
			places = append(places, r.Position)
		}
		if !slices.Equal(places, tt.want) {
			return fmt.Errorf("after %v, at most %d: %v, want %v", tt.after, tt.limit, places, tt.want)
		}
	}
	return nil
}

func checkRepeat(ctx context.Context, b gpoll.Broker) error {
	const publishers = 8
	at := make([]gpoll.Position, publishers)
	failed := make([]error, publishers)
	var all sync.WaitGroup
	for i := range publishers {
		all.Go(func() {
			r := plain(i) // another attempt has another nonce
			r.ID = "an id"
			at[i], failed[i] = b.Publish(ctx, r)
		})
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("Publish: %w", err)
	}
	other, err := some(ctx, b, 1)
	if err != nil {
		return err
	}
	again := plain(100)
	again.ID = "an id"
	late, err := add(ctx, b, again)
	if err != nil {
		return err
	}
	at = append(at, late...)
	for _, p := range at {
		if p != at[0] {
			return fmt.Errorf("one id was given the Positions %v", at)
		}
	}
	kept, err := b.History(ctx, gpoll.Position{}, 100)
	if err != nil || len(kept) != 2 || kept[0].Position != at[0] || kept[1].Position != other[0] {
		return fmt.Errorf("with one id published %d times, and one record without, there are %d records, %v",
			len(at), len(kept), err)
	}
	return nil
}

func checkOutcome(ctx context.Context, b gpoll.Broker) error {
	type outcome struct {
		pos gpoll.Position
		err error
	}
	const n = 50
	outcomes := make([]outcome, n)
	for i := range n {
		// A context that ends before, during or after the call.
		part, cancel := context.WithTimeout(ctx, time.Duration(i)*20*time.Microsecond)
		if i%10 == 0 {
			cancel()
		}
		outcomes[i].pos, outcomes[i].err = b.Publish(part, plain(i))
		cancel()
	}
	if _, err := some(ctx, b, 1); err != nil { // what was under way comes before
		return err
	}
	kept, err := b.History(ctx, gpoll.Position{}, 10*n)
	if err != nil {
		return fmt.Errorf("History: %w", err)
	}
	for i, o := range outcomes {
		var at []gpoll.Position
		for _, r := range kept[:len(kept)-1] {
			if r.Nonce == plain(i).Nonce {
				at = append(at, r.Position)
			}
		}
		switch {
		case o.err == nil && (len(at) != 1 || at[0] != o.pos):
			return fmt.Errorf("Publish returned %v, and the record is at %v", o.pos, at)
		case errors.Is(o.err, gpoll.ErrUnknown) && len(at) > 1:
			return fmt.Errorf("Publish returned %w, and the record is at %v", o.err, at)
		case o.err != nil && !errors.Is(o.err, gpoll.ErrUnknown) && len(at) > 0:
			return fmt.Errorf("Publish returned %w, and the record is at %v", o.err, at)
		}
	}
	return nil
}

func checkAfter(ctx context.Context, b gpoll.Broker) error {
	const n = 200
	at := make(chan gpoll.Position, n)
	failed := make(chan error, 1)
	publishing, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	defer func() { cancel(); <-done }()
	go func() { // ends when all are published, or the clause is over
		defer close(done)
		defer close(at)
		for i := range n {
			pos, err := b.Publish(publishing, plain(i))
			if err != nil {
				failed <- err
				return
			}
			at <- pos
		}
	}()
	var all []gpoll.Position
	subscribers := map[int]*recorder{} // by how many records stand before them
	for pos := range at {
		all = append(all, pos)
		if len(all)%20 == 0 {
			s, after := &recorder{}, len(all)/2
			stop, err := b.Subscribe(ctx, all[after-1], s)
			if err != nil {
				return fmt.Errorf("Subscribe: %w", err)
			}
			defer stop()
			subscribers[after] = s
		}
	}
	select {
	case err := <-failed:
		return fmt.Errorf("Publish: %w", err)
	default:
	}
	for after, s := range subscribers {
		got, err := s.has(ctx, all[after:]...)
		if err != nil {
			return fmt.Errorf("subscribed after %v: %w", all[after-1], err)
		}
		if got[0].Position != all[after] {
			return fmt.Errorf("subscribed after %v, and the first record is %v", all[after-1], got[0].Position)
		}
	}
	return nil
}

func checkOtherEpoch(ctx context.Context, b gpoll.Broker) error {
	empty := &recorder{}
	end, err := newest(ctx, b)
	if err != nil {
		return err
	}
	old := gpoll.Position{Epoch: end.Epoch ^ 1, Seq: 3}
	stop, err := b.Subscribe(ctx, old, empty)
	if err != nil {
		return fmt.Errorf("Subscribe: %w", err)
	}
	defer stop()
	if err := empty.await(ctx, func() bool { return len(empty.epochs) == 1 && empty.epochs[0] == end }); err != nil {
		return fmt.Errorf("with nothing there, Epoch(%v) did not come: %w", end, err)
	}
	at, err := some(ctx, b, 5)
	if err != nil {
		return err
	}
	full := &recorder{}
	stop, err = b.Subscribe(ctx, old, full)
	if err != nil {
		return fmt.Errorf("Subscribe: %w", err)
	}
	defer stop()
	for _, s := range []*recorder{empty, full} {
		if _, err := s.has(ctx, at...); err != nil {
			return err
		}
	}
	return nil
}

func checkOneAtATime(ctx context.Context, b gpoll.Broker) error {
	s := &recorder{during: func() { time.Sleep(time.Millisecond) }}
	stop, err := listen(ctx, b, s)
	if err != nil {
		return err
	}
	defer stop()
	var all sync.WaitGroup
	var mu sync.Mutex
	var at []gpoll.Position
	for p := range 8 {
		all.Go(func() {
			for n := range 10 {
				pos, err := b.Publish(ctx, plain(100*p+n))
				mu.Lock()
				if err == nil {
					at = append(at, pos)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if _, err := s.has(ctx, at...); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.overlap {
		return errors.New("a method was called while another was under way")
	}
	return nil
}

func checkWaits(ctx context.Context, b gpoll.Broker) error {
	release := make(chan struct{})
	slow := &recorder{during: func() { <-release }} // also when ctx has ended: it may not look as if nobody waited
	var quick recorder
	for _, s := range []*recorder{slow, &quick} {
		stop, err := listen(ctx, b, s)
		if err != nil {
			return err
		}
		defer stop()
	}
	letGo := sync.OnceFunc(func() { close(release) })
	defer letGo() // before the stops
	part, cancel := context.WithTimeout(ctx, brokerPatience/2)
	defer cancel()
	at, err := some(part, b, 1)
	if err != nil {
		return err
	}
	if err := slow.await(part, func() bool { return slow.inside > 0 }); err != nil {
		return err
	}
	more, err := some(part, b, 99)
	if err != nil {
		return fmt.Errorf("while one waits: %w", err)
	}
	at = append(at, more...)
	if _, err := quick.has(part, at...); err != nil {
		return fmt.Errorf("while one waits, the other: %w", err)
	}
	if got, err := b.History(part, gpoll.Position{}, 1000); err != nil || len(got) != 100 {
		return fmt.Errorf("while one waits, History: %d records, %v", len(got), err)
	}
	if end, err := newest(part, b); err != nil || end != at[99] {
		return fmt.Errorf("while one waits, the newest is %v, %v", end, err)
	}
	letGo()
	if _, err := slow.has(ctx, at...); err != nil {
		return fmt.Errorf("the one that waited: %w", err)
	}
	return nil
}

func checkFromWithin(ctx context.Context, b gpoll.Broker) error {
	var once sync.Once
	done := make(chan error, 1)
	s := &recorder{during: func() {
		once.Do(func() {
			_, err := b.History(ctx, gpoll.Position{}, 10)
			if err == nil {
				_, _, err = b.Window(ctx)
			}
			if err == nil {
				_, err = b.Publish(ctx, plain(1))
			}
			if err == nil {
				var other func()
				if other, err = b.Subscribe(ctx, gpoll.Position{}, &recorder{}); err == nil {
					other()
				}
			}
			done <- err
		})
	}}
	stop, err := listen(ctx, b, s)
	if err != nil {
		return err
	}
	at, err := some(ctx, b, 1)
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return errors.New("a call from within Deliver did not return") // nor would stop
	}
	defer stop()
	_, err = s.has(ctx, at[0], gpoll.Position{Epoch: at[0].Epoch, Seq: at[0].Seq + 1})
	return err
}

func checkStop(ctx context.Context, b gpoll.Broker) error {
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := &recorder{during: func() {
		once.Do(func() { close(entered) })
		<-release
	}}
	letGo := sync.OnceFunc(func() { close(release) })
	defer letGo()
	stop, err := listen(ctx, b, s)
	if err != nil {
		return err
	}
	var other recorder
	stopOther, err := listen(ctx, b, &other)
	if err != nil {
		return err
	}
	defer stopOther()
	if _, err := some(ctx, b, 1); err != nil {
		return err
	}
	select {
	case <-entered:
	case <-ctx.Done():
		return errors.New("Deliver was not called")
	}
	stopped := make(chan struct{}, 2)
	for range 2 {
		go func() { // ends when stop has returned, which letGo makes it
			stop()
			stopped <- struct{}{}
		}()
	}
	select {
	case <-stopped:
		return errors.New("stop returned while Deliver was under way")
	case <-time.After(50 * time.Millisecond): // so long a fault has to show; a sound broker never comes here otherwise
	}
	letGo()
	for range 2 {
		select {
		case <-stopped:
		case <-ctx.Done():
			return errors.New("stop did not return after Deliver had")
		}
	}
	s.mu.Lock()
	calls := s.calls
	s.mu.Unlock()
	stop()
	at, err := some(ctx, b, 20)
	if err != nil {
		return err
	}
	if _, err := other.has(ctx, at...); err != nil {
		return fmt.Errorf("the other, after one has stopped: %w", err)
	}
	return quiet(s, calls, "stop had returned")
}

// quiet reports calls that came after there had been so many.
func quiet(s *recorder, calls int, after string) error {
	time.Sleep(20 * time.Millisecond) // so long a fault has to show
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls > calls {
		return fmt.Errorf("%d calls came after %s", s.calls-calls, after)
	}
	return nil
}

func checkContext(ctx context.Context, b gpoll.Broker) error {
	var s, other recorder
	part, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := listen(part, b, &s)
	if err != nil {
		return err
	}
	stopOther, err := listen(ctx, b, &other)
	if err != nil {
		return err
	}
	defer stopOther()
	at, err := some(ctx, b, 1)
	if err != nil {
		return err
	}
	if _, err := s.has(ctx, at...); err != nil {
		return err
	}
	cancel()
	// Soon: stop would hide whether the end of the context does it, so that is tried for half the time.
	deadline := time.Now().Add(brokerPatience / 2)
	for {
		time.Sleep(10 * time.Millisecond)
		s.mu.Lock()
		calls := s.calls
		s.mu.Unlock()
		at, err := some(ctx, b, 5)
		if err != nil {
			return err
		}
		if _, err := other.has(ctx, at...); err != nil {
			return fmt.Errorf("the other, after the context of one has ended: %w", err)
		}
		if err = quiet(&s, calls, "the context had ended"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return err
		}
	}
	stop()
	if stop, err := b.Subscribe(part, at[0], &s); err == nil {
		stop()
		return errors.New("Subscribe with a context that has ended returned no error")
	}
	return nil
}

func checkMemory(ctx context.Context, b gpoll.Broker) error {
	var first, second recorder
	for _, s := range []*recorder{&first, &second} {
		stop, err := listen(ctx, b, s)
		if err != nil {
			return err
		}
		defer stop()
	}
	const n = 50
	at, err := some(ctx, b, n)
	if err != nil {
		return err
	}
	for range 3 {
		kept, err := b.History(ctx, gpoll.Position{}, n)
		if err != nil || len(kept) != n {
			return fmt.Errorf("History: %d records, %v", len(kept), err)
		}
		for i, r := range kept {
			if !same(r, plain(i)) {
				return fmt.Errorf("what was done to the bytes that History returned shows in the next answer: %s", show(r))
			}
			for j := range r.Bytes {
				r.Bytes[j] = 'x'
			}
			_ = append(r.Bytes, "xxxxxxxxxxxxxxxx"...)
		}
	}
	late := &recorder{}
	stop, err := b.Subscribe(ctx, gpoll.Position{}, late)
	if err != nil {
		return fmt.Errorf("Subscribe: %w", err)
	}
	defer stop()
	for _, s := range []*recorder{&first, &second, late} {
		got, err := s.has(ctx, at...)
		if err != nil {
			return err
		}
		if got, err = s.has(ctx, got[len(got)-1].Position); err != nil {
			return err
		}
		for i, r := range got {
			if !same(r, plain(i)) {
				return fmt.Errorf("bytes that were delivered have changed: %s, want %s", show(r), show(plain(i)))
			}
		}
	}
	return nil
}

func checkEpoch(ctx context.Context, b gpoll.Broker) error {
	var s recorder
	stop, err := listen(ctx, b, &s)
	if err != nil {
		return err
	}
	defer stop()
	at, err := some(ctx, b, 2)
	if err != nil {
		return err
	}
	begin := func(prev gpoll.Position, n uint64) gpoll.Record {
		return gpoll.Record{Kind: gpoll.RecordEpoch, Nonce: n, Prev: gpoll.Link{Position: prev}}
	}
	ahead, other := at[1], at[1]
	ahead.Seq++
	other.Epoch++
	for _, prev := range []gpoll.Position{{}, at[0], ahead, other} {
		if pos, err := b.Publish(ctx, begin(prev, 9)); !errors.Is(err, gpoll.ErrConflict) {
			return fmt.Errorf("a RecordEpoch behind %v, where the newest is %v: %v, %v", prev, at[1], pos, err)
		}
	}
	const proposers = 8
	won := make([]gpoll.Position, proposers)
	lost := make([]error, proposers)
	var all sync.WaitGroup
	for i := range proposers {
		all.Go(func() { won[i], lost[i] = b.Publish(ctx, begin(at[1], uint64(i+100))) })
	}
	all.Wait()
	var winner gpoll.Position
	wins := 0
	for i, err := range lost {
		switch {
		case err == nil:
			winner = won[i]
			wins++
		case !errors.Is(err, gpoll.ErrConflict):
			return fmt.Errorf("who proposed an epoch in vain: %w", err)
		}
	}
	if wins != 1 || winner.Epoch == at[1].Epoch || winner.Epoch == 0 {
		return fmt.Errorf("of %d that propose an epoch at a time %d win, the last %v behind %v",
			proposers, wins, winner, at[1])
	}
	next, err := some(ctx, b, 2)
	if err != nil {
		return err
	}
	if next[0] != (gpoll.Position{Epoch: winner.Epoch, Seq: winner.Seq + 1}) {
		return fmt.Errorf("the epoch begins with %v, and the next record is %v", winner, next[0])
	}
	got, err := s.has(ctx, winner, next[0], next[1])
	if err != nil {
		return err
	}
	for _, r := range got {
		if r.Position == winner && r.Kind != gpoll.RecordEpoch {
			return fmt.Errorf("%v is of kind %d", winner, r.Kind)
		}
	}
	kept, err := b.History(ctx, at[1], 100)
	if err != nil || len(kept) != 3 || kept[0].Position != winner {
		return fmt.Errorf("in the new epoch History returns %d records, %v", len(kept), err)
	}
	return nil
}

func checkClose(ctx context.Context, b gpoll.Broker) error {
	var s recorder
	stop, err := listen(ctx, b, &s)
	if err != nil {
		return err
	}
	at, err := some(ctx, b, 3)
	if err != nil {
		return err
	}
	if _, err := s.has(ctx, at...); err != nil {
		return err
	}
	for range 2 {
		if err := b.Close(ctx); err != nil {
			return fmt.Errorf("Close: %w", err)
		}
	}
	s.mu.Lock()
	calls := s.calls
	s.mu.Unlock()
	if pos, err := b.Publish(ctx, plain(0)); !errors.Is(err, gpoll.ErrClosed) {
		return fmt.Errorf("Publish returns %v, %v", pos, err)
	}
	if _, err := b.Subscribe(ctx, gpoll.Position{}, &recorder{}); !errors.Is(err, gpoll.ErrClosed) {
		return fmt.Errorf("Subscribe returns %v", err)
	}
	stop()
	return quiet(&s, calls, "Close had returned")
}
