package gpoll

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// TrustedProxies returns a function for Broadcaster.ClientIP where proxies with these addresses stand in front. That
// function returns the peer's address. Where the peer is one of the proxies, it returns the last address in
// X-Forwarded-For that is no proxy's: nobody vouches for the addresses before that one. Where the list holds proxies
// only, it returns the first of them.
//
// It returns the zero Addr where the request's RemoteAddr is no address, as on a Unix socket. TrustedProxies panics
// when a prefix is bad.
func TrustedProxies(prefixes ...netip.Prefix) func(*http.Request) netip.Addr {
	trusted := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 { // addresses are compared as the IPv4 ones that they are
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if !p.IsValid() {
			panic(fmt.Sprintf("gpoll: TrustedProxies: %v is no prefix", prefixes[i]))
		}
		trusted[i] = p
	}
	isProxy := func(a netip.Addr) bool {
		for _, p := range trusted {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return func(r *http.Request) netip.Addr {
		at := parseIP(r.RemoteAddr)
		lines := r.Header["X-Forwarded-For"]
		for i := len(lines) - 1; i >= 0; i-- {
			for rest, more := lines[i], true; more; {
				if !isProxy(at) {
					return at
				}
				comma := strings.LastIndexByte(rest, ',')
				said := parseIP(strings.TrimSpace(rest[comma+1:]))
				if !said.IsValid() {
					return at // the proxy that passed it on is the last known address
				}
				at = said
				if more = comma >= 0; more {
					rest = rest[:comma]
				}
			}
		}
		return at
	}
}

// parseIP reads an address with or without a port, and returns the zero Addr for anything else. An IPv4 address in IPv6
// form counts as IPv4, and a zone is dropped.
func parseIP(s string) netip.Addr {
	if at, err := netip.ParseAddrPort(s); err == nil {
		return at.Addr().Unmap().WithZone("")
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		s = strings.TrimSuffix(inner, "]")
	}
	at, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return at.Unmap().WithZone("")
}

// clientIP asks ClientIP to which address r's registration counts. The zero Addr counts to none.
func (b *Broadcaster) clientIP(r *http.Request) (from netip.Addr, refused *refusal) {
	if b.ClientIP == nil {
		return from, nil
	}
	if !b.call("ClientIP", func() { from = b.ClientIP(r) }) {
		return netip.Addr{}, refuseInternal
	}
	return from, nil
}

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
