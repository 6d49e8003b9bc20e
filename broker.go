package gpoll

import "context"

// A Broker puts records in one total order and hands them to every Broadcaster that subscribes. The MemoryBroker does
// so within a process; others let many servers share one log. docs/brokers.md explains how to write one, and TestBroker
// of package gpolltest tests a broker against this documentation.
//
// Seqs of an epoch are consecutive and at most 2^53−1; an epoch may begin with any. An epoch ends whenever accepted
// records may have been lost, reordered or numbered anew: what follows has the Positions of another epoch. An epoch
// that has ended never comes back.
//
// All methods may be called concurrently, also from within the methods of a Subscriber. Those that take a context
// return soon after it has ended.
type Broker interface {
	// Publish adds r behind all others and returns the Position that it was given, once r is as safe as the broker's
	// configuration makes it. It waits for no Subscriber of another process. A Publish that begins when another has
	// returned gets a later Position.
	//
	// An error that wraps ErrUnknown says that r may have been added, once. Any other error says that it was not and never
	// will be: ErrClosed after Close, an error that wraps ErrUnavailable where the broker cannot be reached, or the cause
	// of ctx.
	//
	// Where r.ID was published within 2 minutes and 100,000 ids before, on any server, r is not added again: Publish
	// returns the Position of the first.
	//
	// A RecordEpoch begins a new epoch, with an Epoch that the broker draws, and is its first record. It is added only if
	// r.Prev.Position is that of the newest record, as Window returns it: of several proposals at a time one wins. The
	// error of the others wraps ErrConflict.
	//
	// r.Bytes belongs to the broker from the call on, even after an error: the broker may keep it and write to it.
	Publish(ctx context.Context, r Record) (Position, error)

	// Subscribe calls Deliver of s for every record after that Position, and its other methods as they say, until stop is
	// called, ctx ends or the broker is closed. It returns once that is under way; the error is ErrClosed, the cause of
	// ctx, or the broker's own. After a Position of another epoch than the present one, s gets the records from the oldest
	// on, and learns of the epoch first, by Epoch or by a record. Where records after the Position are gone, s learns it
	// by Hole or by the next Position.
	//
	// When stop returns, no method of s is under way and none will be called. It may be called again and concurrently, but
	// not by s. The end of ctx does the same a little later. Other subscriptions go on.
	Subscribe(ctx context.Context, after Position, s Subscriber) (stop func(), err error)

	// History returns up to limit records after that Position, oldest first, as far as the broker still has them. They are
	// of the present epoch; after a Position of another one History returns them from the oldest on. They belong to the
	// caller. When there is none, the answer is empty and no error. A record that was delivered, or whose Publish has
	// returned, is there until it is too old.
	History(ctx context.Context, after Position, limit int) ([]Record, error)

	// Window returns the Position before the oldest record that History can return, and the Position of the newest. They
	// are equal when there is none. Both have the epoch of the next record, which is not 0.
	Window(ctx context.Context) (before, newest Position, err error)

	// Close ends all subscriptions, as stop does, and the broker. Publish and Subscribe then return ErrClosed. The
	// application that made the broker calls it; a Broadcaster does not. A second Close does nothing. ctx bounds the wait
	// for what is under way.
	Close(ctx context.Context) error
}

// A Subscriber is told what a Broker carries. The broker calls its methods one at a time.
//
// They may take long: a server that falls behind holds up the delivery, as it holds up Send. The broker waits, and
// holds no lock that Publish, History or another Subscriber needs. It may leave out what it can no longer keep
// meanwhile, like everything that is lost on the way: the Subscriber sees by the next Position that something is
// missing, and asks History for it.
type Subscriber interface {
	// Deliver brings records in the order of their Positions. A record may come again, and late; the Subscriber passes
	// over it. The slice belongs to the broker again when Deliver returns. Neither side changes the Bytes from then on.
	Deliver(records []Record)

	// Hole says that Deliver will not bring any more of the present epoch's records up to that Position. History may have
	// them. The call is needed only where no record follows soon: the next one says the same by its Position.
	Hole(until Position)

	// Epoch says that a new epoch has begun and that the next record comes after that Position. A RecordEpoch, or any
	// other record of that epoch, says the same by its Position.
	Epoch(at Position)

	// Outage says why the broker cannot be reached; nil says that it can be reached again. Meanwhile nothing is delivered.
	// Afterwards delivery goes on behind the record that was delivered last.
	Outage(err error)
}
