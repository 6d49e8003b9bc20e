package client

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
)

// Every end has its course, which is that of the browser client: testdata/ends.json. A status without an error is of
// something on the way.
func TestCourses(t *testing.T) {
	text, err := os.ReadFile("../testdata/ends.json")
	if err != nil {
		t.Fatal(err)
	}
	var ends []struct {
		Status, Close int
		Event, Reason string
		Error, Course string
		Retry         int64 `json:"retry_ms"`
	}
	if err := json.Unmarshal(text, &ends); err != nil || len(ends) < 50 {
		t.Fatal(len(ends), err)
	}
	courses := map[string]course{"back": comeBack, "register": register, "token": askToken, "down": goDown,
		"life": loseLife, "stop": stop}
	for _, end := range ends {
		said := fmt.Sprintf(`{"error":%q,"message":"a sentence","retry_ms":%d}`, end.Error, end.Retry)
		if end.Retry == 0 {
			said = fmt.Sprintf(`{"error":%q,"message":"a sentence"}`, end.Error)
		}
		var err error
		switch {
		case end.Close > 0:
			err = closeError(end.Close, end.Reason)
		case end.Event != "":
			err = (&stream{}).end(said)
		case end.Error == "":
			err = refusalOf(&http.Response{StatusCode: end.Status, Body: io.NopCloser(strings.NewReader("<html>"))})
		default:
			err = refusalOf(&http.Response{StatusCode: end.Status, Body: io.NopCloser(strings.NewReader(said))})
		}
		want, known := courses[end.Course]
		if got := courseOf(err); !known || got != want {
			t.Errorf("%+v: course %d, and not %d", end, got, want)
		}
		if got := hint(err); got != time.Duration(end.Retry)*time.Millisecond {
			t.Errorf("%+v: it is to come back after %v", end, got)
		}
		if e, ok := err.(*EndError); end.Error != "" && (!ok || e.Code != end.Error) {
			t.Errorf("%+v: %v", end, err)
		}
	}
}

// A connection that breaks between the gap of an epoch and the next Position comes back with the old Position. The
// server begins there, and says the gap again, which the client has told.
func TestGapAgain(t *testing.T) {
	c := bareClient()
	old := gpoll.Position{Epoch: 1, Seq: 41}
	c.cursor.scan(old)
	gap := gpoll.Gap{Epoch: old.Epoch, From: 42, Reason: "epoch"}
	if !c.cursor.gap(gap) || c.cursor.after() != old {
		t.Errorf("%+v", c.cursor)
	}
	c.cursor.scan(old)
	if c.cursor.gap(gap) {
		t.Error("it tells the gap again")
	}
	if p := (gpoll.Position{Epoch: 2, Seq: 5}); !c.cursor.message(p, false) || c.cursor.after() != p {
		t.Errorf("%+v", c.cursor)
	}
}
