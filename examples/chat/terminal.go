package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/corvuscrypto/gpoll/client"
)

// terminal joins a room: what comes in at in is said, and what others say goes to out. It returns at the end of in.
func terminal(ctx context.Context, in io.Reader, out io.Writer, address, name string) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	c, err := client.Dial(ctx, strings.TrimRight(address, "/")+"/chat", client.Options{
		Token: func(context.Context) (string, error) { return name, nil },
		Last:  20, Topics: []string{topic},
		OnStatus: func(s client.Status) { fmt.Fprintf(out, "* %v\n", s) },
	})
	if err != nil {
		return err
	}
	defer c.Close()
	heard := make(chan error, 1)
	go func() { heard <- listen(ctx, c, out) }() // ends with ctx, or with the client
	said := make(chan error, 1)
	go func() { said <- speak(ctx, c, in, out) }() // ends with in
	select {
	case err = <-said:
		return err
	case err = <-heard:
		return err
	}
}

func listen(ctx context.Context, c *client.Client, out io.Writer) error {
	for m, err := range c.Messages(ctx) {
		if err != nil {
			return err
		}
		if m.Gap != nil {
			fmt.Fprintf(out, "* some lines are missing: %v\n", m.Gap)
			continue
		}
		var l line
		if err := json.Unmarshal(m.Data, &l); err != nil {
			return fmt.Errorf("this is no room: %w", err)
		}
		fmt.Fprintf(out, "%s: %s\n", l.From, l.Text)
	}
	return nil
}

func speak(ctx context.Context, c *client.Client, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		reply, err := c.Request(ctx, lines.Bytes())
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			fmt.Fprintf(out, "* %v\n", err)
		case len(reply) > 0:
			fmt.Fprintf(out, "* %s\n", reply)
		}
	}
	return lines.Err()
}
