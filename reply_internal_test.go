package gpoll

import (
	"context"
	"io"
	"math"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/frame"
)

// says has the peer of s send a command, and returns the answer.
func says(t *testing.T, far net.Conn, command string) string {
	t.Helper()
	if _, err := far.Write(sentFrame(0x81, command)); err != nil {
		t.Fatal(err)
	}
	return string(readText(t, far))
}

func publishes(t *testing.T, s *streamConn, topic, data string) Position {
	t.Helper()
	at, err := s.b.Publish(context.Background(), Message{Topic: topic, Data: []byte(data)})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// collects publishes a message that the routine has collected for the session, and cannot write before the test unlocks
// the stream.
func collects(t *testing.T, s *streamConn, topic, data string) {
	t.Helper()
	c := s.attach.client
	r := c.routine
	s.stream.mu.Lock()
	publishes(t, s, topic, data)
	for collected := false; !collected; runtime.Gosched() {
		r.mu.Lock()
		collected = r.unwrittenLocked(c, s.stream.lease.round())
		r.mu.Unlock()
	}
}

// Whatever a client asks for, its routine goes on to carry it.
func TestCommandsLeaveNobody(t *testing.T) {
	s, far := commandSession(t)
	a := s.attach
	allows := func(topic string) bool { return topic != "no" }
	a.client.routine.mu.Lock()
	a.grantee = &grantee{grant: Grant{Topics: []string{"given"}, Subscribe: allows}}
	a.client.routine.mu.Unlock()
	lease := s.stream.lease.number()
	for _, c := range [][2]string{
		{`what`, `{"error":{"code":"bad-request"`},
		{`{"subscribe":["a","b"]}`, `{"subscribed":{"topics":["a","b"],"position":"`},
		{`{"subscribe":["no"]}`, `{"error":{"code":"topic-forbidden"`},
		{`{"subscribe":["a b"]}`, `{"error":{"code":"bad-topic"`},
		{`{"send":{"data":"x"}}`, `{"error":{"code":"unsupported"`},
		{`{"unsubscribe":["b"]}`, `{"unsubscribed":{"topics":["b"],"position":"`},
		{`{"unsubscribe":[]}`, `{"unsubscribed":{"topics":[],"position":"`},
	} {
		if got := says(t, far, c[0]); !strings.HasPrefix(got, c[1]) {
			t.Errorf("%s: %s, want %s", c[0], got, c[1])
		}
	}
	a.post(operation{}) // as a renewed Grant does
	if topics := a.client.Topics(); !slices.Equal(topics, []string{"a", "given"}) {
		t.Errorf("the topics are %q", topics)
	}
	s.beat(a.client.routine)
	readPing(t, far)
	if got := string(readText(t, far)); !strings.HasPrefix(got, `{"position":"`) {
		t.Errorf("the heartbeat is %s", got)
	}
	if now := s.stream.lease.number(); now != lease {
		t.Errorf("a goroutine has carried the client: lease %d, was %d", now, lease)
	}
	publishes(t, s, "b", "not for it")
	publishes(t, s, "a", "for it")
	if got := string(readText(t, far)); !strings.Contains(got, `"data":"for it"`) {
		t.Errorf("got %s", got)
	}
}

func readPing(t *testing.T, conn net.Conn) {
	t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil || head != [2]byte{0x80 | frame.Ping, 0} {
		t.Fatal(head, err)
	}
}

// The messages of a topic behind the answer's Position come at once, though the routine was not woken when they came.
func TestSubscribeUnwoken(t *testing.T) {
	s, far := commandSession(t)
	for _, data := range []string{"1", "2", "3"} {
		publishes(t, s, "news", data)
	}
	if got := says(t, far, `{"subscribe":["news"]}`); !strings.Contains(got, `"position":"`+s.attach.cursor.String()) {
		t.Errorf("%s, want the Position at which the client stands, %v", got, s.attach.cursor)
	}
	_ = far.SetReadDeadline(time.Now().Add(10 * time.Second)) // the routine sweeps in an hour
	for _, data := range []string{"1", "2", "3"} {
		if got := string(readText(t, far)); !strings.Contains(got, `"data":"`+data+`"`) {
			t.Errorf("got %s, want %s", got, data)
		}
	}
}

// While a round is under way whose messages the socket has not been given, no command is done in its place: what was
// collected was chosen by the old topics.
func TestCommandInARound(t *testing.T) {
	s, far := commandSession(t)
	if got := says(t, far, `{"subscribe":["a"]}`); !strings.HasPrefix(got, `{"subscribed":`) {
		t.Fatal(got)
	}
	collects(t, s, "a", "1")
	if _, ok := s.tell(func(at Position) ([]byte, bool) { return nil, true }); ok {
		t.Error("a command is done in the middle of a round")
	}
	s.stream.mu.Unlock()
	if got := string(readText(t, far)); !strings.Contains(got, `"data":"1"`) {
		t.Errorf("got %s", got)
	}
}

// A goroutine that takes the client over reads the log by the topics that it was given while the routine carried it.
func TestSubscribeThenLag(t *testing.T) {
	s, far := commandSession(t)
	c := s.attach.client
	r := c.routine
	if got := says(t, far, `{"subscribe":["a"]}`); !strings.HasPrefix(got, `{"subscribed":`) {
		t.Fatal(got)
	}
	collects(t, s, "a", "1")
	r.mu.Lock()
	s.leave(r, c)
	r.mu.Unlock()
	s.stream.mu.Unlock()
	publishes(t, s, "a", "2")
	_ = far.SetReadDeadline(time.Now().Add(10 * time.Second))
	for _, data := range []string{"1", "2"} {
		if got := string(readText(t, far)); !strings.Contains(got, `"data":"`+data+`"`) {
			t.Errorf("got %s, want %s", got, data)
		}
	}
}

// A callback that ends the goroutine on which it is asked leaves no lock held, and none unlocked twice.
func TestAskedGoexit(t *testing.T) {
	s, _ := commandSession(t)
	a := s.attach
	r := a.client.routine
	quits := func(string) bool { runtime.Goexit(); return true }
	r.mu.Lock()
	a.grantee = &grantee{grant: Grant{Subscribe: quits}}
	r.mu.Unlock()
	over := make(chan struct{})
	go func() { // ends in the callback
		defer close(over)
		a.post(operation{did: subscribed, topics: []string{"a"}})
	}()
	<-over
	if held := s.b.LocksHeld(); held != nil {
		t.Errorf("held: %q", held)
	}
}

// A client whose commands wait is not ended for a pong that nobody reads, and has its time anew afterwards.
func TestPongBehindCommands(t *testing.T) {
	s, far := commandSession(t)
	a := s.attach
	r := a.client.routine
	r.mu.Lock()
	a.ops = make([]operation, mostWaiting) // of a goroutine that does not get on
	r.mu.Unlock()
	if _, err := far.Write(sentFrame(0x81, `{"what":1}`)); err != nil {
		t.Fatal(err)
	}
	for !s.held.Load() {
		runtime.Gosched()
	}
	due := func() {
		s.awaiting.Store(true)
		s.pongBy, s.pingAt = 1, math.MaxInt64
		s.beat(r)
	}
	due()
	if why := a.ending.Load(); why != nil {
		t.Fatalf("it has ended: %s", why.refusal.code)
	}
	r.mu.Lock()
	a.ops = nil
	a.roomLocked()
	r.mu.Unlock()
	if got := string(readText(t, far)); !strings.HasPrefix(got, `{"error":`) {
		t.Error(got)
	}
	for s.held.Load() {
		runtime.Gosched()
	}
	if s.awaiting.Load() {
		t.Error("a pong is awaited that could not be read")
	}
	due()
	if a.ending.Load() != endTimeout {
		t.Error("it goes on without a pong")
	}
}
