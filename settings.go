package gpoll

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	defaultRoutineMaxClients = 1000
	defaultClientBufferSize  = 100
	defaultRoutineBufferSize = 200

	clientBytes = 256 << 10 // a second bound beside ClientBufferSize
	replayCount = 500       // of one answer
	replayBytes = 1 << 20
	maxQuery    = 2 << 10
	maxBody     = 64 << 10
	helloWait   = 5 * time.Second
	repeatFor   = 30 * time.Second // after its pass through net/http a poll that Listener remembers counts
)

// leastGone is more than the time for which an ordinary network is silent.
const leastGone = 20 * time.Second

// settings are a Broadcaster's fields with the defaults filled in.
type settings struct {
	routineMaxClients, clientBuffer, routineBuffer        int
	clientBytes                                           int
	heavy                                                 int // a message of more bytes counts against clientBytes
	syncDelay                                             time.Duration
	pollWait, heartbeat, pongTimeout, writeTimeout        time.Duration
	clientTTL, attachTimeout, shutdownSpread              time.Duration
	maxMessage, maxTopics, maxClients, maxPerUser         int
	maxPresence                                           int
	registerRate, registerBurst, replayCount, replayBytes int
	registerRatePerIP, registerBurstPerIP                 int
	upstreamRate, upstreamBurst                           int
	history                                               Limits
	repeatFor                                             time.Duration
	authHeaders                                           []string
	allowedHeaders                                        string // of a preflight
	origins                                               map[string]bool
	tick                                                  time.Duration // between two sweeps of a routine
	gone                                                  time.Duration // see watchGone
	youth                                                 time.Duration // of a poll; see deadlines
}

// fill checks b's fields and fills s. The error names the field.
func (s *settings) fill(b *Broadcaster) error {
	var bad error
	number := func(field string, v, def, least, most int) int {
		if v = cmp.Or(v, def); (v < least || v > most) && bad == nil {
			bad = fmt.Errorf("gpoll: Broadcaster.%s is %d; it must be %d to %d, or 0 for %d", field, v, least, most, def)
		}
		return v
	}
	duration := func(field string, v, def time.Duration) time.Duration {
		if v = cmp.Or(v, def); (v < time.Millisecond || v > 24*time.Hour) && bad == nil {
			bad = fmt.Errorf("gpoll: Broadcaster.%s is %v; it must be 1ms to 24h, or 0 for %v", field, v, def)
		}
		return v
	}
	const many = math.MaxInt32
	*s = settings{
		routineMaxClients:  number("RoutineMaxClients", b.RoutineMaxClients, defaultRoutineMaxClients, 1, 10_000_000),
		clientBuffer:       number("ClientBufferSize", b.ClientBufferSize, defaultClientBufferSize, 1, 1<<20),
		routineBuffer:      number("RoutineBufferSize", b.RoutineBufferSize, defaultRoutineBufferSize, 1, 1<<20),
		clientBytes:        clientBytes,
		syncDelay:          time.Duration(number("SyncDelayMs", b.SyncDelayMs, 0, 0, 60_000)) * time.Millisecond,
		pollWait:           duration("PollWait", b.PollWait, 25*time.Second),
		heartbeat:          duration("Heartbeat", b.Heartbeat, 15*time.Second),
		pongTimeout:        duration("PongTimeout", b.PongTimeout, 10*time.Second),
		writeTimeout:       duration("WriteTimeout", b.WriteTimeout, 10*time.Second),
		clientTTL:          duration("ClientTTL", b.ClientTTL, 60*time.Second),
		attachTimeout:      duration("AttachTimeout", b.AttachTimeout, 15*time.Second),
		shutdownSpread:     duration("ShutdownSpread", b.ShutdownSpread, 10*time.Second),
		maxMessage:         number("MaxMessage", b.MaxMessage, 64<<10, 1, many),
		maxTopics:          number("MaxTopics", b.MaxTopics, 128, 1, 1<<20),
		maxPresence:        number("MaxPresence", b.MaxPresence, 1000, 1, 1<<20),
		maxClients:         number("MaxClients", b.MaxClients, 100_000, 1, many),
		maxPerUser:         number("MaxClientsPerUser", b.MaxClientsPerUser, 16, 1, many),
		registerRate:       number("RegisterRate", b.RegisterRate, 1000, -1, many),
		registerBurst:      number("RegisterBurst", b.RegisterBurst, 2000, 1, many),
		registerRatePerIP:  number("RegisterRatePerIP", b.RegisterRatePerIP, 10, -1, many),
		registerBurstPerIP: number("RegisterBurstPerIP", b.RegisterBurstPerIP, 50, 1, many),
		upstreamRate:       number("UpstreamRate", b.UpstreamRate, 20, -1, many),
		upstreamBurst:      number("UpstreamBurst", b.UpstreamBurst, 100, 1, many),
		repeatFor:          repeatFor,
		replayCount:        replayCount,
		replayBytes:        replayBytes,
		history: Limits{
			Count: number("History.Count", b.History.Count, 10_000, 1, many),
			Bytes: number("History.Bytes", b.History.Bytes, 16<<20, 1, many),
			Age:   b.History.Age,
		},
		authHeaders: b.AuthHeaders,
		origins:     map[string]bool{},
	}
	if bad != nil {
		return bad
	}
	if b.History.Age < 0 {
		return fmt.Errorf("gpoll: Broadcaster.History.Age is %v; it must not be negative", b.History.Age)
	}
	if s.authHeaders == nil {
		s.authHeaders = []string{"Cookie", "Authorization"}
	}
	for _, origin := range b.AllowedOrigins {
		if !validOrigin(origin) {
			return fmt.Errorf("gpoll: Broadcaster.AllowedOrigins has %q; an origin is scheme://host[:port] in lower case, "+
				"as in https://app.example", origin)
		}
		s.origins[origin] = true
	}
	if s.allowedHeaders, bad = allowedHeaders(s.authHeaders, b.AllowedHeaders); bad != nil {
		return bad
	}
	if b.PublicOrigin != "" && !validOrigin(b.PublicOrigin) {
		return fmt.Errorf("gpoll: Broadcaster.PublicOrigin is %q; it must be scheme://host[:port] in lower case, "+
			"as in https://app.example", b.PublicOrigin)
	}
	s.heavy = s.clientBytes / s.clientBuffer
	shortest := min(s.pollWait, s.heartbeat, s.pongTimeout, s.clientTTL, s.attachTimeout)
	s.gone = max(2*s.writeTimeout, leastGone)
	s.youth = min(time.Second, s.writeTimeout/10)
	s.tick = min(250*time.Millisecond, max(shortest/50, time.Millisecond))
	return nil
}

// allowedHeaders lists the headers that a page of another origin may send, as a preflight spells them.
func allowedHeaders(auth, own []string) (string, error) {
	list := []string{"Authorization", "Cache-Control", "Content-Type", "Gpoll-Client-Id", "Gpoll-Fallback",
		"Last-Event-ID"}
	for _, name := range slices.Concat(auth, own) {
		if !validToken(name) {
			return "", fmt.Errorf("gpoll: Broadcaster.AllowedHeaders or AuthHeaders has %q, "+
				"which cannot be the name of a header", name)
		}
		known := slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
		if !known && !strings.EqualFold(name, "Cookie") { // no page sets it
			list = append(list, http.CanonicalHeaderKey(name))
		}
	}
	return strings.Join(list, ", "), nil
}

// validToken reports whether s is a token (RFC 9110, section 5.6.2).
func validToken(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// validOrigin reports whether s is an origin exactly as a browser serialises it (RFC 6454, section 6.2).
func validOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && u.Scheme+"://"+u.Host == s &&
		s == strings.ToLower(s) && u.Port() != defaultPort(u.Scheme)
}

// defaultPort is the port that an origin of that scheme leaves out.
func defaultPort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	}
	return "none"
}

// jitter returns d ± 8 % at random. With the tick of a sweep a wait stays within 10 %.
func jitter(d time.Duration) time.Duration {
	return spread(d-d*8/100, d+d*8/100)
}
