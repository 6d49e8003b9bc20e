// Package gpolltest holds what a test of a gpoll server needs: an in-memory network, clients for every transport, and a
// checker that decides whether the messages that those clients saw keep gpoll's promises.
//
// [Listener] is a net.Listener without sockets. Unlike a loopback socket it works inside a testing/synctest bubble,
// where a poll that waits 25 seconds takes none.
//
// [Session] is a client as an application has it. It carries one client id, one cursor and a set of topics from one
// [Transport] to another. It can be cut off at any moment and resumes.
//
// [History] records which messages were published and which ones each Session received. [Checker] reads it and reports
// every lost, repeated, reordered, altered or misdirected message as a [Violation]:
//
//	ln := gpolltest.NewListener()
//	b := gpoll.NewBroadcaster()
//	mux := http.NewServeMux()
//	b.ListenAndBroadcast("/poll", mux)
//	go http.Serve(ln, mux)
//
//	var h gpolltest.History
//	alice := &gpolltest.Session{URL: "http://gpoll.test/poll", Client: ln.Client(),
//		Trace: h.Trace("alice"), Topics: []string{"news"}}
//	err := alice.Attach(ctx, gpolltest.SSE)
//	pos, err := h.Publish(ctx, b, gpoll.Message{Topic: "news", Data: []byte("hi")})
//	err = alice.Await(ctx, pos)
//	alice.Drained()
//	for _, v := range (gpolltest.Checker{}).Check(&h) {
//		t.Error(v)
//	}
//
// [TestBroker] checks a gpoll.Broker against the promises of that interface.
package gpolltest
