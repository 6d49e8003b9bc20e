// Package client connects a Go program to a gpoll server, both ways, and survives what networks do.
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
//
// The program speaks by [Client.Send], [Client.Publish] and [Client.Request], which return when the server has
// answered, and answers the server's own requests by [Options.OnRequest].
//
// A Client that waits for messages costs one goroutine and about 27 KB by WebSocket. By SSE and by long-poll it is
// three goroutines and 36 KB: two are those of its connection in net/http.
package client
