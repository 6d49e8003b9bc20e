package gpoll_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// Frames that arrive together, or in two pieces cut anywhere, are handled in their order.
func TestFramesInPieces(t *testing.T) {
	var sent []byte
	var want []string
	command := func(kind string, i int) string {
		want = append(want, fmt.Sprintf(`{"%sd":{"topics":["t%d"],`, kind, i))
		return fmt.Sprintf(`{"%s":["t%d"]}`, kind, i)
	}
	fragments := func(text string) {
		first := clientFrame(t, "text "+text[:4])
		first[0] = 0x01
		last := clientFrame(t, "text "+text[4:])
		last[0] = 0x80
		sent = append(append(append(sent, first...), clientFrame(t, "pong within")...), last...)
	}
	simple := func(text string) { sent = append(sent, clientFrame(t, "text "+text)...) }
	simple(command("subscribe", 1))
	sent = append(sent, clientFrame(t, "pong between")...)
	simple(command("subscribe", 2))
	fragments(command("subscribe", 3))
	simple(command("unsubscribe", 1))
	simple(strings.Repeat(" ", 100) + command("subscribe", 4))
	sent = append(sent, clientFrame(t, "ping between")...)
	fragments(command("unsubscribe", 2))
	fragments(command("unsubscribe", 3))
	simple(command("unsubscribe", 4))

	play := func(t *testing.T, s *server, settle func()) {
		c := s.stream(t, "gpoll.v1", "0", "")
		for cut := range sent {
			for _, part := range [][]byte{sent[:cut], sent[cut:]} {
				if _, err := c.Write(part); err != nil {
					t.Fatal(err)
				}
				settle()
			}
			for i, prefix := range want {
				if m, said, err := c.next(); !strings.HasPrefix(m, prefix) || said != "" || err != nil {
					t.Fatalf("cut at %d: answer %d is %q, %q, %v; want %s", cut, i, m, said, err, prefix)
				}
			}
		}
	}
	t.Run("loopback", func(t *testing.T) { play(t, start(t, setup{}), func() {}) })
	for _, over := range []string{"memory", "tls"} {
		t.Run(over, func(t *testing.T) {
			certificate := certificateForTests()
			synctest.Test(t, func(t *testing.T) {
				if over == "tls" {
					play(t, serveTLS(t, certificate, 0), synctest.Wait)
				} else {
					play(t, start(t, setup{memory: true}), synctest.Wait)
				}
			})
		})
	}
}

// A message has 10 s from its first byte, also when its length shows only later that it is not a simple one.
func TestMessageWaitOfLargeFrame(t *testing.T) {
	large := clientFrame(t, "text "+strings.Repeat("x", 5000))
	huge := append([]byte{0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0}, 0, 0, 0, 0)
	for name, frame := range map[string][]byte{"large": large, "huge": huge} {
		for first := 1; first < 4; first++ {
			t.Run(fmt.Sprint(name, " cut at ", first), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					quiet := func(b *gpoll.Broadcaster) { b.Heartbeat = time.Hour }
					s := start(t, setup{memory: true, broadcaster: quiet})
					c := s.stream(t, "gpoll.v1", "0", "")
					begun := time.Now()
					c.Write(frame[:first])
					time.Sleep(6 * time.Second)
					c.Write(frame[first:14])
					if _, said, err := c.rest(); said != "4008 message-timeout" || err != nil {
						t.Errorf("%q, %v", said, err)
					}
					within(t, "told", time.Since(begun), 10*time.Second, 10*time.Second)
				})
			})
		}
	}
}

// A hello that is not UTF-8 registers nobody.
func TestHelloNotUTF8(t *testing.T) {
	s := start(t, setup{})
	conn := s.raw(t)
	fmt.Fprintf(conn, upgradeRequest, "", "Sec-WebSocket-Protocol: gpoll.v1\r\n")
	conn.Write(clientFrame(t, "text {\"hello\":{\"authorization\":\"\xff\"}}"))
	conn.Write(clientFrame(t, "close 1000 "))
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, frames, _ := bytes.Cut(answer, []byte("\r\n\r\n")); string(frames) != "\x88\x0b\x03\xefbad-utf-8" {
		t.Errorf("answered %q", frames)
	}
	if st := s.Stats(); st.Clients != 0 || st.Refused["bad-utf-8"] != 1 {
		t.Errorf("%d clients, refused: %v", st.Clients, st.Refused)
	}
}

// What has arrived of a message when its connection ends is no message, although it may read like one.
func TestCutMessage(t *testing.T) {
	leave := `text {"leave":true}`
	first := clientFrame(t, leave)
	first[0] = 0x01
	large := clientFrame(t, leave+strings.Repeat(" ", 3000))
	for name, sent := range map[string][]byte{"a first fragment": first, "512 of a large frame": large[:8+512]} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, setup{memory: true})
				c := s.stream(t, "gpoll.v1", "0", "")
				c.Write(sent)
				synctest.Wait()
				c.Conn.Close()
				synctest.Wait()
				if st := s.Stats(); st.Clients != 1 || st.Attached["websocket"] != 0 {
					t.Errorf("%d clients, %d attached: the command was obeyed", st.Clients, st.Attached["websocket"])
				}
			})
		})
	}
}
