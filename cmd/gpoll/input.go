package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"unicode/utf8"

	"github.com/corvuscrypto/gpoll"
)

// broadcastInput publishes the lines of in, for -stdin, and reports what did not go as asked. It returns when the input
// ends or the Broadcaster is shut down.
func broadcastInput(ctx context.Context, p publisher, set *settings, in io.Reader, stderr io.Writer,
	logger *slog.Logger) {
	lines, err := publishLines(in, int(set.maxMessage),
		func(line []byte) error {
			_, err := p.Publish(ctx, gpoll.Message{Topic: set.stdinTopic, Data: line})
			return err
		},
		func(line int) {
			fmt.Fprintf(stderr, "gpoll: line %d of standard input is longer than %d bytes (-max-message) and is sent "+
				"in pieces\n", line, int(set.maxMessage))
		})
	switch {
	case err == nil:
		logger.Info("standard input has ended; serving goes on", "lines", lines)
	case errors.Is(err, gpoll.ErrClosed):
		fmt.Fprintf(stderr, "gpoll: standard input was not broadcast after line %d: the server is shutting down\n", lines)
	default:
		fmt.Fprintf(stderr, "gpoll: standard input was not broadcast after line %d, serving goes on: %v\n", lines, err)
	}
}

// publishLines hands each line of in, without its end (LF or CRLF), to publish, which must not keep it. If a line has
// more than limit bytes, publishLines first calls long with the line's number, which counts from 1. Then it hands the
// line over in pieces of at most limit bytes. It cuts UTF-8 between characters. It holds no more than limit and a read
// buffer in memory.
//
// It returns the number of lines that it handed over whole, and the first error of publish or of in, except io.EOF.
func publishLines(in io.Reader, limit int, publish func(line []byte) error,
	long func(line int)) (lines int, err error) {
	r := bufio.NewReaderSize(in, 64<<10)
	var held []byte // what has been read of the present line and not been published
	cut := false    // a piece of it has been published
	for {
		part, readErr := r.ReadSlice('\n')
		held = append(held, part...)
		text, ended := bytes.CutSuffix(held, []byte("\n"))
		last := readErr != nil && readErr != bufio.ErrBufferFull
		most := limit
		switch {
		case ended:
			text = bytes.TrimSuffix(text, []byte("\r"))
		case !last:
			most++ // the last byte may be the CR of the line's end
		}
		for len(text) > most {
			if !cut {
				long(lines + 1)
				cut = true
			}
			n := cutAt(text, limit)
			if err := publish(text[:n]); err != nil {
				return lines, err
			}
			text = text[n:]
		}
		switch {
		case ended, last && len(held) > 0:
			if len(text) > 0 || !cut {
				if err := publish(text); err != nil {
					return lines, err
				}
			}
			lines++
			held, cut = held[:0], false
		default:
			held = append(held[:0], text...)
		}
		switch {
		case readErr == io.EOF:
			return lines, nil
		case last:
			return lines, readErr
		}
	}
}

// cutAt returns where to cut text, which has more than limit bytes: at limit, or up to three bytes before it if that
// keeps a character whole.
func cutAt(text []byte, limit int) int {
	for n := limit; n > 0 && n > limit-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n]) {
			return n
		}
	}
	return limit
}
