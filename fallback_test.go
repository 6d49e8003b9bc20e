package gpoll_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"
)

// Clients say why they use no better transport, and Stats counts it by a bounded set of words, for those alone that are
// let in.
func TestFallbacks(t *testing.T) {
	s := start(t, setup{})
	for _, says := range []string{"ws_refused", "ws_refused, sse_buffered",
		"poll_blocked,unreachable,<script>,x,ws_silent", strings.Repeat(",", 100), ""} {

		r := s.request(t, t.Context(), "/poll?format=json", "Gpoll-Fallback", says)
		if a := s.do(t, r); a.status != http.StatusOK {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	r := s.request(t, t.Context(), "/poll", "Gpoll-Fallback", "ws_died_young", "Gpoll-Client-Id", "0$nobody")
	if a := s.do(t, r); a.status != http.StatusNotFound {
		t.Errorf("%d %s", a.status, a.body)
	}
	want := map[string]uint64{"ws_refused": 2, "sse_buffered": 1, "poll_blocked": 1, "unreachable": 1, "other": 6}
	if got := s.Stats().Fallbacks; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
