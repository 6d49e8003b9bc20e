package gpoll_test

import (
	"bufio"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
)

// Delivered counts the messages that were written to a client, in whatever answer.

// A poll whose sender has stopped sending is answered without an attach where another request has the client.
func TestPassingAnswerCounted(t *testing.T) {
	inBubble(t, "long-poll", func(t *testing.T) {
		s := start(t, setup{memory: true})
		id, after := s.register(t)
		older := s.later(t, "/poll"+query("client-id", id, "after", after, "topic", "other"))
		synctest.Wait()
		s.mustPublish(t, "mine", "m")
		conn := s.raw(t)
		io.WriteString(conn, rawGet("/poll"+query("client-id", id, "after", after, "topic", "mine"), nil)+"\r\n")
		conn.(interface{ CloseWrite() error }).CloseWrite()
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(res.Body); err != nil || string(text) != "m" {
			t.Fatalf("%q, %v", text, err)
		}
		synctest.Wait()
		if n := s.Stats().Delivered; n != 1 {
			t.Errorf("%d delivered, want 1", n)
		}
		s.mustPublish(t, "other", "for the older")
		<-older
	})
}

// A registration in JSON form carries what last brings.
func TestRegistrationCounted(t *testing.T) {
	inBubble(t, "long-poll", func(t *testing.T) {
		s := start(t, setup{memory: true})
		s.mustPublish(t, "a", "1")
		s.mustPublish(t, "a", "2")
		v := s.get(t, "/poll?format=json&topic=a&last=2").batch(t)
		if len(v.Messages) != 2 {
			t.Fatalf("%v", v.Messages)
		}
		synctest.Wait()
		if n := s.Stats().Delivered; n != 2 {
			t.Errorf("%d delivered, want 2", n)
		}
	})
}
