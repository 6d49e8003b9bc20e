// Package gpoll pushes messages to browsers and programs over plain HTTP: by long-poll, by Server-Sent Events or by
// WebSocket, whichever a client's network lets through, in one session that goes from one to another without a silent
// loss.
//
// # Getting started
//
// Mount a [Broadcaster] on the ServeMux that is there and call Send from anywhere:
//
//	b := gpoll.NewBroadcaster()
//	b.ListenAndBroadcast("/poll", mux)
//	b.Send("hello")
//
// The functions of the package do so with the [DefaultBroadcaster]. A client registers with GET /poll?client-id=0, is
// answered {"client-id":"0$…"}, and polls with that id. EventSource at /poll/events and a WebSocket at /poll/ws
// register by themselves. docs/protocol.md describes the wire, and the README has lines to paste.
//
// # One log, many cursors
//
// A Broadcaster has one log: its messages in one total order, each with a [Position] (an epoch, which names one life of
// the log, and a seq that counts in it). The log keeps a window of the newest messages, bounded by [Limits]. Everybody
// who listens is a cursor in that log with a filter of topics. To resume, to change the transport and to be slow are
// the same operation: read on after a Position. When the window has moved past it, the reader gets a [Gap] before the
// next message.
//
// What a client id names is a [Client]. It lives from its registration until it has been unattached for ClientTTL
// (AttachTimeout before its first attach), or is removed. A poll, an SSE response, a WebSocket or a channel of
// GetChannel is an attach; a client has one at most. The newest wins, and the older one ends with "superseded". Between
// attaches a client costs some memory and no goroutine.
//
// A routine is the goroutine that hands out messages to up to RoutineMaxClients clients. Routines come and go with the
// clients; a Broadcaster without clients has none. A routine never waits for a client. Publish never does either: it
// waits only while a routine is RoutineBufferSize messages behind.
//
// # What is promised
//
// Within an epoch every client gets messages in the order of their seq, across all topics. Between two messages that it
// gets, all that it was owed was delivered, or is covered by a gap before the second one. A gap covers nothing that was
// delivered. On the wire delivery is at least once: nothing leaves a client's backlog because it was written, only
// because the client came back with a later cursor or the window moved on. A client drops what is not after its cursor.
//
// A client that brings no cursor gets less: for plain polls the server keeps one, and repeats the answer whose failure
// it saw; a plain WebSocket loses what was on its way when it broke. With the [MemoryBroker] a new process begins a new
// epoch: the messages are gone, and who comes back with a position is told so by one gap.
//
// # Addresses
//
// [Broadcaster.Send], and a [Message] without Topic and To, reach every client. Topic reaches its subscribers, To one
// client or one user, and Except leaves out clients. Replay after a reconnect honours all of it. There are no
// wildcards. Others know a client by its [PublicID]; the client id is the secret of the client and the server.
//
// # Access
//
// [Broadcaster.Authorize] is asked for every request of every transport and says who makes it and which topics it may
// read. A client belongs to the user that registered it. Pages of other origins are refused unless AllowedOrigins lists
// them. A client cannot publish through gpoll: it posts to a handler of the application, which calls Publish.
//
// # Living with it
//
// Set the fields of a Broadcaster before its first use and leave them alone afterwards. The zero value of each is its
// default; a bad value panics in ListenAndBroadcast by its name, and is the error of Publish. All methods may be called
// concurrently.
//
// The http.Server, its TLS and its time-outs are the application's. Its WriteTimeout does not cut polls and streams, as
// long as middleware that wraps the ResponseWriter has an Unwrap method. A deadline that middleware itself sets for a
// request does not cut a poll if it is two seconds away or more. At the end call [Broadcaster.Shutdown] before the
// server's: that tells every client to come back and when, which ends the requests the server would wait for.
//
// A [Broker] orders and carries the messages, as opaque records. The MemoryBroker, the default, does so within one
// process. What a broker leaves out on the way is asked for, and is a gap only where the broker no longer has it.
// Package gpolltest has what a test of a program with gpoll needs: a listener without sockets, clients, a checker of
// the promises above, and a suite for brokers.
package gpoll
