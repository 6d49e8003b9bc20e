package sealed

import (
	"encoding/binary"
	"sync"
)

// remembered is how many payloads an Opener knows again.
const remembered = 1 << 16

// An Opener opens each payload once. It knows the last 65,536 again, and takes none that was sealed before those that
// it has forgotten; this costs up to 3 MB. It trusts the clocks of the senders so far: one whose clock is behind by
// more than it takes for 65,536 payloads to come is not heard.
//
// An Opener is for one receiver. Its methods may be called concurrently.
type Opener struct {
	box *Box

	mu    sync.Mutex // guards the fields below
	known map[mark]struct{}
	order []mark // of what is known, the oldest at next once it is full
	next  int
	floor uint64 // nothing sealed at this time or before is known for sure; 0: all is
}

// A mark names a payload: when it was sealed, and its nonce.
type mark struct {
	at    uint64
	nonce [nonceSize]byte
}

// NewOpener returns an Opener that has seen nothing yet.
func (b *Box) NewOpener() *Opener { return &Opener{box: b, known: map[mark]struct{}{}} }

// Open is Box.Open, but its error is ErrReplayed for a payload that has been opened before, or that may have been.
func (o *Opener) Open(topic string, payload []byte) ([]byte, error) {
	data, err := o.box.Open(topic, payload)
	if err != nil {
		return nil, err
	}
	m := mark{at: binary.BigEndian.Uint64(payload[1+idSize:])}
	copy(m.nonce[:], payload[headSize-nonceSize:])
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, again := o.known[m]; again || m.at <= o.floor {
		return nil, ErrReplayed
	}
	o.known[m] = struct{}{}
	if len(o.order) < remembered {
		o.order = append(o.order, m)
		return data, nil
	}
	old := o.order[o.next]
	delete(o.known, old)
	o.floor = max(o.floor, old.at)
	o.order[o.next] = m
	o.next = (o.next + 1) % remembered
	return data, nil
}
