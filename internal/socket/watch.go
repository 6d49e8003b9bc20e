package socket

// Watched is a connection, or whoever looks after one, that a Watch tells what happens.
type Watched interface {
	comparable
	// Look says that something may be there to be read: what has arrived, or, with hungUp, the end of what the peer
	// sends. Look is called once for each such event, on the one goroutine that a Watch has, and must not wait. It may
	// still be called once when Remove has returned.
	Look(hungUp bool)
}
