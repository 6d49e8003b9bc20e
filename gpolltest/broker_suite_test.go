package gpolltest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/corvuscrypto/gpoll"
)

// The MemoryBroker keeps every promise.
func TestMemoryBroker(t *testing.T) {
	TestBroker(t, func(t *testing.T) gpoll.Broker {
		b := gpoll.NewMemoryBroker()
		t.Cleanup(func() { _ = b.Close(context.Background()) })
		return b
	})
}

// A badBroker is a MemoryBroker with a fault. Each field that is set replaces a sound method.
type badBroker struct {
	gpoll.Broker
	publish   func(context.Context, gpoll.Record) (gpoll.Position, error)
	subscribe func(context.Context, gpoll.Position, gpoll.Subscriber) (func(), error)
	history   func(context.Context, gpoll.Position, int) ([]gpoll.Record, error)
	window    func(context.Context) (before, newest gpoll.Position, err error)
	close     func(context.Context) error
}

func (b *badBroker) Publish(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
	if b.publish != nil {
		return b.publish(ctx, r)
	}
	return b.Broker.Publish(ctx, r)
}

func (b *badBroker) Subscribe(ctx context.Context, after gpoll.Position, s gpoll.Subscriber) (func(), error) {
	if b.subscribe != nil {
		return b.subscribe(ctx, after, s)
	}
	return b.Broker.Subscribe(ctx, after, s)
}

func (b *badBroker) History(ctx context.Context, after gpoll.Position, limit int) ([]gpoll.Record, error) {
	if b.history != nil {
		return b.history(ctx, after, limit)
	}
	return b.Broker.History(ctx, after, limit)
}

func (b *badBroker) Window(ctx context.Context) (before, newest gpoll.Position, err error) {
	if b.window != nil {
		return b.window(ctx)
	}
	return b.Broker.Window(ctx)
}

func (b *badBroker) Close(ctx context.Context) error {
	if b.close != nil {
		return b.close(ctx)
	}
	return b.Broker.Close(ctx)
}

// altered is a Subscriber whose records go through a function first.
type altered struct {
	gpoll.Subscriber
	deliver func(to gpoll.Subscriber, records []gpoll.Record)
}

func (s altered) Deliver(records []gpoll.Record) { s.deliver(s.Subscriber, records) }

// delivers makes b deliver in another way.
func (b *badBroker) delivers(deliver func(to gpoll.Subscriber, records []gpoll.Record)) {
	b.subscribe = func(ctx context.Context, after gpoll.Position, s gpoll.Subscriber) (func(), error) {
		return b.Broker.Subscribe(ctx, after, altered{s, deliver})
	}
}

// deaf is a Subscriber that is told of records only.
type deaf struct{ gpoll.Subscriber }

func (deaf) Epoch(gpoll.Position) {}

// For each promise there is a broker that breaks it, and the clause of that promise says so.
func TestBrokerClausesCanFail(t *testing.T) {
	planted := map[string]bool{}
	for _, tt := range []struct {
		clause, fault string
		plant         func(*badBroker)
	}{
		{"carries", "the nonce is lost", func(b *badBroker) {
			b.publish = func(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
				r.Nonce = 0
				return b.Broker.Publish(ctx, r)
			}
		}},
		{"carries", "History returns no id", func(b *badBroker) {
			b.history = func(ctx context.Context, after gpoll.Position, limit int) ([]gpoll.Record, error) {
				records, err := b.Broker.History(ctx, after, limit)
				for i := range records {
					records[i].ID = ""
				}
				return records, err
			}
		}},
		{"order", "two neighbours are delivered the wrong way round", func(b *badBroker) {
			var held []gpoll.Record
			b.delivers(func(to gpoll.Subscriber, records []gpoll.Record) {
				for _, r := range records {
					if held = append(held, r); len(held) == 2 {
						to.Deliver([]gpoll.Record{held[1], held[0]})
						held = nil
					}
				}
			})
		}},
		{"order", "one is never delivered", func(b *badBroker) {
			b.delivers(func(to gpoll.Subscriber, records []gpoll.Record) {
				to.Deliver(slices.DeleteFunc(records, func(r gpoll.Record) bool { return r.Position.Seq == 77 }))
			})
		}},
		{"order", "Publish returns the Position of another", func(b *badBroker) {
			b.publish = func(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
				pos, err := b.Broker.Publish(ctx, r)
				if pos.Seq%100 == 50 {
					pos.Seq++
				}
				return pos, err
			}
		}},
		{"window", "it begins with the oldest record", func(b *badBroker) {
			b.window = func(ctx context.Context) (before, newest gpoll.Position, err error) {
				before, newest, err = b.Broker.Window(ctx)
				before.Seq++
				return before, newest, err
			}
		}},
		{"history", "it begins at the Position", func(b *badBroker) {
			b.history = func(ctx context.Context, after gpoll.Position, limit int) ([]gpoll.Record, error) {
				after.Seq = max(after.Seq, 1) - 1
				return b.Broker.History(ctx, after, limit)
			}
		}},
		{"history", "the limit is not kept", func(b *badBroker) {
			b.history = func(ctx context.Context, after gpoll.Position, _ int) ([]gpoll.Record, error) {
				return b.Broker.History(ctx, after, 1000)
			}
		}},
		{"repeat", "ids are not looked at", func(b *badBroker) {
			b.publish = func(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
				r.ID = ""
				return b.Broker.Publish(ctx, r)
			}
		}},
		{"outcome", "a context that has ended is the error, and the record is there", func(b *badBroker) {
			b.publish = func(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
				pos, err := b.Broker.Publish(ctx, r)
				if ctx.Err() != nil {
					return gpoll.Position{}, ctx.Err()
				}
				return pos, err
			}
		}},
		{"outcome", "it is added again after a failure that is unknown", func(b *badBroker) {
			b.publish = func(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
				if ctx.Err() == nil {
					return b.Broker.Publish(ctx, r)
				}
				for range 2 {
					_, _ = b.Broker.Publish(context.Background(), r)
				}
				return gpoll.Position{}, fmt.Errorf("%w: time-out", gpoll.ErrUnknown)
			}
		}},
		{"after", "a subscription begins at the end", func(b *badBroker) {
			b.subscribe = func(ctx context.Context, _ gpoll.Position, s gpoll.Subscriber) (func(), error) {
				_, newest, _ := b.Broker.Window(ctx)
				return b.Broker.Subscribe(ctx, newest, s)
			}
		}},
		{"other epoch", "nobody is told of it", func(b *badBroker) {
			b.subscribe = func(ctx context.Context, after gpoll.Position, s gpoll.Subscriber) (func(), error) {
				return b.Broker.Subscribe(ctx, after, deaf{s})
			}
		}},
		{"one at a time", "each record has a goroutine", func(b *badBroker) {
			b.delivers(func(to gpoll.Subscriber, records []gpoll.Record) {
				var all sync.WaitGroup
				for i := range records {
					all.Go(func() { to.Deliver(records[i : i+1]) })
				}
				all.Wait()
			})
		}},
		{"waits", "Publish waits for who receives", func(b *badBroker) {
			busy := make(chan struct{}, 1)
			b.delivers(func(to gpoll.Subscriber, records []gpoll.Record) {
				busy <- struct{}{}
				defer func() { <-busy }()
				to.Deliver(records)
			})
			b.publish = func(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
				select {
				case busy <- struct{}{}:
					defer func() { <-busy }()
					return b.Broker.Publish(ctx, r)
				case <-ctx.Done():
					return gpoll.Position{}, ctx.Err()
				}
			}
		}},
		{"waits", "who waits loses what comes meanwhile", func(b *badBroker) {
			b.delivers(func(to gpoll.Subscriber, records []gpoll.Record) { to.Deliver(records[:min(len(records), 10)]) })
		}},
		{"from within", "History waits for who receives", func(b *badBroker) {
			busy := make(chan struct{}, 1)
			b.delivers(func(to gpoll.Subscriber, records []gpoll.Record) {
				busy <- struct{}{}
				defer func() { <-busy }()
				to.Deliver(records)
			})
			b.history = func(ctx context.Context, after gpoll.Position, limit int) ([]gpoll.Record, error) {
				select {
				case busy <- struct{}{}:
					defer func() { <-busy }()
					return b.Broker.History(ctx, after, limit)
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
		}},
		{"stop", "it does not wait for the call that is under way", func(b *badBroker) {
			b.subscribe = func(ctx context.Context, after gpoll.Position, s gpoll.Subscriber) (func(), error) {
				ctx, cancel := context.WithCancel(ctx)
				_, err := b.Broker.Subscribe(ctx, after, s)
				return cancel, err
			}
		}},
		{"stop", "it ends nothing", func(b *badBroker) {
			b.subscribe = func(ctx context.Context, after gpoll.Position, s gpoll.Subscriber) (func(), error) {
				held := &holding{to: s}
				_, err := b.Broker.Subscribe(ctx, after, altered{s, held.deliver})
				return held.wait, err
			}
		}},
		{"stop", "it ends all", func(b *badBroker) {
			var mu sync.Mutex
			var stops []func()
			b.subscribe = func(ctx context.Context, after gpoll.Position, s gpoll.Subscriber) (func(), error) {
				stop, err := b.Broker.Subscribe(ctx, after, s)
				mu.Lock()
				defer mu.Unlock()
				stops = append(stops, stop)
				return func() {
					mu.Lock()
					all := slices.Clone(stops)
					mu.Unlock()
					for _, stop := range all {
						stop()
					}
				}, err
			}
		}},
		{"context", "it is not looked at", func(b *badBroker) {
			b.subscribe = func(ctx context.Context, after gpoll.Position, s gpoll.Subscriber) (func(), error) {
				return b.Broker.Subscribe(context.WithoutCancel(ctx), after, s)
			}
		}},
		{"memory", "one buffer serves for all records", func(b *badBroker) {
			b.subscribe = func(ctx context.Context, after gpoll.Position, s gpoll.Subscriber) (func(), error) {
				buffer := make([]byte, 0, 1024)
				return b.Broker.Subscribe(ctx, after, altered{s, func(to gpoll.Subscriber, records []gpoll.Record) {
					for i := range records {
						records[i].Bytes = append(buffer[:0], records[i].Bytes...)
						to.Deliver(records[i : i+1])
					}
				}})
			}
		}},
		{"memory", "History gives away what is kept", func(b *badBroker) {
			kept := map[gpoll.Position][]byte{}
			b.history = func(ctx context.Context, after gpoll.Position, limit int) ([]gpoll.Record, error) {
				records, err := b.Broker.History(ctx, after, limit)
				for i, r := range records {
					if kept[r.Position] == nil {
						kept[r.Position] = r.Bytes
					}
					records[i].Bytes = kept[r.Position]
				}
				return records, err
			}
		}},
		{"epoch", "it begins whatever the record follows", func(b *badBroker) {
			b.publish = func(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
				if r.Kind == gpoll.RecordEpoch {
					_, r.Prev.Position, _ = b.Broker.Window(ctx)
				}
				return b.Broker.Publish(ctx, r)
			}
		}},
		{"epoch", "it is a record like others", func(b *badBroker) {
			b.publish = func(ctx context.Context, r gpoll.Record) (gpoll.Position, error) {
				if _, newest, _ := b.Broker.Window(ctx); r.Kind == gpoll.RecordEpoch && r.Prev.Position != newest {
					return gpoll.Position{}, gpoll.ErrConflict
				} else if r.Kind == gpoll.RecordEpoch {
					r.Kind = 99
				}
				return b.Broker.Publish(ctx, r)
			}
		}},
		{"close", "it closes nothing", func(b *badBroker) {
			b.close = func(context.Context) error { return nil }
		}},
		{"close", "twice is an error", func(b *badBroker) {
			b.close = func(ctx context.Context) error {
				if _, err := b.Broker.Subscribe(ctx, gpoll.Position{}, &recorder{}); err != nil {
					return err
				}
				return b.Broker.Close(ctx)
			}
		}},
	} {
		planted[tt.clause] = true
		t.Run(tt.clause+", "+tt.fault, func(t *testing.T) {
			t.Parallel()
			i := slices.IndexFunc(brokerClauses, func(c brokerClause) bool { return c.name == tt.clause })
			inner := gpoll.NewMemoryBroker()
			defer func() { _ = inner.Close(context.Background()) }()
			b := &badBroker{Broker: inner}
			tt.plant(b)
			ctx, cancel := context.WithTimeout(t.Context(), brokerPatience/5)
			defer cancel()
			err := brokerClauses[i].check(ctx, b)
			if err == nil {
				t.Fatal("the clause finds nothing")
			}
			t.Log(err)
		})
	}
	for _, c := range brokerClauses {
		if !planted[c.name] {
			t.Errorf("no broker breaks %q", c.name)
		}
	}
}

// A holding lets its wait know what is under way.
type holding struct {
	mu sync.Mutex
	to gpoll.Subscriber
}

func (h *holding) deliver(to gpoll.Subscriber, records []gpoll.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	to.Deliver(records)
}

func (h *holding) wait() {
	h.mu.Lock()
	defer h.mu.Unlock()
}
