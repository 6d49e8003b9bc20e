package gpoll_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// MaxTopics holds for commands that come one upon the other, before any of them has been done.
func TestMaxTopicsPipelined(t *testing.T) {
	s := start(t, setup{broadcaster: func(b *gpoll.Broadcaster) { b.MaxTopics = 10 }})
	c := s.socket(t, "/poll/ws", "gpoll.v1")
	say(t, c, `{"hello":{"topics":["t0"]}}`)
	welcome := frame(t, c)
	id := idOf(t, strings.TrimSuffix(strings.TrimPrefix(welcome, `{"welcome":`), `}`))
	for i := range 100 {
		say(t, c, fmt.Sprintf(`{"subscribe":["t%d","u%d","v%d"]}`, i, i, i))
	}
	accepted, refused := 0, 0
	for range 100 {
		switch f := frame(t, c); {
		case strings.HasPrefix(f, `{"subscribed":`):
			accepted++
		case strings.HasPrefix(f, `{"error":{"code":"too-many-topics"`):
			refused++
		default:
			t.Fatal(f)
		}
	}
	client, ok := s.Client(id)
	if !ok {
		t.Fatal("the client is gone")
	}
	if n := len(client.Topics()); n > 10 || accepted != 3 || refused != 97 {
		t.Errorf("%d topics after %d accepted and %d refused subscribes, want at most 10", n, accepted, refused)
	}
}

// A Grant's permission lasts as long as the Grant: if a subscription was allowed under an old Grant, the new Grant is
// asked about it again.
func TestSubscribeUnderOldGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var generation atomic.Int64
		asked, hold := make(chan struct{}, 1), make(chan struct{})
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) {
				n := generation.Add(1)
				return gpoll.Grant{Expires: time.Now().Add(10 * time.Second), Subscribe: func(topic string) bool {
					if topic == "secret" && n == 1 {
						asked <- struct{}{}
						<-hold
					}
					return n == 1
				}}, nil
			}
		}})
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{}}`)
		frame(t, c)
		say(t, c, `{"subscribe":["secret"]}`)
		<-asked
		advance(11 * time.Second) // the Grant is renewed, and allows it no more
		close(hold)
		synctest.Wait()
		for {
			f := frame(t, c)
			if strings.HasPrefix(f, `{"position"`) {
				continue
			}
			if !strings.HasPrefix(f, `{"error":{"code":"topic-forbidden"`) {
				t.Errorf("%s, want topic-forbidden", f)
			}
			break
		}
		s.mustPublish(t, "secret", "not for it")
		s.Send("for it")
		for {
			f := frame(t, c)
			if strings.HasPrefix(f, `{"position"`) {
				continue
			}
			if e := elementOf(t, f); e.Data != "for it" {
				t.Errorf("got %s", f)
			}
			break
		}
	})
}

// Commands that wait for the application take effect in the order in which they were sent.
func TestSubscribeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) {
				return gpoll.Grant{Subscribe: func(topic string) bool {
					time.Sleep(time.Second)
					return topic != "no"
				}}, nil
			}
		}})
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{}}`)
		frame(t, c)
		for _, command := range []string{`{"subscribe":["a"]}`, `{"unsubscribe":["a"]}`, `{"subscribe":["no"]}`,
			`{"subscribe":["b"]}`} {
			say(t, c, command)
		}
		for _, want := range []string{`{"subscribed":{"topics":["a"]`, `{"unsubscribed":{"topics":["a"]`,
			`{"error":{"code":"topic-forbidden"`, `{"subscribed":{"topics":["b"]`} {
			if f := frame(t, c); !strings.HasPrefix(f, want) {
				t.Errorf("got %s, want %s", f, want)
			}
		}
	})
}

// A Grant whose time is over is none: on every transport, when it is given and when it is renewed.
func TestExpiredGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var over atomic.Bool
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) {
				if over.Load() {
					return gpoll.Grant{Expires: time.Now()}, nil
				}
				return gpoll.Grant{Expires: time.Now().Add(time.Second)}, nil
			}
		}})
		id, after := s.register(t)
		stream := s.events(t, "/poll/events")
		stream.next(t)
		over.Store(true)
		for _, by := range gets {
			for _, q := range []string{"", query("client-id", id, "after", after)} {
				if a := s.get(t, by.path+q, by.header...); a.status != http.StatusUnauthorized || a.code(t) != "unauthorized" {
					t.Errorf("%s%s: %d %s", by.name, q, a.status, a.body)
				}
			}
		}
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{}}`)
		if code, reason := closing(t, c); code != 4001 {
			t.Errorf("hello: %d %s", code, reason)
		}
		if ev := stream.next(t); ev.name != "end" || !strings.Contains(ev.data, `"unauthorized"`) {
			t.Errorf("the stream: %+v, want end unauthorized", ev)
		}
	})
}

// A renewal that allows the topics which were there when it was asked does not let one in that came meanwhile.
func TestRenewalMeetsSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var generation atomic.Int64
		hold := make(chan struct{})
		s := start(t, setup{memory: true, broadcaster: func(b *gpoll.Broadcaster) {
			b.Authorize = func(*http.Request) (gpoll.Grant, error) {
				n := generation.Add(1)
				if n > 5 {
					return gpoll.Grant{}, errors.New("enough")
				}
				return gpoll.Grant{Expires: time.Now().Add(10 * time.Second), Subscribe: func(topic string) bool {
					if n == 2 && topic == "kept" {
						<-hold // the renewal is under way
					}
					return n == 1 || topic == "kept"
				}}, nil
			}
		}})
		c := s.socket(t, "/poll/ws", "gpoll.v1")
		say(t, c, `{"hello":{"topics":["kept"]}}`)
		frame(t, c)
		advance(11 * time.Second)
		say(t, c, `{"subscribe":["new"]}`) // allowed by the old Grant, which is still in force
		if f := frame(t, c); !strings.HasPrefix(f, `{"subscribed"`) {
			t.Fatal(f)
		}
		close(hold)
		if code, reason := closing(t, c); code != 4001 {
			t.Errorf("%d %s, want 4001: the new Grant does not allow a topic that the client reads", code, reason)
		}
	})
}
