// Private is a relay that lets in who knows a password, and cannot read what they say to each other: they seal it with
// a key that the relay does not have.
//
//	head -c 32 /dev/urandom > key             # for those who talk, not for the relay
//	export PASSWORD=open-sesame
//	go run ./examples/private                 # the relay, at http://127.0.0.1:8084/poll
//	go run ./examples/private -key key -dial http://127.0.0.1:8084/poll    # says the lines of its input
package main

import (
	"bufio"
	"context"
	"crypto/subtle"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/examples/internal/site"
	"github.com/corvuscrypto/gpoll/sealed"
)

const room = "room"

func main() {
	addr := flag.String("addr", "127.0.0.1:8084", "where the relay listens")
	dial := flag.String("dial", "", "the address of a relay, to talk there")
	file := flag.String("key", "", "the file with the key of those who talk")
	flag.Parse()
	site.Run("private", func(ctx context.Context) error {
		return run(ctx, *addr, *dial, *file, os.Getenv("PASSWORD"))
	})
}

func run(ctx context.Context, addr, dial, file, password string) error {
	switch {
	case password == "":
		return errors.New("give the password in $PASSWORD")
	case dial == "":
		return serve(ctx, addr, password)
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the key: %w", err)
	}
	box, err := sealed.New(key)
	if err != nil {
		return err
	}
	return talk(ctx, os.Stdin, os.Stdout, dial, password, box)
}

// newRelay returns a Broadcaster that asks for the password at each request.
func newRelay(password string) *gpoll.Broadcaster {
	b := gpoll.NewBroadcaster()
	want := []byte("Bearer " + password)
	b.Authorize = func(r *http.Request) (gpoll.Grant, error) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			return gpoll.Grant{}, errors.New("the password is wrong")
		}
		return gpoll.Grant{Publish: func(topic string) bool { return topic == room }}, nil
	}
	return b
}

func serve(ctx context.Context, addr, password string) error {
	b, mux := newRelay(password), http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	return site.Serve(ctx, "the relay", addr, b, mux)
}

// talk says the lines of in, and prints what the others say, until ctx ends.
func talk(ctx context.Context, in io.Reader, out io.Writer, url, password string, box *sealed.Box) error {
	c, err := client.Dial(ctx, url, client.Options{Topics: []string{room},
		Token: func(context.Context) (string, error) { return password, nil }})
	if err != nil {
		return err
	}
	defer c.Close()
	go func() { // ends with in, or with the first error after c's end
		for lines := bufio.NewScanner(in); lines.Scan(); {
			if _, err := c.Publish(ctx, room, box.Seal(room, lines.Bytes())); err != nil {
				return
			}
		}
	}()
	opener := box.NewOpener()
	for m, err := range c.Messages(ctx) {
		switch {
		case err != nil:
			return err
		case m.Gap != nil:
			fmt.Fprintln(out, "messages are missing:", m.Gap.Reason)
		default:
			line, err := opener.Open(m.Topic, m.Data)
			if err != nil {
				fmt.Fprintln(out, err)
				continue
			}
			fmt.Fprintln(out, string(line))
		}
	}
	return nil
}
