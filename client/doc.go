// Package client listens to a gpoll server from a Go program, and survives what networks do.
//
//	c, err := client.Dial(ctx, "https://example.org/poll", client.Options{Topics: []string{"news"}})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	for m, err := range c.Messages(ctx) {
//		if err != nil {
//			return err // the server's word, or the end of ctx
//		}
//		if m.Gap != nil {
//			continue // messages may be missing here: fetch the state anew
//		}
//		fmt.Printf("%s: %s\n", m.Topic, m.Data)
//	}
//
// A [Client] uses a WebSocket; where that does not work, Server-Sent Events; where those do not work, long-poll. It
// climbs again later. All of that is one session: the client keeps its place in the stream, drops what comes twice, and
// yields a gap where the server says that messages may be missing. docs/protocol.md describes the wire.
package client
