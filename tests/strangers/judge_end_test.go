//go:build unix

package strangers

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// end judges an end that the client did not bring about: section 11.
func (tr *track) end(it *item) {
	q, j := tr.q, tr.j
	during := func(kill, graceful bool, after time.Duration) bool {
		for _, sp := range j.r.spans {
			if (sp.kill && kill || !sp.kill && graceful) && q.opened.Before(sp.to.Add(after)) && it.at.After(sp.from) {
				return true
			}
		}
		return false
	}
	acted := func(what ...string) bool {
		for _, a := range j.r.actions {
			if !slices.Contains(what, a.what) || it.at.Before(a.from) {
				continue
			}
			switch a.what {
			case "remove":
				if a.id == tr.id {
					return true
				}
			case "cleanup":
				if strings.HasPrefix(tr.id, itoa(a.routine)+"$") {
					return true
				}
			case "ban", "revoke":
				if a.user == q.user && (a.until.IsZero() || q.opened.Before(a.until.Add(slack))) {
					return true
				}
			case "forbid":
				if a.user == q.user && (tr.topics[a.topic] || slices.Contains(q.topics, a.topic)) {
					return true
				}
			}
		}
		return false
	}
	kill := during(true, false, 200*time.Millisecond)
	switch it.code {
	case "dial":
		if !during(true, true, 200*time.Millisecond) {
			tr.violate("end", "no connection: %s", it.detail)
		}
	case "":
		if kill {
			j.counts["cut by the kill"]++
			return
		}
		if q.half {
			j.counts["half-closed and cut"]++
			return
		}
		// A request that crosses the shutdown of the http.Server was not accepted.
		for _, sp := range j.r.spans {
			begun := sp.from.Add(-100*time.Millisecond - j.stall(sp.from.Add(-3*time.Second), sp.from))
			if !sp.kill && it.untold && q.opened.After(begun) && q.opened.Before(sp.to) {
				j.counts["not accepted during the shutdown"]++
				return
			}
			// The server before closed the connection between two requests.
			if it.untold && it.reused && it.dialed.Before(sp.to) && q.opened.After(sp.from) {
				j.counts["sent on a connection to the server before"]++
				return
			}
		}
		if strings.HasPrefix(it.detail, "hello: ") && during(false, true, 0) {
			j.counts["not accepted during the shutdown"]++
			return
		}
		tr.violate("end", "it does not say why: %s (%v after its begin, nothing read %v, reused %v)%s",
			it.detail, it.at.Sub(q.opened), it.untold, it.reused, tr.before(it.at))
	case "superseded":
		// Where the machine stalls, the server may read a request that was given up after the one that followed it.
		if late := j.stall(tr.gaveUp.Add(-time.Second), it.at); q.opened.Sub(tr.gaveUp) < time.Second && late > tolerance {
			j.counts["superseded by a request that was given up"]++
			return
		}
		tr.violate("end", "superseded, but it is the newest")
	case "unknown-client", "expired":
		away := it.at.Sub(tr.lastSeen)
		switch {
		case during(true, true, time.Hour) || q.opened.IsZero():
		case tr.restarted(q, it):
		case acted("remove", "cleanup", "revoke", "ban"):
		case away > clientTTL*8/10:
		case q.transport == "plain" && q.after.none() && tr.overflowed(it):
		default:
			tr.violate("end", "%s (%d), but the id was there %v ago", it.code, it.status, away)
		}
	case "removed":
		if !acted("remove", "cleanup") {
			tr.violate("end", "removed, but nobody did that")
		}
	case "unauthorized":
		if !acted("ban", "revoke") {
			tr.violate("end", "unauthorized, but nobody did that: %s", it.detail)
		}
	case "topic-forbidden":
		if !acted("forbid") && !slices.ContainsFunc(q.topics, func(t string) bool { return !mayRead(q.user, t) }) {
			tr.violate("end", "topic-forbidden for %v", q.topics)
		}
	case "shutdown", "closed":
		if !during(false, true, slack) {
			tr.violate("end", "%s, but there is no shutdown", it.code)
		}
		if !it.hasRetry || it.retry < time.Second || it.retry > shutdownLimit+time.Second {
			tr.violate("end", "shutdown with retry_ms %v", it.retry)
		}
	case "slow":
		if !j.r.cfg.DisconnectSlow {
			tr.violate("end", "slow, although a slow client may lag")
		}
	case "gap":
		if q.transport != "ws" {
			tr.violate("end", "closed with a gap")
		}
	default:
		tr.violate("end", "status or close %d %q: %s", it.status, it.code, it.detail)
	}
	if strings.HasSuffix(it.detail, "not in the table") {
		tr.violate("end", "%s", it.detail)
	}
}

// before names what the application did shortly before t that may have ended the attach.
func (tr *track) before(t time.Time) string {
	var b strings.Builder
	for _, a := range tr.j.r.actions {
		hit := a.id != "" && a.id == tr.id || a.user != "" && a.user == tr.lf.user ||
			a.what == "cleanup" && strings.HasPrefix(tr.id, itoa(a.routine)+"$")
		if hit && a.from.Before(t) && t.Sub(a.from) < 6*time.Second {
			fmt.Fprintf(&b, ", %v after %s", t.Sub(a.from).Round(time.Millisecond), a.what)
		}
	}
	for _, sp := range tr.j.r.spans {
		if sp.from.Before(t) && t.Sub(sp.from) < 6*time.Second {
			fmt.Fprintf(&b, ", %v after the server's end (kill %v)", t.Sub(sp.from).Round(time.Millisecond), sp.kill)
		}
	}
	return b.String()
}

// A server whose processor is not its own may see within this time what the client did before.
const tolerance = 15 * time.Millisecond

// stall is how long the server, which shares its processors, took for a publish between from and to.
func (j *judge) stall(from, to time.Time) time.Duration {
	var longest time.Duration
	for _, m := range j.r.messages {
		if m.done.After(from) && m.began.Before(to) {
			longest = max(longest, m.done.Sub(m.began))
		}
	}
	return longest
}

// restarted says that the id may be of an earlier server.
func (tr *track) restarted(q *request, it *item) bool {
	for _, sp := range tr.j.r.spans {
		if tr.lastSeen.Before(sp.to.Add(slack)) && it.at.After(sp.from) {
			return true
		}
	}
	return false
}

// overflowed says that more may have come than waits for a client that polls without a cursor.
func (tr *track) overflowed(it *item) bool {
	n, bytes := 0, 0
	for _, e := range tr.j.epochs {
		for _, m := range e.known {
			if m.done.After(tr.lastSeen.Add(-2*time.Second)) && m.began.Before(it.at) && tr.addressed(m) {
				n++
				bytes += m.size
			}
		}
	}
	return n > bufferSize || bytes > 200<<10
}

// attaches checks that what the application ended has ended.
func (j *judge) attaches(lf *life) {
	type open struct {
		q        *request
		id       string
		from, to time.Time
	}
	var all []open
	for i := range lf.events {
		ev := &lf.events[i]
		if ev.kind == started && ev.id != "" && (len(all) == 0 || all[len(all)-1].q != ev.q) {
			all = append(all, open{ev.q, ev.id, ev.at, ev.at})
		}
		if len(all) > 0 && all[len(all)-1].q == ev.q {
			all[len(all)-1].to = ev.at
		}
	}
	for _, a := range j.r.actions {
		limit := slack + writeTimeout // what was published later must not come before: see rights
		switch a.what {
		case "remove", "revoke":
		case "ban":
			limit += grantLife
		default:
			continue
		}
		for _, o := range all {
			hit := a.what == "remove" && o.id == a.id || a.user != "" && a.user == lf.user
			if hit && o.from.Before(a.from) && o.to.After(a.done.Add(limit)) &&
				(a.until.IsZero() || o.to.Before(a.until)) {
				tr := &track{j: j, lf: lf, q: o.q}
				tr.violate("end", "it goes on %v after %s", o.to.Sub(a.done), a.what)
			}
		}
	}
}

// forbidden says that the application forbade one of the request's topics before t.
func (tr *track) forbidden(t time.Time) bool {
	return slices.ContainsFunc(tr.j.r.actions, func(a action) bool {
		named := slices.Contains(tr.q.topics, a.topic) || tr.q.transport == "v1" // which may have subscribed to it since
		return a.what == "forbid" && a.user == tr.q.user && a.from.Before(t) && named
	})
}

// watched judges the end of an attach that a newer one superseded.
func (j *judge) watched(lf *life, w *watched) {
	tr := &track{j: j, lf: lf, q: w.q}
	j.counts[fmt.Sprintf("superseded %s: %q %d", w.q.transport, w.end.code, w.end.status)]++
	for _, sp := range j.r.spans {
		if w.q.opened.Before(sp.to.Add(slack)) && w.end.at.After(sp.from) {
			return
		}
	}
	if w.byAt.IsZero() || w.by == nil {
		return // the newer one was not let in
	}
	if w.orphan {
		tr.violate("end", "superseded by attach %d (%s) and never told", w.by.n, w.by.transport)
		return
	}
	if w.q.poll() && w.end.kind == answered {
		return
	}
	switch w.end.code {
	case "superseded", "unauthorized", "removed", "unknown-client", "expired", "gap":
	case "topic-forbidden": // it was asked about anew before the newer one came
		if !tr.forbidden(w.end.at) {
			tr.violate("end", "superseded, but told %q", w.end.code)
		}
	case "slow":
		if !j.r.cfg.DisconnectSlow {
			tr.violate("end", "slow, although a slow client may lag")
		}
	case "":
		if !w.q.half {
			tr.violate("end", "superseded and not told: %s", w.end.detail)
		}
	default:
		tr.violate("end", "superseded, but told %q", w.end.code)
	}
	// Within WriteTimeout of the server, when the client reads slowly.
	if late := w.end.at.Sub(w.byAt); late > writeTimeout+slack {
		tr.violate("end", "superseded and told %v later", late)
	}
}
