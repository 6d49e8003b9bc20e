//go:build unix

package strangers

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// slack is what a busy machine may add to a time.
const slack = 1500 * time.Millisecond

// The judge compares the messages that the clients got with those that were published, by the promises of
// docs/protocol.md, section 9.
type judge struct {
	r       *run
	epochs  []*epochLog
	byName  map[string]*epochLog
	unknown []*message // their Publish had no answer
	counts  map[string]int
}

func newJudge(r *run) *judge {
	j := &judge{r: r, byName: map[string]*epochLog{}, counts: map[string]int{}}
	slices.SortStableFunc(r.messages, func(a, b *message) int { return a.done.Compare(b.done) })
	for _, m := range r.messages {
		switch {
		case m.rejected:
			j.counts["publishes rejected"]++
		case m.pos.none():
			j.unknown = append(j.unknown, m)
		default:
			e := j.byName[m.pos.epoch]
			if e == nil {
				e = &epochLog{name: m.pos.epoch, n: len(j.epochs), windows: map[string]*kept{}, opened: m.done}
				j.byName[m.pos.epoch], j.epochs = e, append(j.epochs, e)
			}
			e.known = append(e.known, m)
		}
	}
	j.counts["messages"] = len(r.messages)
	j.counts["publishes without an answer"] = len(j.unknown)
	for _, e := range j.epochs {
		slices.SortFunc(e.known, func(a, b *message) int { return int(int64(a.pos.seq) - int64(b.pos.seq)) })
		e.first = e.known[0].pos.seq
		groups := map[string][]*message{}
		earliestLater := time.Now().Add(time.Hour)
		holes := 0
		for i, m := range e.known {
			groups[windowOf(m.topic)] = append(groups[windowOf(m.topic)], m)
			if i == 0 {
				continue
			}
			switch before := e.known[i-1].pos.seq; {
			case before == m.pos.seq:
				r.violate("ledger: %v was given twice", m.pos)
			default:
				holes += int(m.pos.seq - before - 1)
			}
		}
		if holes > len(j.unknown) {
			r.violate("ledger: epoch %s has %d holes", e.name, holes)
		}
		for i := len(e.known) - 1; i >= 0; i-- {
			m := e.known[i]
			if earliestLater.Before(m.began) {
				r.violate("ledger: %v was published after a later one had its Position", m.pos)
			}
			if m.done.Before(earliestLater) {
				earliestLater = m.done
			}
		}
		for name, ms := range groups {
			e.windows[name] = newKept(ms)
		}
		e.all = newKept(e.known)
	}
	return j
}

func (j *judge) report() string {
	var keys []string
	for k := range j.counts {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b strings.Builder
	cfg := j.r.cfg
	fmt.Fprintf(&b, "listener %v, DisconnectSlow %v: %d epochs", cfg.Listener, cfg.DisconnectSlow, len(j.epochs))
	for _, k := range keys {
		fmt.Fprintf(&b, "\n  %-50s %7d", k, j.counts[k])
	}
	return b.String()
}

// track is the judge's knowledge of one life.
type track struct {
	j        *judge
	lf       *life
	q        *request
	id       string
	lastSeen time.Time // an attach of id ended
	gaveUp   time.Time // the client left an attach
	topics   map[string]bool
	wire     position // all owed up to it is done
	has      bool     // wire is known
	app      position
	newEpoch bool       // an epoch gap came, and nothing of the new epoch yet
	mayLose  int        // messages, by polls without a cursor that were given up
	inLast   bool       // what last brings may still come
	since    time.Time  // of the start, where its Position stands before what last brings
	lastSet  []*message // what it brought
	frames   []item     // of a plain WebSocket
	startAt  time.Time
	resumeAt position // a plain WebSocket goes on exactly after it
	matched  position // the last message of a plain WebSocket
	runFrom  position // its first message comes after this
	answers  int      // since a poll was given up
	n        int      // the item under judgement
}

func (j *judge) all() {
	for _, lf := range j.r.lives {
		tr := &track{j: j, lf: lf, topics: map[string]bool{}}
		for i := range lf.events {
			tr.n = i
			tr.step(&lf.events[i])
		}
		j.attaches(lf)
		for _, w := range lf.watched {
			j.watched(lf, &w)
		}
		if len(lf.events) > 0 && !lf.drained && tr.drainedExpected() {
			tr.violate("drain", "a client did not come to the end %v: it is at %v", j.r.last, tr.app)
		}
		j.counts["lives"]++
	}
}

// drainedExpected says that the life was there at the end and was not told to stop.
func (tr *track) drainedExpected() bool {
	last := tr.lf.events[len(tr.lf.events)-1]
	switch last.code {
	case "unauthorized", "topic-forbidden", "removed", "superseded":
		return false
	}
	for _, other := range tr.j.r.lives {
		if other.client == tr.lf.client && other.n > tr.lf.n {
			return false
		}
	}
	return true
}

func (tr *track) violate(kind, format string, args ...any) {
	q, lf := tr.q, tr.lf
	head := fmt.Sprintf("%s: client %d.%d (%s %s, user %q)", kind, lf.client, lf.n, lf.style, q.transport, q.user)
	tail := fmt.Sprintf(" [attach %d, id %.12s, after %v, topics %v, last %d, half %v]",
		q.n, q.id, q.after, q.topics, q.last, q.half)
	tr.j.r.violate("%s: %s%s%s", head, fmt.Sprintf(format, args...), tr.recently(), tail)
}

// recently tells the items before a violation.
func (tr *track) recently() string {
	if tr.n == 0 {
		return ""
	}
	var b strings.Builder
	first := tr.lf.events[max(0, tr.n-9)].at
	for i := max(0, tr.n-9); i <= tr.n; i++ {
		ev := &tr.lf.events[i]
		since := ev.at.Sub(first).Round(time.Millisecond)
		fmt.Fprintf(&b, "\n        +%v %s#%d %v", since, ev.q.transport, ev.q.n, ev.kind)
		if !ev.pos.none() {
			fmt.Fprintf(&b, " %v", ev.pos)
		}
		switch ev.kind {
		case attached:
			fmt.Fprintf(&b, " after %v topics %v", ev.q.after, ev.q.topics)
		case missing:
			fmt.Fprintf(&b, " %v", ev.gap)
		case ended, left, wrong:
			fmt.Fprintf(&b, " %s %d %s", ev.code, ev.status, ev.detail)
		case subscribed, unsubscribed:
			fmt.Fprintf(&b, " %v", ev.topics)
		}
	}
	return b.String() + "\n       "
}

func (tr *track) addressed(m *message) bool {
	return !slices.Contains(m.except, tr.id) && tr.within(m)
}

// within says that m was kept under an address of the client's, though it may have been left out by name.
func (tr *track) within(m *message) bool {
	switch {
	case m.client != "":
		return m.client == tr.id
	case m.user != "":
		return m.user == tr.lf.user
	case m.topic != "":
		return tr.topics[m.topic] || slices.Contains(granted(tr.lf.user), m.topic)
	}
	return true
}

// behind says that p lies before what the client has already.
func (tr *track) behind(p position) bool {
	if !tr.has || p.epoch == tr.wire.epoch {
		return tr.has && p.seq < tr.wire.seq
	}
	e, now := tr.j.byName[p.epoch], tr.j.byName[tr.wire.epoch]
	return e != nil && now != nil && e.n < now.n
}

// required says that m must be delivered or be covered by a gap.
func (tr *track) required(m *message) bool {
	if !tr.addressed(m) || !tr.since.IsZero() && m.began.Before(tr.since) {
		return false
	}
	for _, a := range tr.j.r.actions {
		if a.what == "forbid" && a.user == tr.lf.user && a.topic == m.topic &&
			m.done.After(a.from.Add(-5*time.Second)) {
			return false
		}
	}
	return true
}

// advance moves the wire cursor. Everything owed before to must have come; with message, to is a message itself.
func (tr *track) advance(to position, isMessage bool, what string) bool {
	if !tr.has {
		tr.wire, tr.has = to, true
		tr.adopt()
		return true
	}
	if to.epoch != tr.wire.epoch {
		e := tr.j.byName[to.epoch]
		if e == nil {
			if !isMessage {
				tr.violate("phantom", "%s %v is of an epoch that had no message", what, to)
			}
			return false
		}
		switch {
		case tr.newEpoch:
		case tr.mayLose > 0:
			tr.j.counts["epoch notices lost by an aborted poll without a cursor"]++
		default:
			tr.violate("epoch", "%s %v follows %v without a gap", what, to, tr.wire)
		}
		if old := tr.j.byName[tr.wire.epoch]; old != nil && old.n > e.n {
			tr.violate("epoch", "%s %v follows the later epoch of %v", what, to, tr.wire)
		}
		tr.wire, tr.newEpoch = position{to.epoch, min(e.first-1, to.seq)}, false
	}
	if to.seq < tr.wire.seq || isMessage && to.seq == tr.wire.seq {
		return false
	}
	e := tr.j.byName[to.epoch]
	if e != nil {
		end := to.seq + 1
		if isMessage {
			end = to.seq
		}
		tr.lost(e, tr.wire.seq, end, what+" "+to.String())
	}
	tr.wire = to
	tr.adopt()
	return true
}

func (tr *track) adopt() {
	if tr.wire.epoch != tr.app.epoch || tr.wire.seq > tr.app.seq {
		tr.app = tr.wire
	}
}

// lost finds what was owed between two seqs, both excluded.
func (tr *track) lost(e *epochLog, after, before uint64, what string) {
	var lost []*message
	for _, m := range e.in(after, before) {
		if tr.required(m) {
			lost = append(lost, m)
		}
	}
	if tr.mayLose > 0 && len(lost) > 0 { // an answer that was lost: its gaps, and its message
		gone := 0
		for _, m := range lost {
			if e.retained(m, tr.lf.events[tr.n].at) {
				gone++
			}
		}
		if gone <= tr.mayLose {
			tr.j.counts["lost by an aborted poll without a cursor"] += len(lost)
			lost = nil
		}
	}
	if len(lost) > 0 {
		m := lost[0]
		tr.violate("loss", "%d messages between %d and %s did not come;"+
			" the first is %v (topic %q, user %q, client %.12s, %d bytes)",
			len(lost), after, what, m.pos, m.topic, m.user, m.client, m.size)
	}
}

func (tr *track) step(ev *logged) {
	it := &ev.item
	if it.kind == attached {
		tr.attach(ev.q, it)
		return
	}
	if tr.q != ev.q { // a failed dial
		tr.q = ev.q
	}
	j := tr.j
	switch it.kind {
	case ended, left:
		tr.inLast = false
	case scanned, subscribed, unsubscribed:
		tr.lastArrived(it.at)
	}
	switch it.kind {
	case wrong:
		tr.violate("document", "%s", it.detail)
	case started:
		tr.started(it)
	case delivered:
		j.counts["delivered by "+tr.q.transport]++
		tr.delivered(it)
	case missing:
		j.counts["gaps "+it.gap.reason]++
		tr.missing(it)
	case scanned:
		if tr.behind(it.pos) {
			// A half-closed poll without a cursor may be answered before the server has noted that the last answer is out.
			if !(tr.q.half && tr.q.transport == "plain" && tr.q.after.none()) {
				tr.violate("order", "position %v after %v", it.pos, tr.wire)
			}
			return
		}
		tr.advance(it.pos, false, "position")
		tr.lastArrived(it.at)
		if e := j.byName[it.pos.epoch]; e != nil && it.pos.seq > j.farthest(e) {
			tr.violate("phantom", "position %v is beyond the end of the log", it.pos)
		}
	case subscribed, unsubscribed:
		j.counts["subscription changes"]++
		if !tr.advance(it.pos, false, "subscription") {
			tr.violate("order", "subscribed or unsubscribed at %v after %v", it.pos, tr.wire)
		}
		for _, t := range it.topics {
			tr.topics[t] = it.kind == subscribed
			if it.kind == subscribed && !mayRead(tr.lf.user, t) {
				tr.violate("grant", "subscribed to %s", t)
			}
		}
	case refused:
		j.counts["refused "+it.code]++
		if it.code != "topic-forbidden" {
			tr.violate("end", "the frame was refused with %q (%s)", it.code, it.detail)
		}
	case answered:
		j.counts["answers "+tr.q.transport]++
		tr.lastSeen = it.at
		if tr.q.poll() { // the server may have answered long before the client read that
			tr.lastSeen = tr.q.opened
		}
		if tr.answers++; tr.answers >= 3 { // a request that was given up may be read after the one that followed it
			tr.mayLose = 0
		}
	case ended:
		j.counts[fmt.Sprintf("ends %s %q %d", tr.q.transport, it.code, it.status)]++
		tr.end(it)
		tr.over(it)
	case left:
		switch it.detail {
		case "left open":
			j.counts["switches beside a living attach"]++
		case "drained":
		default:
			j.counts["aborts"]++
		}
		tr.over(it)
	}
}

// over is the end of an attach, by whomever.
func (tr *track) over(it *item) {
	if it.code == "dial" {
		return
	}
	if it.kind == left {
		tr.gaveUp = it.at
	}
	// A request that was given up without an answer may never have attached.
	switch {
	case it.code == "slow": // the server may have ended it long before the client read that
		tr.lastSeen = tr.q.opened
	case !tr.startAt.IsZero() || it.kind == ended || tr.q.poll() && it.at.Sub(tr.q.opened) > slack:
		tr.lastSeen = it.at
	}
	if tr.q.transport == "plain" && tr.q.after.none() && (it.kind == left || it.code == "") {
		tr.mayLose++
		tr.answers = 0
	}
	if tr.q.transport == "ws" {
		tr.socket(it)
	}
}

func (tr *track) attach(q *request, it *item) {
	j := tr.j
	if tr.q != nil && tr.q.transport != q.transport {
		j.counts["transport switches"]++
	}
	tr.q, tr.newEpoch, tr.lastSet, tr.frames, tr.since = q, false, nil, nil, time.Time{}
	tr.inLast = q.last > 0 && q.id == "" && q.after.none()
	tr.startAt = time.Time{}
	if tr.id != q.id {
		tr.id, tr.lastSeen = q.id, it.at
	}
	if !q.after.none() || q.id == "" || len(q.topics) > 0 {
		tr.topics = map[string]bool{}
		for _, t := range q.topics {
			tr.topics[t] = true
		}
	}
	switch {
	case !q.after.none():
		tr.wire, tr.has, tr.mayLose = q.after, true, 0
		tr.app = q.after
	case q.id == "":
		tr.wire, tr.has, tr.mayLose = position{}, false, 0
	case q.transport == "plain":
		tr.wire = tr.app
	}
}

func (tr *track) started(it *item) {
	tr.startAt = it.at
	if it.id != "" && it.id != tr.id {
		if tr.id != "" {
			tr.j.counts["new ids on a stream"]++
		}
		tr.id, tr.lastSeen = it.id, it.at
	}
	if it.pos.none() {
		return
	}
	if !tr.has {
		if tr.inLast && tr.q.transport != "v1" {
			tr.since = it.at
		}
		tr.wire, tr.has = it.pos, true
		tr.adopt()
		return
	}
	if !tr.advance(it.pos, false, "start") && it.pos.epoch == tr.wire.epoch {
		tr.violate("order", "the stream begins at %v, before the cursor %v", it.pos, tr.wire)
	}
}

func (tr *track) find(it *item) *message {
	e := tr.j.byName[it.pos.epoch]
	if e != nil {
		if m := e.at(it.pos.seq); m != nil {
			return m
		}
	}
	for i, m := range tr.j.unknown {
		if m.sum == it.sum && m.size == it.size && it.at.After(m.began) {
			// It was in the log. Another client may still get it, but under no other Position.
			c := *m
			c.pos = it.pos
			if e != nil {
				e.known = append(e.known, &c)
				slices.SortFunc(e.known, func(a, b *message) int { return int(int64(a.pos.seq) - int64(b.pos.seq)) })
				tr.j.unknown = slices.Delete(slices.Clone(tr.j.unknown), i, i+1)
			}
			return &c
		}
	}
	return nil
}

func (tr *track) delivered(it *item) {
	if tr.q.transport == "ws" {
		tr.frames = append(tr.frames, *it)
		return
	}
	m := tr.find(it)
	if m == nil {
		tr.violate("phantom", "%v was never published", it.pos)
		return
	}
	tr.content(it, m)
	if !tr.addressed(m) {
		tr.violate("grant", "%v is not for it: topic %q, user %q, client %.12s, except %d",
			m.pos, m.topic, m.user, m.client, len(m.except))
	}
	tr.rights(it, m)
	older := !tr.has || m.pos.seq <= tr.wire.seq || m.done.Before(tr.q.opened) && !tr.since.IsZero()
	if tr.inLast && m.topic != "" && older {
		if n := len(tr.lastSet); n > 0 && tr.lastSet[n-1].pos.seq >= m.pos.seq {
			tr.violate("order", "last brought %v after %v", m.pos, tr.lastSet[n-1].pos)
		}
		tr.lastSet = append(tr.lastSet, m)
		if tr.since.IsZero() {
			return
		}
	} else if tr.since.IsZero() || !m.began.Before(tr.since) { // else it may be of either
		tr.lastArrived(it.at)
	}
	if !tr.advance(it.pos, true, "message") {
		if tr.mayRepeat() && it.pos.epoch == tr.wire.epoch {
			tr.j.counts["repeated to a poll without a cursor"]++
			return
		}
		if it.pos.epoch == tr.wire.epoch {
			tr.violate("order", "message %v after %v", it.pos, tr.wire)
		}
	}
}

// content checks that nothing was altered.
func (tr *track) content(it *item, m *message) {
	if it.sum != m.sum || it.size != m.size {
		tr.violate("altered", "%v has %d bytes of another content, published were %d", it.pos, it.size, m.size)
	}
	if it.hasForm && it.topic != m.topic {
		tr.violate("altered", "%v has topic %q, published was %q", it.pos, it.topic, m.topic)
	}
	if text := m.utf8 && !(it.lines && m.cr); it.text != text {
		tr.violate("altered", "%v came as text %v", it.pos, it.text)
	}
}

// rights checks what the grant forbids since some time.
func (tr *track) rights(it *item, m *message) {
	if !mayRead(tr.lf.user, m.topic) && m.topic != "" && !slices.Contains(granted(tr.lf.user), m.topic) {
		tr.violate("grant", "%v of %s", m.pos, m.topic)
	}
	for _, a := range tr.j.r.actions {
		limit := a.done.Add(slack)
		if a.what != "revoke" {
			limit = limit.Add(grantLife)
		}
		if a.user != tr.lf.user || a.user == "" || !m.began.After(limit) || !a.until.IsZero() && it.at.After(a.until) {
			continue
		}
		if a.what == "ban" || a.what == "revoke" || a.what == "forbid" && a.topic == m.topic && it.at.After(limit) {
			tr.violate("grant", "%v came %v after %s %s", m.pos, m.began.Sub(a.done), a.what, a.topic)
		}
	}
}

// lastArrived checks what last brought: the newest messages of each topic up to the start, in order.
func (tr *track) lastArrived(at time.Time) {
	if !tr.inLast || !tr.has {
		return
	}
	tr.inLast = false
	tr.j.counts["starts with last"]++
	e := tr.j.byName[tr.wire.epoch]
	if e == nil {
		return
	}
	for topic := range tr.topics {
		var all, got []*message
		unsure := 0 // how many may be newer than the start, or older
		end := tr.wire.seq + 1
		if !tr.since.IsZero() {
			end = 1 << 53
		}
		for _, m := range e.in(0, end) {
			switch {
			case m.topic != topic || !tr.addressed(m):
			case tr.since.IsZero() || m.done.Before(tr.q.opened):
				all = append(all, m)
			case m.began.Before(tr.since):
				unsure++
			}
		}
		for _, m := range tr.lastSet {
			if m.topic == topic {
				got = append(got, m)
			}
		}
		kept := 0
		for kept < min(len(all), tr.q.last) && e.retained(all[len(all)-1-kept], at) {
			kept++
		}
		newest := all[len(all)-min(len(got), len(all)):]
		if len(got) < kept-unsure || len(got) > tr.q.last || !slices.Equal(got, newest) {
			tr.violate("last", "%d messages of %s came, of which %d are kept, or they are not the newest",
				len(got), topic, kept)
		}
	}
}

// mayRepeat says that the last answer may come again: the poll has no cursor, and the server may have taken the end of
// the connection for the loss of the answer that it carried.
func (tr *track) mayRepeat() bool {
	return tr.q.transport == "plain" && tr.q.after.none() && (!tr.q.again || tr.mayLose > 0)
}

func (tr *track) missing(it *item) {
	g, j := it.gap, tr.j
	if g.reason == "future" || g.reason == "broker" {
		tr.violate("gap", "%v", g)
		return
	}
	if !tr.has {
		tr.violate("gap", "%v without a cursor", g)
		return
	}
	if tr.newEpoch && g.reason == "epoch" {
		tr.violate("epoch", "announced twice: %v", g)
		return
	}
	if tr.newEpoch || tr.mayLose > 0 { // evicted, of the new epoch
		if e := j.byName[g.from.epoch]; e != nil && g.from.epoch != tr.wire.epoch {
			tr.wire, tr.newEpoch = position{g.from.epoch, e.first - 1}, false
		}
	}
	if e, now := j.byName[g.from.epoch], j.byName[tr.wire.epoch]; tr.mayRepeat() && e != nil && now != nil && e.n < now.n {
		j.counts["gaps repeated to a poll without a cursor"]++
		return
	}
	if g.from.epoch != tr.wire.epoch {
		tr.violate("gap", "%v, but the cursor is %v", g, tr.wire)
		return
	}
	if tr.mayRepeat() && g.from.seq <= tr.wire.seq {
		// It belongs to an answer that comes again, and may have grown.
		j.counts["gaps repeated to a poll without a cursor"]++
		if g.to.seq > tr.wire.seq {
			tr.wire = g.to
			tr.adopt()
		}
		return
	}
	if g.from.seq <= tr.wire.seq {
		tr.violate("gap", "%v covers what was delivered or scanned: the cursor is %v", g, tr.wire)
	}
	e := j.byName[g.from.epoch]
	if e == nil {
		return // killed before it had a message with a known Position
	}
	tr.lost(e, tr.wire.seq, g.from.seq, "gap "+g.String())
	if g.reason == "epoch" {
		if e.n == len(j.epochs)-1 || !j.mayBeUp(e.n+1, it.at) {
			tr.violate("epoch", "%v, but no new epoch has begun", g)
		}
		tr.newEpoch = true
		j.counts["epochs announced by "+tr.q.transport]++
		if !it.pos.none() {
			tr.advance(it.pos, false, "gap's position")
		}
		return
	}
	tr.honest(e, g, it.at)
	if !it.pos.none() && it.pos != g.to {
		tr.violate("gap", "%v stands at %v", g, it.pos)
	}
	if g.to.seq > tr.wire.seq {
		tr.wire = g.to
		tr.adopt()
	}
}

// honest checks a gap of reason evicted or expired against what the server must have kept.
func (tr *track) honest(e *epochLog, g gap, at time.Time) {
	for _, m := range e.in(g.from.seq-1, g.to.seq+1) {
		if e.retained(m, at) && tr.required(m) {
			tr.violate("gap", "%v covers %v of topic %q, which is in its window", g, m.pos, m.topic)
			return
		}
	}
	// The log may not know any more which of these were for this client. But then something that was has left, there or
	// behind it; or something that was for all of an address but for this client, which is not kept either.
	last := e.all.messages[len(e.all.messages)-1].pos.seq
	left := slices.DeleteFunc(slices.Clone(e.in(g.to.seq-1, last+1)), func(m *message) bool {
		return !tr.within(m) || !m.began.Before(at) || e.retained(m, at)
	})
	if !slices.ContainsFunc(left, tr.addressed) {
		tr.j.counts["gaps for what left its client out"]++
	}
	if len(left) == 0 {
		tr.violate("gap", "%v, but nothing that was for it has left a window", g)
	}
	if g.to.seq > tr.j.farthest(e) {
		tr.violate("gap", "%v covers what was not published", g)
	}
}

// mayBeUp says that server life n may have begun before t.
func (j *judge) mayBeUp(n int, t time.Time) bool {
	return n == 0 || n <= len(j.r.spans) && j.r.spans[n-1].from.Before(t)
}
