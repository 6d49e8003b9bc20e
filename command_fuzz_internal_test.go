package gpoll

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/corvuscrypto/gpoll/internal/frame"
)

// commandTexts are what a client may say, and what it should not.
var commandTexts = []string{
	`{"send":{"data":"hi"}}`,
	`{"send":{"data":"hi"},"id":"1"}`,
	`{"id":"1","send":{"data":""}}`,
	`{"request":{"data":"what?"},"id":"n"}`,
	`{"request":{"data":"what?"}}`,
	`{"request":{"data":"what?"},"id":""}`,
	`{"publish":{"topic":"news","data":"x"}}`,
	`{"publish":{"data":"x","topic":"news"},"id":"2"}`,
	`{"publish":{"data":"x"}}`,
	` { "send" : { "data" : "spaces" } , "id" : "3" } ` + "\r\n\t",
	`{"send": {"data": "as Python writes it"}, "id": "4"}`,
	`{"send":{"data":"\"\\\/\b\f\n\r\t"}}`,
	`{"send":{"data":"{\"a\":[1,2]}"},"id":"\"5"}`,
	`{"send":{"data":"a\\"}}`, `{"send":{"data":"a\"}}`, `{"send":{"data":"\`, `{"send":{"data":"\"`,
	`{"send":{"data":"\u00e4\ud83d\ude00\ud83d"}}`,
	`{"send":{"data":"ä😀"},"id":"ö"}`,
	"{\"send\":{\"data\":\"\xff\"}}", "{\"send\":{\"data\":\"123456789\xc3\\n\"},\"id\":\"\xff\"}",
	"{\"send\":{\"data\":\"a\x00b\"}}", "{\"send\":{\"data\":\"1234567\x1f\\n\"}}",
	"{\"send\":{\"data\":\"\x7f\"}}",
	"{\"send\":{\"data\":\"a\nb\"}}", "\v{\"send\":{\"data\":\"\"}}", "\u00a0{\"send\":{\"data\":\"\"}}",
	`{"send":{"data":null}}`, `{"send":null}`, `{"send":{"data":"x"},"id":null}`,
	`{"send":{"data":"x"},"publish":null}`,
	`{"send":{"data":"x"},"leave":false}`, `{"send":{"data":"x"},"leave":true}`, `{"leave":true}`,
	`{"leave":true,"id":"6"}`,
	`{"send":{"data64":"aGk="}}`, `{"send":{"data":"x","data64":"aGk="}}`, `{"send":{"data64":"no"}}`,
	`{"send":{"topic":"t","data":"x"}}`, `{"send":{"topic":"","data":"x"}}`,
	`{"request":{"topic":"","data":"x"},"id":"1"}`,
	`{"send":{"data":"x"},"send":{"data":"y"}}`, `{"send":{"data":"x","data":"y"}}`,
	`{"send":{"data":"x"},"id":"1","id":"2"}`,
	`{"id":"","send":{"data":"x"},"id":"2"}`, `{"publish":{"topic":"","topic":"t","data":"x"}}`,
	`{"send":{"data":"x"},"request":{"data":"y"},"id":"1"}`,
	`{"Send":{"DATA":"x"},"ID":"1"}`, `{"send":{"data":"x"},"Id":"1"}`, "{\"\u017fend\":{\"data\":\"x\"}}",
	`{"send":{"data":"x"},"what":1}`, `{"send":{"data":"x","what":1}}`, `{"s\u0065nd":{"data":"x"}}`,
	`{"send":{"data":"x"}}}`, `{"send":{"data":"x"}}{}`, `{"send":{"data":"x"}},`, `{"send":{"data":"x"},}`,
	`{"send":{"data":"x",}}`, `{,"send":{"data":"x"}}`, `{"send":{"data":"x"}`, `{"send":{"data":"x"`, `{"send"`,
	`{`, ``,
	`{"send" :{"data":"x"}}`, `{"send":{"data":"x"}"id":"1"}`, `{"send":{"data":x}}`, `{"send":"x"}`,
	`{"send":[]}`,
	`{"send":{"data":["x"]}}`, `{"send":{"data":"x"},"id":1}`, `[{"send":{"data":"x"}}]`, `null`, `"send"`,
	`{"subscribe":["a"]}`, `{"unsubscribe":["a"],"send":{"data":"x"}}`, `{"hello":{"client-id":"0"}}`,
	`{"send":{"data":"` + strings.Repeat(`x`, 300) + `"}}`,
	`{"send":{"data":"` + strings.Repeat(`x`, 13) + `\n"}}`,
	`{"send":` + strings.Repeat(`{"data":`, 100) + `""` + strings.Repeat(`}`, 101),
}

// A hearing notes what clients say.
type hearing struct {
	b    *Broadcaster
	said []string
}

func (h *hearing) note(form string, of ...any) { h.said = append(h.said, fmt.Sprintf(form, of...)) }

// take returns what has been noted since the last call.
func (h *hearing) take() (said []string) {
	said, h.said = h.said, nil
	return said
}

// grant lets nobody publish, and notes who wants to.
func (h *hearing) grant() Grant {
	return Grant{Publish: func(topic string) bool { h.note("publish to %q", topic); return false }}
}

// FuzzCommand says anything. What scanCommand reads is what decodeStrict and frameCommand.command read. What is done
// for a frame is done for a POST, and nothing panics.
func FuzzCommand(f *testing.F) {
	for _, text := range commandTexts {
		f.Add([]byte(text))
	}
	s, far := commandSession(f)
	go func() { _, _ = io.Copy(io.Discard, far) }() // ends with the session
	b := s.b
	h := &hearing{b: b}
	b.set.upstreamRate = -1
	b.OnMessage = func(_ *Client, m Message) { h.note("send %q %q", m.Data, m.ID) }
	b.OnRequest = func(_ *Client, m Message) ([]byte, error) {
		h.note("request %q %q", m.Data, m.ID)
		return nil, nil
	}
	b.Authorize = func(*http.Request) (Grant, error) { return h.grant(), nil }
	r := s.attach.client.routine
	r.mu.Lock()
	s.attach.grantee = &grantee{grant: h.grant()}
	r.mu.Unlock()
	f.Fuzz(func(t *testing.T, text []byte) {
		var in frameCommand
		err := decodeStrict(text, &in)
		slow, no := in.command()
		fast, ok := scanCommand(bytes.Clone(text))
		if ok && (err != nil || no != nil || !reflect.DeepEqual(fast, slow)) {
			t.Fatalf("%q is read as %+v, and not as %+v, %v, %v", text, fast, slow, no, err)
		}
		batch := bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("["))
		if !utf8.Valid(text) || batch || err == nil && in.Leave || len(text) > 4<<10 {
			return
		}
		s.attach.client.up.Store(nil) // ids are new
		if room, g := s.attach.full(); room != nil || g == nil {
			t.Fatal("the client's answers stand still")
		}
		s.receive(frame.Text, bytes.Clone(text))
		s.handled()
		framed := h.take()
		if s.attach.ending.Load() != nil {
			t.Fatalf("%q has ended the attach", text)
		}

		c, refused := b.register(registration{})
		if refused != nil {
			t.Fatal(refused.code)
		}
		defer b.remove(c, endLeft)
		post := httptest.NewRequest(http.MethodPost, "/poll/commands", bytes.NewReader(text))
		post.Header.Set("Content-Type", "application/json")
		post.Header.Set("Gpoll-Client-Id", c.ID())
		w := httptest.NewRecorder()
		b.obeyPost(w, post)
		if posted := h.take(); !slices.Equal(framed, posted) {
			t.Fatalf("%q in a frame: %q, in a POST: %q (%d %s)", text, framed, posted, w.Code, w.Body)
		}
		if done := err == nil && no == nil; done != (len(framed) == 1) && slow.kind != commandPublish {
			t.Fatalf("%q: %+v, %v, but heard %q", text, slow, no, framed)
		}
	})
}

// What programs usually write is read at once.
func TestCommandsAreScanned(t *testing.T) {
	for text, want := range map[string]command{
		`{"send":{"data":"hi"}}`:                        {commandSend, "", "", []byte("hi"), nil, false},
		`{"send": {"data": "h\"i\n"}, "id": "1"}`:       {commandSend, "1", "", []byte("h\"i\n"), nil, false},
		`{"id":"ä","send":{"data":""}}`:                 {commandSend, "ä", "", []byte{}, nil, false},
		`{"request":{"data":"{\"a\":\"ö\"}"},"id":"n"}`: {commandRequest, "n", "", []byte(`{"a":"ö"}`), nil, false},
		`{"publish":{"topic":"t","data":"123456789"}}`:  {commandPublish, "", "t", []byte("123456789"), nil, false},
		`{"publish":{"data":"x","topic":"t"}}` + "\n":   {commandPublish, "", "t", []byte("x"), nil, false},
	} {
		if cmd, ok := scanCommand([]byte(text)); !ok || !reflect.DeepEqual(cmd, want) {
			t.Errorf("%s: %+v, %v", text, cmd, ok)
		}
	}
}

// The goroutine that reads is another one after the first pong behind a command: the stack, which the application may
// have grown, is not kept by a client that says nothing more.
func TestReaderIsRenewed(t *testing.T) {
	on := make(chan string)
	_, far := commandSession(t, func(b *Broadcaster) {
		b.UpstreamRate = -1
		b.OnMessage = func(*Client, Message) {
			var stack [64]byte
			name, _, _ := bytes.Cut(stack[:runtime.Stack(stack[:], false)], []byte(" ["))
			on <- string(name)
		}
	})
	send, pong := sentFrame(0x81, `{"send":{"data":""}}`), sentFrame(0x8a, "")
	var names []string
	for _, sent := range [][]byte{send, send, pong, pong, send} {
		if _, err := far.Write(sent); err != nil {
			t.Fatal(err)
		}
		if len(sent) == len(send) {
			names = append(names, <-on)
		}
	}
	if names[0] != names[1] || names[1] == names[2] {
		t.Errorf("the commands were obeyed by %q", names)
	}
}

// The answers to commands that come together, whose goroutine and place change, come in the order of the commands.
func TestCommandsTogether(t *testing.T) {
	_, far := commandSession(t, func(b *Broadcaster) {
		b.UpstreamRate = -1
		b.OnMessage = func(*Client, Message) {}
		b.OnRequest = func(_ *Client, m Message) ([]byte, error) { return m.Data, nil }
	})
	var sent []byte
	var want []string
	for i := range 400 {
		var text string
		switch i % 5 {
		case 0:
			text = fmt.Sprintf(`{"request":{"data":"a%[1]d"},"id":"%[1]d"}`, i)
			want = append(want, fmt.Sprintf(`{"reply":{"id":"%[1]d","data":"a%[1]d"}}`, i))
		case 1:
			text = fmt.Sprintf(`{"subscribe":["t%d"]}`, i)
			want = append(want, fmt.Sprintf(`{"subscribed":{"topics":["t%d"],"position":`, i))
		case 2:
			text = fmt.Sprintf(`{"unsubscribe":["t%d"]}`, i-1)
			want = append(want, fmt.Sprintf(`{"unsubscribed":{"topics":["t%d"],"position":`, i-1))
		case 3:
			text = `{"send":{"data":"nothing to answer"}}`
		default:
			text = fmt.Sprintf(`{"send":{"data":"\u0061"},"id":"%d"}`, i)
			want = append(want, fmt.Sprintf(`{"sent":{"id":"%d"}}`, i))
		}
		sent = append(sent, sentFrame(0x81, text)...)
	}
	failed := make(chan error, 1)
	go func() { // ends when everything is read, or with the connection
		_, err := far.Write(sent)
		failed <- err
	}()
	for _, answer := range want {
		if got := readText(t, far); !strings.HasPrefix(string(got), answer) {
			t.Fatalf("%s, want %s", got, answer)
		}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// Messages lie in memory that is used again. Each is heard as it was said, and stays so where it was published, however
// the bytes arrive.
func TestHeardData(t *testing.T) {
	for _, verb := range []string{"send", "publish"} {
		t.Run(verb, func(t *testing.T) {
			heard := make(chan string, 300)
			var b *Broadcaster
			s, far := commandSession(t, func(it *Broadcaster) {
				b = it
				b.UpstreamRate = -1
				b.ClientBufferSize = 300
				b.OnMessage = func(_ *Client, m Message) { heard <- string(m.Data) }
			})
			r := s.attach.client.routine
			r.mu.Lock()
			s.attach.grantee = &grantee{grant: Grant{Publish: func(string) bool { return true }}}
			r.mu.Unlock()
			if verb == "publish" {
				id, routine := b.AddClient()
				c, _ := b.Client(id)
				if err := c.Subscribe("t"); err != nil {
					t.Fatal(err)
				}
				var err error
				if heard, err = b.GetChannel(id, routine); err != nil {
					t.Fatal(err)
				}
			}
			var sent []byte
			var want []string
			for i := range 300 {
				data := fmt.Sprintf("%d %s", i, strings.Repeat("x", i))
				want = append(want, data)
				text := fmt.Sprintf(`{"send":{"data":%q}}`, data)
				if verb == "publish" {
					text = fmt.Sprintf(`{"publish":{"topic":"t","data":%q}}`, data)
				}
				sent = append(sent, sentFrame(0x81, text)...)
			}
			for len(sent) > 0 { // in pieces that end anywhere
				n := min(len(sent), 5000)
				if _, err := far.Write(sent[:n]); err != nil {
					t.Fatal(err)
				}
				sent = sent[n:]
			}
			late := time.After(10 * time.Second)
			var got []string
			for i := range want {
				select {
				case data := <-heard:
					if got = append(got, data); data != want[i] {
						t.Errorf("message %d is %q", i, data)
					}
				case <-late:
					t.Fatalf("%d messages came", i)
				}
			}
			if verb == "send" {
				return
			}
			// What the log has is what came.
			items, _, _ := b.messages.read(Position{b.messages.end().Epoch, 0}, &interest{topics: []string{"t"}},
				replay{300, 1 << 30}, nil)
			for i, it := range items {
				if it.rec == nil || it.rec.data != got[i] {
					t.Errorf("message %d has become %+v", i, it)
				}
			}
			if len(items) != 300 {
				t.Errorf("the log has %d messages", len(items))
			}
		})
	}
}
