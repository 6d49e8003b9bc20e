package gpoll_test

import (
	"bufio"
	"io"
	"net/http"
	"strconv"
	"testing"
)

// A client that closes its connection as soon as it has the answer, as curl does at its end and a proxy that keeps no connections, gets no
// message twice.
func TestClosedAfterTheAnswer(t *testing.T) {
	s := start(t, setup{})
	id, _ := s.register(t)
	for i := range 300 {
		s.Send(strconv.Itoa(i))
		conn := s.raw(t)
		io.WriteString(conn, rawGet("/poll"+query("client-id", id), nil)+"\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		conn.Close()
		if err != nil || string(body) != strconv.Itoa(i) {
			t.Fatalf("poll %d: %s %q, %v", i, res.Status, body, err)
		}
	}
}
