//go:build plantbugs

package gpoll

import "os"

// planted names the bug that the history checker must catch in this run (contract A4).
var planted = os.Getenv("GPOLL_PLANT")

// A plantedCursor is how far a client was written to, for the bug that takes that for read.
type plantedCursor struct{ Position }

// plantRecord spoils a message on its way into the log.
func plantRecord(rec *record) {
	if rec.pos.Seq%5 != 0 {
		return
	}
	switch planted {
	case "altered-payload":
		data := []byte(rec.data)
		if len(data) > 0 {
			data[len(data)-1] ^= 1
		}
		rec.data = string(data)
	case "accepted-not-stored":
		rec.to = address{kindClient, "nobody"}
	case "wrong-topic":
		if rec.to == (address{kindTopic, "a"}) {
			rec.to.name = "b"
		}
	}
}

// plantGap spoils a gap before the next message. It reports whether the gap is announced at all.
func plantGap(g *Gap, next *record) bool {
	switch planted {
	case "no-eviction-notice":
		return false
	case "gap-too-long":
		if next != nil {
			g.To = next.pos.Seq
		}
	case "gap-too-short":
		g.To--
	}
	return g.To >= g.From
}

// plantBatch spoils what a client is about to be given.
func plantBatch(a *attach, got []item) []item {
	switch {
	case planted == "swap" && len(got) >= 2 && got[0].rec != nil && got[1].rec != nil:
		got[0], got[1] = got[1], got[0]
	case planted == "drop-from-batch" && len(got) >= 3 && got[1].rec != nil:
		got = append(got[:1], got[2:]...)
	case planted == "removal-on-write":
		r := a.client.routine
		r.mu.Lock()
		a.client.planted.Position = a.cursor
		r.mu.Unlock()
	}
	return got
}

// plantCursor spoils the cursor that an attach brings: what was written counts as read.
func plantCursor(c *Client, p Position) Position {
	if planted == "removal-on-write" && p.Seq < c.planted.Seq {
		return c.planted.Position
	}
	return p
}

// plantRead makes a new subscription begin at the end of the log.
func plantRead(a *attach) {
	if planted == "subscribe-race" && !a.verified && len(a.want.topics) > 0 {
		a.cursor = a.client.routine.b.messages.end()
	}
}
