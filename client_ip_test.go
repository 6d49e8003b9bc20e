package gpoll_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// A flood of registrations from one address costs that address: the others register as if nothing were.
func TestRegisterRateOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gpoll.NewBroadcaster()
		b.ClientIP = gpoll.TrustedProxies()
		defer shutdown(t, b)
		register := func(from string) int {
			r := httptest.NewRequest(http.MethodGet, "/poll", nil)
			r.RemoteAddr = from
			w := httptest.NewRecorder()
			b.HandleRequests(w, r)
			h := w.Header()
			if w.Code == http.StatusTooManyRequests && (h.Get("Gpoll-Error") != "rate" || h.Get("Retry-After") == "") {
				t.Errorf("%v %s", h, w.Body)
			}
			return w.Code
		}
		try := func(n int, from func(i int) string) (registered int) {
			for i := range n {
				if register(from(i)) == http.StatusOK {
					registered++
				}
			}
			return registered
		}
		one := func(addr string) func(int) string { return func(int) string { return addr } }
		if n := try(5000, one("192.0.2.1:1234")); n != 50 {
			t.Errorf("the flood: %d registered at once, want 50", n)
		}
		honest := func(i int) string { return fmt.Sprintf("198.51.100.%d:1", i%250) }
		if n := try(370, honest); n != 370 {
			t.Errorf("honest newcomers: %d of 370 registered", n)
		}
		advance(300 * time.Millisecond)
		if n := try(5000, one("192.0.2.1:4321")); n != 3 {
			t.Errorf("the flood after 300 ms: %d, want 3", n)
		}
		if n := try(5000, one("[::ffff:192.0.2.1]:4321")); n != 0 {
			t.Errorf("the same address, spelled for IPv6: %d", n)
		}
		advance(10 * time.Second)
		if n := try(5000, one("192.0.2.1:4321")); n != 50 {
			t.Errorf("the flood after 10 s: %d, want 50", n)
		}
		// An IPv6 host has a /64 for itself.
		if n := try(5000, func(i int) string { return fmt.Sprintf("[2001:db8:1:1::%x]:1", i+1) }); n != 50 {
			t.Errorf("a /64: %d, want 50", n)
		}
		if n := register("[2001:db8:1:2::1]:1"); n != http.StatusOK {
			t.Errorf("the next /64: %d", n)
		}
		// What is no address counts to all together only.
		if n := try(60, one("@")); n != 60 {
			t.Errorf("no address: %d of 60", n)
		}
	})
}

// It is the same on every transport, and AddClient and clients that are there already are not limited.
func TestRegisterRateOfAnAddressOnEveryTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.RegisterRatePerIP, b.RegisterBurstPerIP = 1, 1
			b.ClientIP = func(r *http.Request) netip.Addr {
				if r.Header.Get("X-Panic") != "" {
					panic("in ClientIP")
				}
				return netip.MustParseAddr("192.0.2.7")
			}
		}})
		id, after := s.register(t)
		for _, by := range gets {
			if a := s.get(t, by.path, by.header...); a.status != by.told(http.StatusTooManyRequests) || a.code(t) != "rate" {
				t.Errorf("%s: %d %s", by.name, a.status, a.body)
			}
			a := s.get(t, by.path, append([]string{"X-Panic", "1"}, by.header...)...)
			if a.status != by.told(http.StatusInternalServerError) {
				t.Errorf("%s, with a panic in ClientIP: %d %s", by.name, a.status, a.body)
			}
		}
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{}}`)
		if code, reason := closing(t, c); code != 4029 || reason == "" {
			t.Errorf("hello: close %d %q", code, reason)
		}
		c = s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{"client-id":"`+id+`"}}`)
		frame(t, c)
		for range 20 {
			s.Send("m")
			a := s.get(t, "/poll"+query("client-id", id, "after", after))
			if a.body != "m" {
				t.Fatalf("%d %s", a.status, a.body)
			}
			after = a.position()
			if _, routine := s.AddClient(); routine < 0 {
				t.Error("AddClient was refused")
			}
		}
		advance(time.Second)
		s.register(t)
	})
}

// The table of addresses is bounded, however many addresses come. It remembers an address that floods, as long as the
// number of addresses is within the bound.
func TestRegisterRateOfManyAddresses(t *testing.T) {
	b := gpoll.NewBroadcaster()
	b.MaxClients, b.RegisterRate = 2, -1
	b.RegisterRatePerIP, b.RegisterBurstPerIP = 1, 600 // a bucket counts for 10 minutes
	b.ClientIP = func(r *http.Request) netip.Addr { return netip.MustParseAddr(r.Header.Get("From")) }
	defer shutdown(t, b)
	register := func(from string) int {
		r := httptest.NewRequest(http.MethodGet, "/poll", nil)
		r.Header.Set("From", from)
		w := httptest.NewRecorder()
		b.HandleRequests(w, r)
		if w.Code == http.StatusOK {
			b.RemoveClient(idOf(t, w.Body.String()))
		}
		return w.Code
	}
	b.AddClient() // its routine stays
	before := liveHeap()
	for i := range 60_000 {
		if code := register(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)); code != http.StatusOK {
			t.Fatalf("address %d: %d", i, code)
		}
	}
	if grown := liveHeap() - before; grown > 3<<20 {
		t.Errorf("%d bytes after 60,000 addresses", grown)
	}
	runtime.KeepAlive(b)
}

func TestTrustedProxies(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, c := range []struct {
		remote    string
		forwarded []string
		want      string
	}{
		{"203.0.113.9:1", nil, "203.0.113.9"},
		{"203.0.113.9:1", []string{"198.51.100.1"}, "203.0.113.9"}, // no proxy of ours: anybody can say that
		{"10.0.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:1", []string{"198.51.100.1, 198.51.100.2"}, "198.51.100.2"},
		{"10.0.0.1:1", []string{"198.51.100.1, 198.51.100.2 ,10.0.0.2"}, "198.51.100.2"},
		{"10.0.0.1:1", []string{"198.51.100.1", "198.51.100.2", "10.0.0.2"}, "198.51.100.2"},
		{"10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"}, // proxies only: the first
		{"10.0.0.1:1", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"198.51.100.1, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"10.0.0.1:1", []string{""}, "10.0.0.1"},
		{"10.0.0.1:1", []string{",,"}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"10.0.0.1:1", []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{"10.0.0.1:1", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"10.0.0.1:1", []string{"2001:db8::1"}, "2001:db8::1"},
		{"[::ffff:10.0.0.1]:1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"[fd00::1%eth0]:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"192.168.7.7:1", []string{"198.51.100.1"}, "198.51.100.1"}, // a prefix that was spelled for IPv6
		{"10.0.0.1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"@", []string{"198.51.100.1"}, "invalid IP"},
		{"", nil, "invalid IP"},
		{"10.0.0.1:1", []string{strings.Repeat("10.0.0.1,", 10_000) + "10.0.0.1"}, "10.0.0.1"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/poll", nil)
		r.RemoteAddr = c.remote
		r.Header["X-Forwarded-For"] = c.forwarded
		of := gpoll.TrustedProxies(prefix("10.0.0.0/8"), prefix("fd00::/8"), prefix("::ffff:192.168.0.0/112"))
		if got := of(r).String(); got != c.want {
			t.Errorf("%s, forwarded %.60q: %s, want %s", c.remote, c.forwarded, got, c.want)
		}
	}
	if panicked := func() (v any) {
		defer func() { v = recover() }()
		gpoll.TrustedProxies(netip.Prefix{})
		return nil
	}(); panicked == nil {
		t.Error("a prefix that is none was taken")
	}
}
