// Package load holds very many real connections to one server and verifies every message that arrives on them.
//
// One goroutine drives all of them through epoll, so that 10,000 clients cost a fraction of one core and the
// measurement is of the server. A [Protocol] knows the bytes of one server; [WebSocket], [EventStream] and [LongPoll]
// do what is common to their kind. A publisher sends messages made by [Payload]. Each names the run, its sequence
// number and the time at which it was made, so that a client notices loss, repetition, disorder, damage and delay.
//
// The engine needs Linux. Elsewhere New returns ErrPlatform.
package load
