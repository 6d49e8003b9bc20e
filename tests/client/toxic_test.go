package client

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	gpollclient "github.com/corvuscrypto/gpoll/client"
)

// Whatever stands in the way, the client finds one, says why it is not a better one, and loses nothing.
func TestFallback(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		set     func(w *world)
		by      gpollclient.Transport
		reasons string
	}{
		{"nothing", func(*world) {}, gpollclient.WebSocket, ""},
		{"WebSocket refused", func(w *world) { w.stands(forbidden, socket) }, gpollclient.SSE, "ws_refused"},
		{"200 to the upgrade", func(w *world) {
			w.stands(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>") }, socket)
		}, gpollclient.SSE, "ws_refused"},
		{"WebSocket swallowed", func(w *world) {
			w.add(`{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`, socket)
		}, gpollclient.SSE, "ws_silent"},
		{"WebSocket dies after 2 s", func(w *world) { w.add(`{"type":"short_life","stream":"downstream"}`, socket) },
			gpollclient.SSE, "ws_died_young"},
		{"SSE buffered", func(w *world) {
			w.stands(forbidden, socket)
			w.add(`{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`, events)
		}, gpollclient.LongPoll, "ws_refused sse_buffered"},
		{"SSE dies after 2 s", func(w *world) {
			w.stands(forbidden, socket)
			w.add(`{"type":"short_life","stream":"downstream"}`, events)
		}, gpollclient.LongPoll, "ws_refused sse_died_young"},
		{"only polls", func(w *world) { w.stands(forbidden, socket, events) }, gpollclient.LongPoll,
			"ws_refused sse_refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			test.set(w)
			w.dial()
			w.both(500, 9*time.Second, nil)
			w.until(test.by, test.reasons)
			told := w.b.Stats().Fallbacks
			for reason := range strings.FieldsSeq(test.reasons) {
				if told[reason] != 1 {
					w.Errorf("the server counts %v, and not one %s", told, reason)
				}
			}
			if len(told) != len(strings.Fields(test.reasons)) {
				w.Errorf("the server counts %v, and the client says %s", told, test.reasons)
			}
			w.judge()
		})
	}
}

// Where POST is swallowed, messages go on, and the commands take effect once when the hole has gone.
func TestPostSwallowed(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"downstream", "upstream"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.stands(forbidden, socket)
			w.dial()
			w.both(200, time.Second, func() {
				<-time.After(300 * time.Millisecond)
				remove := w.add(`{"type":"timeout","stream":"`+how+`","attributes":{"timeout":0}}`, commands)
				<-time.After(4 * time.Second)
				remove()
			})
			w.until(gpollclient.SSE, "ws_refused")
			w.judge()
		})
	}
}

// Latency, small pieces and little bandwidth change nothing.
func TestSlowNetwork(t *testing.T) {
	t.Parallel()
	for by, refused := range map[gpollclient.Transport][]string{
		gpollclient.WebSocket: nil, gpollclient.SSE: {socket}, gpollclient.LongPoll: {socket, events},
	} {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.stands(forbidden, refused...)
			w.add(`{"type":"latency","name":"a","stream":"downstream","attributes":{"latency":150,"jitter":100}}`, ways...)
			w.add(`{"type":"latency","name":"b","stream":"upstream","attributes":{"latency":100}}`, ways...)
			w.add(`{"type":"slicer","name":"c","stream":"downstream",`+
				`"attributes":{"average_size":64,"size_variation":32,"delay":10}}`, ways...)
			w.dial()
			w.both(600, 5*time.Second, nil)
			w.until(by, map[gpollclient.Transport]string{gpollclient.SSE: "ws_refused",
				gpollclient.LongPoll: "ws_refused sse_refused"}[by])
			w.judge()
		})
	}
}

// The client goes from each transport to each other in the midst of 10,000 messages each way.
func TestSwitches(t *testing.T) {
	t.Parallel()
	only := map[gpollclient.Transport][]string{
		gpollclient.WebSocket: {events, polls}, gpollclient.SSE: {socket, polls}, gpollclient.LongPoll: {socket, events},
	}
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		order := []gpollclient.Transport{gpollclient.WebSocket, gpollclient.SSE, gpollclient.LongPoll, gpollclient.WebSocket,
			gpollclient.LongPoll, gpollclient.SSE, gpollclient.WebSocket}
		w.stands(forbidden, only[order[0]]...)
		w.dial()
		w.both(10_000, 10*time.Second, func() {
			for _, by := range order[1:] {
				<-time.After(1500 * time.Millisecond)
				w.stands(forbidden, only[by]...)
				w.cut(socket, events, polls)
				w.until(by, whatever) // it is refused, or it has died young too often
			}
		})
		w.judge()
	})
}

// Connections that break again and again, on every way, lose nothing and repeat nothing.
func TestCuts(t *testing.T) {
	t.Parallel()
	for by, refused := range map[gpollclient.Transport][]string{
		gpollclient.WebSocket: {events, polls}, gpollclient.SSE: {socket, polls}, gpollclient.LongPoll: {socket, events},
	} {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.stands(forbidden, refused...)
			w.dial()
			w.both(2000, 4*time.Second, func() {
				for range 10 {
					<-time.After(350 * time.Millisecond)
					w.cut(ways...)
				}
			})
			w.judge()
		})
	}
}
