package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/corvuscrypto/gpoll"
)

// newRestartHandler returns POST /restart, which begins the broker's log anew, as a restart of the server would: no
// message of the old one comes any more, and every client is told so by a gap of reason "epoch". Whoever may publish
// may do it. Without a publish token that is this machine alone: see newSite.
func newRestartHandler(broker gpoll.Broker, authorized func(*http.Request) bool, origin string) (http.Handler, error) {
	return protect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			refuse(w, http.StatusMethodNotAllowed, "method", "use POST: the log then begins anew")
			return
		case !authorized(r):
			refuseToken(w)
			return
		}
		pos, err := beginAnew(r.Context(), broker)
		if err != nil {
			refuse(w, http.StatusServiceUnavailable, "unavailable", "the log goes on: try again")
			return
		}
		answer(w, http.StatusOK, map[string]string{"position": pos.String()})
	}), origin)
}

// beginAnew publishes the record that begins an epoch, and returns its Position.
func beginAnew(ctx context.Context, broker gpoll.Broker) (gpoll.Position, error) {
	for {
		_, newest, err := broker.Window(ctx)
		if err != nil {
			return gpoll.Position{}, err
		}
		pos, err := broker.Publish(ctx, gpoll.Record{Kind: gpoll.RecordEpoch, Prev: gpoll.Link{Position: newest}})
		if !errors.Is(err, gpoll.ErrConflict) || ctx.Err() != nil { // else a message has come between the two
			return pos, err
		}
	}
}
