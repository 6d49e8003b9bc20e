package wire

import (
	"bufio"
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
			ev.Data, ev.ID = strings.TrimSuffix(data.String(), "\n"), e.id
			return ev, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			ev.Name = value
		case "data":
			ev.HasData = true
			data.WriteString(value)
			data.WriteByte('\n')
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
func (e *Events) line(max int) (string, error) {
	var line []byte
	for {
		c, err := e.r.ReadByte()
		if err != nil {
			return "", err
		}
		skip := e.skipsFeed && c == '\n'
		e.skipsFeed = c == '\r'
		switch {
		case skip:
		case c == '\r' || c == '\n':
			return string(line), nil
		case len(line) >= max:
			return "", ErrTooLong
		default:
			line = append(line, c)
		}
	}
}
