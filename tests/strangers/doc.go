// Package strangers holds a test of gpoll by clients that know nothing of its code.
//
// A server runs in a child process with small windows, topics with windows of their own, an Authorize whose grants
// expire every two seconds, and socket buffers of 8 KiB. Clients come over every transport, change it, abort
// requests, read slowly, stay away and come back. Publishers and the application, which removes and revokes clients,
// steer the server by its standard input. In the middle the server is killed, later it is shut down, and each time
// it comes up again on the same port.
//
// The clients are written from docs/protocol.md alone, with the standard library: an HTTP/1.1 client on net.Conn,
// the parser of event streams from the WHATWG's rules, and a strict client of RFC 6455. They share no code with
// gpoll or gpolltest, so they do not repeat a mistake that is there. The judge knows which messages were published,
// what each client asked for and what it got, and checks the promises of docs/protocol.md, section 9: order, no
// phantom, nothing altered, no silent loss, honest gaps, exact starts, one notice of each new epoch, and an end that
// says why. Less is promised to polls without a cursor that were given up, and to plain WebSockets from one connection
// to the next; there the judge checks the promises that remain.
//
//	go test ./tests/strangers                                     40 clients, 5 s, with and without Listener
//	GPOLL_STRANGERS=long go test -timeout 30m ./tests/strangers   300 clients, 20 s, six seeds, four settings
//	GPOLL_SEED=7 go test ./tests/strangers                        the choices of seed 7; the timing is the machine's
package strangers
