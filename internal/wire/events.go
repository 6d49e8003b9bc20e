package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// An Event is one event of an event stream, or a block of fields without data, which no EventSource dispatches.
type Event struct {
	Name    string
	Data    string // without the last line end
	HasData bool   // else it moves the ID at most
	ID      string // the last that the stream has named
	HasID   bool   // it is of this event
	Retry   string // in milliseconds; "": none
}

// Events reads an event stream by the rules of the HTML standard, section 9.2.6.
type Events struct {
	r         *bufio.Reader
	max       int
	id        string
	begun     bool
	skipsFeed bool // the last line ended with CR: a LF behind it is part of that end
}

// ErrTooLong says that an event is longer than its limit.
var ErrTooLong = errors.New("wire: an event is too long")

// NewEvents returns a reader of the events of r, each of which may have max bytes.
func NewEvents(r io.Reader, max int) *Events {
	return &Events{r: bufio.NewReaderSize(r, 2048), max: max}
}

// Next returns the next event. A partial event at the end of the stream is dropped, and the error is io.EOF.
func (e *Events) Next() (Event, error) {
	var ev Event
	var data strings.Builder
	lines := 0 // of data
	for size := 0; ; {
		line, err := e.line(e.max - size)
		if err != nil {
			return Event{}, err
		}
		size += len(line)
		if !e.begun {
			e.begun, line = true, strings.TrimPrefix(line, "\ufeff")
		}
		if line == "" {
			if !ev.HasData && !ev.HasID && ev.Retry == "" {
				ev.Name = "" // a name without anything to name
				continue
			}
			if ev.ID = e.id; lines > 1 {
				ev.Data = data.String()
			}
			return ev, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			ev.Name = value
		case "data":
			ev.HasData = true
			switch lines++; lines {
			case 1:
				ev.Data = value
				continue
			case 2:
				data.WriteString(ev.Data)
			}
			data.WriteByte('\n')
			data.WriteString(value)
		case "id":
			if !strings.Contains(value, "\x00") {
				ev.HasID, e.id = true, value
			}
		case "retry":
			if value != "" && strings.Trim(value, "0123456789") == "" {
				ev.Retry = value
			}
		}
	}
}

// line reads up to CR, LF or CRLF. It does not wait for the byte behind a CR.
func (e *Events) line(limit int) (string, error) {
	var long []byte // what of the line has left the buffer
	for {
		if _, err := e.r.Peek(1); err != nil {
			return "", err
		}
		there, _ := e.r.Peek(e.r.Buffered())
		if e.skipsFeed && there[0] == '\n' {
			_, _ = e.r.Discard(1)
			e.skipsFeed = false
			continue
		}
		e.skipsFeed = false
		end := bytes.IndexByte(there, '\n')
		if before := there[:max(end, 0)]; end < 0 {
			end = bytes.IndexByte(there, '\r')
		} else if cr := bytes.IndexByte(before, '\r'); cr >= 0 {
			end = cr
		}
		part := there
		if end >= 0 {
			part = there[:end]
		}
		if len(long)+len(part) > limit {
			return "", ErrTooLong
		}
		if end < 0 {
			long = append(long, part...)
			_, _ = e.r.Discard(len(part))
			continue
		}
		line := string(part)
		if len(long) > 0 {
			line = string(append(long, part...))
		}
		e.skipsFeed = there[end] == '\r'
		_, _ = e.r.Discard(end + 1)
		return line, nil
	}
}
