package verbatim

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Written is what a server writes as the answer to a request, piece by piece, beside the body that is expected.
type Written struct {
	head    []byte // up to the empty line, at most MaxHead bytes
	body    bool   // head is whole
	missing string // the rest of the body that is expected
	other   bool   // what was written is not that answer
}

// Expect says what the body is to be. It comes before Add.
func (w *Written) Expect(body string) { w.missing = body }

// Add notes a piece that is about to be written, and does not keep it.
func (w *Written) Add(p []byte) {
	if !w.body {
		had := len(w.head)
		if i := bytes.Index(p, []byte(endOfHead)); had == 0 && i >= 0 {
			w.head = append(w.head, p[:min(i+len(endOfHead), MaxHead)]...)
		} else {
			w.head = append(w.head, p[:min(len(p), MaxHead-had)]...)
		}
		from := max(had-len(endOfHead)+1, 0) // the end may be in two pieces
		i := bytes.Index(w.head[from:], []byte(endOfHead))
		if i < 0 {
			w.other = w.other || len(w.head) == MaxHead
			return
		}
		w.head, w.body = w.head[:from+i+len(endOfHead)], true
		p = p[len(w.head)-had:]
	}
	if len(p) > len(w.missing) || w.missing[:len(p)] != string(p) {
		w.other = true
		return
	}
	w.missing = w.missing[len(p):]
}

// Head returns the head of what was written, without the empty line. ok says that the body which was expected followed
// it, and nothing else did.
func (w *Written) Head() (head string, ok bool) {
	if !w.body || w.missing != "" || w.other {
		return "", false
	}
	return strings.TrimSuffix(string(w.head), endOfHead), true
}

// Rest compares a head of an answer, without the empty line, with what it was meant to say: the status and the lines in
// own, each with its CRLF. It returns the other lines, which somebody has added, but for Date and cookies. ok is false
// when own is not there as it was meant, when there is another line with a name of names, or when a line says how the
// answer is sent: then another answer cannot be written with the same lines.
//
// The names are in their canonical form. Those of own are among them.
func Rest(head string, status int, own string, names ...string) (lines string, ok bool) {
	first, head, _ := strings.Cut(head, "\r\n")
	if first != "HTTP/1.1 "+strconv.Itoa(status)+" "+http.StatusText(status) {
		return "", false
	}
	missing := strings.Count(own, "\r\n")
	var rest strings.Builder
	for line := range strings.SplitSeq(head, "\r\n") {
		name, _, _ := strings.Cut(line, ": ")
		switch name = http.CanonicalHeaderKey(name); { // somebody may have spelled it otherwise
		case name == "Date" || name == "Set-Cookie":
		case slices.Contains(names, name):
			if missing == 0 || !strings.Contains("\r\n"+own, "\r\n"+line+"\r\n") {
				return "", false
			}
			missing--
		case name == "Connection" || name == "Transfer-Encoding" || name == "Content-Encoding" || name == "Trailer":
			return "", false
		default:
			rest.WriteString(line)
			rest.WriteString("\r\n")
		}
	}
	return rest.String(), missing == 0
}
