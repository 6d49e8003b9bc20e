package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/corvuscrypto/gpoll"
)

// A room is the server: everybody in it hears what one of them says.
type room struct{ gpoll *gpoll.Broadcaster }

const topic = "room"

// A line is what somebody said, as everybody gets it.
type line struct {
	From string `json:"from"`
	Text string `json:"text"`
}

//go:embed page.html
var page []byte

func newRoom() *room {
	b := gpoll.NewBroadcaster()
	r := &room{b}
	b.Authorize = r.admit
	b.OnRequest = r.hear
	b.History.Age = time.Hour
	return r
}

func (r *room) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page) // the reader may have gone
	})
	r.gpoll.ListenAndBroadcast("/chat", mux)
	return mux
}

// admit lets everybody in who says a name. A chat that matters would look at a session here.
func (r *room) admit(req *http.Request) (gpoll.Grant, error) {
	scheme, name, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if name = strings.TrimSpace(name); scheme != "Bearer" || name == "" || len(name) > 40 || !utf8.ValidString(name) {
		return gpoll.Grant{}, errors.New("say your name: Authorization: Bearer <name>, of at most 40 bytes")
	}
	return gpoll.Grant{
		User:     name,
		Topics:   []string{topic},
		Presence: func(of string) bool { return of == topic },
	}, nil
}

// hear takes what somebody says. The reply says who is here, to those who ask for it.
func (r *room) hear(c *gpoll.Client, m gpoll.Message) ([]byte, error) {
	switch text := strings.TrimSpace(string(m.Data)); {
	case text == "":
		return nil, errors.New("say something")
	case len(text) > 1000:
		return nil, errors.New("that is too long: 1,000 bytes are enough")
	case text == "/who":
		var names []string
		for _, m := range r.gpoll.Presence(topic) {
			names = append(names, m.User)
		}
		return []byte(strings.Join(names, ", ")), nil
	case strings.HasPrefix(text, "/"):
		return nil, fmt.Errorf("there is only /who, not %.20q", text)
	default:
		data, err := json.Marshal(line{c.User(), text})
		if err != nil {
			return nil, err
		}
		_, err = r.gpoll.Publish(context.Background(), gpoll.Message{Topic: topic, Data: data})
		return nil, err
	}
}
