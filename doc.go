// Package gpoll pushes messages to browsers and programs over plain HTTP: by long-poll, by Server-Sent Events or by
// WebSocket, whichever a client's network lets through. A client may go from one transport to another in one session,
// without a silent loss.
//
// # Getting started
//
// Mount a [Broadcaster] on your ServeMux and call Send from anywhere:
//
//	b := gpoll.NewBroadcaster()
//	b.ListenAndBroadcast("/poll", mux)
//	b.Send("hello")
//
// The functions of the package do so with the [DefaultBroadcaster]. A client registers with GET /poll?client-id=0, gets
// {"client-id":"0$…"}, and polls with that id. EventSource at /poll/events and a WebSocket at /poll/ws register by
// themselves. docs/protocol.md describes the wire, and the README has lines to paste.
//
// # One log, many cursors
//
// A Broadcaster has one log: its messages in one total order. Each has a [Position]: an epoch, which names one life of
// the log, and a seq, which counts within the epoch. The log keeps a window of the newest messages, bounded by
// [Limits]. Each reader is a cursor in that log with a filter of topics. A reader that resumes, changes its transport
// or was slow does the same: it reads on after a Position. When the window has moved past that Position, the reader
// gets a [Gap] before the next message.
//
// A client id names a [Client]. The Client lives from its registration until it has been unattached for ClientTTL
// (AttachTimeout before its first attach), or is removed. A poll, an SSE response, a WebSocket or a channel of
// GetChannel is an attach; a client has one at most. The newest wins, and the older one ends with "superseded". Between
// attaches a client costs some memory and no goroutine.
//
// A routine is a goroutine that hands out messages to up to RoutineMaxClients clients. Routines come and go with the
// clients; a Broadcaster without clients has none. A routine never waits for a client, nor does Publish: it waits only
// for the broker, and while a routine is RoutineBufferSize messages behind.
//
// # What is promised
//
// Within an epoch every client gets messages in the order of their seq, across all topics. Between two messages that it
// gets, everything it was owed was delivered, or a gap before the second message covers it. A gap covers nothing that
// was delivered. On the wire delivery is at least once: a message leaves a client's backlog when the client comes back
// with a later cursor or the window moves on, not when it is written. A client drops messages that are not after its
// cursor.
//
// A client that brings no cursor gets less: for plain polls the server keeps one, and repeats an answer if it saw the
// write fail; a plain WebSocket loses the messages that were on their way when it broke. With the [MemoryBroker] a new
// process begins a new epoch: the messages are gone, and a client that comes back with a position gets one gap.
//
// # Addresses
//
// [Broadcaster.Send], and a [Message] without Topic and To, reach every client. Topic reaches its subscribers, To one
// client or one user, and Except leaves out clients. Replay after a reconnect honours all of it. With
// [Broadcaster.Wildcards] a client may subscribe to patterns such as "sensors.*". Other clients know a client by its
// [PublicID]; its client id is the secret of the client and the server.
//
// # Presence
//
// [Broadcaster.Presence] returns the clients that are subscribed to a topic, between two polls and across transports.
// Clients watch it where [Grant].Presence lets them: they get the members, and once in a second who has come and gone.
//
// # Access
//
// gpoll calls [Broadcaster.Authorize] for every request of every transport. It says which user makes the request and
// which topics that user may read. A client belongs to the user that registered it. Pages of other origins are refused
// unless AllowedOrigins lists them.
//
// # Two ways
//
// A client speaks by commands, on a WebSocket of gpoll.v1 or by POST: to the application, which [Broadcaster.OnMessage]
// and [Broadcaster.OnRequest] are, or to a topic, if [Grant].Publish allows it. The commands of one client take effect
// one at a time, in its order, and each with an id once, however often it comes and by whatever transport. The server
// asks by [Client.Request]. [Broadcaster.OnConnect] and [Broadcaster.OnClose] are called once in the life of a client,
// not at each attach. Package client is a client in Go.
//
// # Living with it
//
// Set the fields of a Broadcaster before its first use and leave them alone afterwards. The zero value of each is its
// default; a bad value makes ListenAndBroadcast panic and Publish fail, and both name the field. All methods may be
// called concurrently.
//
// The http.Server, its TLS and its time-outs are the application's. Its WriteTimeout does not cut polls and streams, as
// long as middleware that wraps the ResponseWriter has an Unwrap method. A deadline that middleware itself sets for a
// request does not cut a poll if it is two seconds away or more. At the end call [Broadcaster.Shutdown] before the
// server's. It tells every client when to come back, and so ends the requests for which the server would wait.
//
// A [Broker] orders and carries the messages, as opaque records. The MemoryBroker, the default, does so within one
// process. When a broker leaves out records on the way, gpoll asks for them; they become a gap only where the broker no
// longer has them. Package gpolltest helps to test programs with gpoll: a listener without sockets, clients, a checker
// of the promises above, and a suite for brokers.
package gpoll
