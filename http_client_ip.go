package gpoll

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
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
