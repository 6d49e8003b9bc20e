package gpoll

import "context"

// A Broker puts messages in one total order and hands them to every Broadcaster that subscribes. The MemoryBroker does so
// within a process; others let many servers share one log.
//
// Seqs of an epoch are consecutive and at most 2^53−1. What may have been before the first that a reader is told of, by Window or by
// deliver, is missing for that reader, which announces a gap: an epoch that begins with 1 has none there.
//
// All methods may be called concurrently. CheckBroker of gpolltest.Checker holds what a broker carries against what it accepted.
type Broker interface {
	// Publish adds m to the order and returns the Position that it was given, once it is as safe as the broker is
	// configured to make it. An error that wraps ErrUnknown says that m may have been added, once; any other, that it
	// was not and never will be. A Message whose ID was published within 2 minutes and 100,000 ids before is not added
	// again: Publish returns the Position of the first. m.Data and m.Except belong to the broker from the call on: it may
	// keep them and write to them.
	Publish(ctx context.Context, m Message) (Position, error)

	// Subscribe calls deliver with every message after that Position, in order and one call at a time, until stop or Close. It
	// returns once that is under way. stop ends it for this subscriber alone: when it returns, no call is under way and none
	// comes. It may be called again. A message may be delivered again, and a lost one may be left out: the reader
	// tells by the Position. deliver keeps what it is given: neither it nor the broker changes Data and Except from then on.
	// It does not wait for clients.
	Subscribe(after Position, deliver func(Message)) (stop func(), err error)

	// History returns up to limit messages after that Position, oldest first, as far as the broker still has them. They
	// are of the present epoch; a Position of another one reads from the beginning. They belong to the caller.
	History(ctx context.Context, after Position, limit int) ([]Message, error)

	// Window returns the Position before the oldest message that History can return and that of the newest. They
	// are equal when there is none. Both have the epoch of the next message, which is not 0.
	Window(ctx context.Context) (before, newest Position, err error)

	// Close ends deliver's calls and the broker. Publish then returns ErrClosed. Whoever made the broker calls it.
	Close(ctx context.Context) error
}
