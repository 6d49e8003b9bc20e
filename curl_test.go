package gpoll_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// A client may close its connection as soon as it has the answer, as curl does at its end, or a proxy that keeps no
// connections. It gets no message twice.
func TestClosedAfterTheAnswer(t *testing.T) {
	s := start(t, setup{})
	id, _ := s.register(t)
	for i := range 300 {
		s.Send(strconv.Itoa(i))
		conn := s.raw(t)
		io.WriteString(conn, rawGet("/poll"+query("client-id", id), nil)+"\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		conn.Close()
		if err != nil || string(body) != strconv.Itoa(i) {
			t.Fatalf("poll %d: %s %q, %v", i, res.Status, body, err)
		}
	}
}

// A lingering connection returns from Write long after the client has what was written, as on a machine that is busy.
type lingering struct {
	*trap
	armed *atomic.Bool
}

func (c lingering) Write(p []byte) (int, error) {
	n, err := c.trap.Write(p)
	if c.armed.Load() {
		time.Sleep(200 * time.Millisecond)
	}
	return n, err
}

type lingeringListener struct {
	*trapListener
	armed *atomic.Bool
}

func (l lingeringListener) Accept() (net.Conn, error) {
	if _, err := l.trapListener.Accept(); err != nil {
		return nil, err
	}
	return lingering{l.newest(), l.armed}, nil
}

// A client that has an answer and polls again at once does not get the answer twice, however late the server notes that
// it was written.
func TestAskedAgainBeforeTheAnswerIsNoted(t *testing.T) {
	inBubble(t, "plain", func(t *testing.T) {
		b := gpoll.NewBroadcaster()
		mux := http.NewServeMux()
		b.ListenAndBroadcast("/poll", mux)
		inner := gpolltest.NewListener()
		var armed atomic.Bool
		hs := &http.Server{Handler: mux}
		served := make(chan error, 1)
		go func() { served <- hs.Serve(lingeringListener{&trapListener{Listener: inner}, &armed}) }() // ends with hs.Close
		s := &server{Broadcaster: b, url: "http://gpoll.test", settle: synctest.Wait}
		s.dial = func(ctx context.Context) (net.Conn, error) { return inner.DialContext(ctx, "tcp", "gpoll.test:80") }
		s.client = s.clientOnDial()
		defer func() {
			shutdown(t, b)
			s.client.CloseIdleConnections()
			hs.Close()
			<-served
		}()
		id, _ := s.register(t)
		s.Send("first")
		s.Send("second")
		armed.Store(true)
		for _, want := range []string{"first", "second"} {
			conn := s.raw(t) // each on a connection of its own, as curl's
			io.WriteString(conn, rawGet("/poll"+query("client-id", id), nil)+"\r\n")
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); string(body) != want || err != nil {
				t.Errorf("%q %v, want %q", body, err, want)
			}
		}
		advance(time.Second) // the last one is noted
	})
}
