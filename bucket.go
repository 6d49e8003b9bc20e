package gpoll

import (
	"net/netip"
	"time"
)

// A bucket lets rate registrations through in a second, and burst at once.
type bucket struct {
	tokens float64
	filled time.Time // zero: never used, and full
}

// fill adds the tokens that have come since, and reports whether there is one.
func (k *bucket) fill(now time.Time, rate, burst int) bool {
	if k.filled.IsZero() {
		k.tokens = float64(burst)
	} else {
		k.tokens = min(float64(burst), k.tokens+now.Sub(k.filled).Seconds()*float64(rate))
	}
	k.filled = now
	return k.tokens >= 1
}

// addressBuckets are the buckets of addresses. A bucket that is full again is forgotten sooner or later, and at most 2
// × maxAddresses are kept. The bucket of all registrations stops a flood from more addresses than that.
type addressBuckets struct {
	young, old map[netip.Addr]bucket
	turned     time.Time // when young became old
}

const maxAddresses = 8192

// take returns the bucket of an address; put keeps it. refill is how long an empty bucket takes to be full.
func (t *addressBuckets) take(key netip.Addr, now time.Time, refill time.Duration) bucket {
	if idle := now.Sub(t.turned); idle >= refill || len(t.young) >= maxAddresses {
		t.young, t.old, t.turned = nil, t.young, now
		if idle >= 2*refill { // then no bucket was used for as long as refill
			t.old = nil
		}
	}
	if k, ok := t.young[key]; ok {
		return k
	}
	return t.old[key]
}

func (t *addressBuckets) put(key netip.Addr, k bucket) {
	if t.young == nil {
		t.young = map[netip.Addr]bucket{}
	}
	t.young[key] = k
}

// addressKey is what counts as one address: an IPv4 address, or the /64 of an IPv6 one, which a single host has for
// itself.
func addressKey(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if !a.Is6() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a.WithZone("")
	}
	return p.Masked().Addr()
}
