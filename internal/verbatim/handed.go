package verbatim

// Handed is what a server has been handed of a connection, piece by piece. It knows the bytes of a request if the
// server has read them, and nothing else, since the answer to the one before. The zero Handed is a new connection's.
type Handed struct {
	within bool   // it is not known that what comes next begins a request
	whole  bool   // its end is the end of a request's head
	lost   bool   // seen is not all of it
	reads  uint32 // counts
	seen   []byte // since a request began
}

// Add notes a piece that the server gets, and does not keep it.
func (h *Handed) Add(p []byte) {
	if len(p) == 0 {
		return
	}
	h.within = true
	h.reads++
	switch {
	case h.lost:
	case h.whole || len(h.seen)+len(p) > MaxHead: // the request before it was not to be remembered, or this is too long
		h.lost, h.seen = true, nil
	default:
		h.seen = append(h.seen, p...)
	}
	h.whole = endsHead(p)
}

// Fresh reports whether what comes next begins a request: all requests that the server has been handed are over.
func (h *Handed) Fresh() bool { return !h.within }

// Reads returns how many pieces there were, modulo 2^32.
func (h *Handed) Reads() uint32 { return h.reads }

// Over notes that a request has been answered, if written is true: the one that the server was at when Reads returned
// reads. It returns the bytes of the request, which are the caller's, or nil if they are not known. If they are, what
// comes next begins a request.
//
// A server reads no further than it must: if the last piece that it got ends a head, that is the head of this request.
// A piece that came since Reads is of the next one. Where the four bytes that end a head came in two pieces, or alone,
// nothing is known.
func (h *Handed) Over(reads uint32, written bool) (request []byte) {
	h.within = !(written && h.whole && h.reads == reads)
	if !h.within && !h.lost {
		request = h.seen
	}
	h.seen, h.whole, h.lost = nil, false, h.within
	return request
}
