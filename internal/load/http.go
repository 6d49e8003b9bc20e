package load

import (
	"bytes"
	"fmt"
	"strings"
)

// Header returns the value of a field in head, nil if there is none. head is the bytes of an HTTP response up to and
// including the line end of the last field. Header tries the name as it is spelled first, because nearly every server
// sends it so.
func Header(head []byte, name string) []byte {
	for at := bytes.IndexByte(head, '\n') + 1; at > 0 && at < len(head); {
		line := head[at:]
		end := bytes.IndexByte(line, '\n')
		if end < 0 {
			end = len(line)
		} else {
			at += end + 1
		}
		if len(line) > len(name) && line[len(name)] == ':' &&
			(string(line[:len(name)]) == name || strings.EqualFold(string(line[:len(name)]), name)) {
			return bytes.TrimSpace(line[len(name)+1 : end])
		}
		if end == len(line) {
			break
		}
	}
	return nil
}

// answered turns a response that was not hoped for into an error that shows its status and the start of its body.
func answered(p []byte) error {
	line, rest, _ := bytes.Cut(p, []byte("\r\n"))
	_, status, ok := bytes.Cut(line, []byte(" "))
	if !ok || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return fmt.Errorf("the server does not speak HTTP/1.1: it answered %q", line[:min(len(line), 60)])
	}
	code := ""
	if end := bytes.Index(rest, []byte("\r\n\r\n")); end >= 0 {
		if v := Header(p[:len(line)+2+end+2], "Gpoll-Error"); v != nil {
			code = " (" + string(v) + ")"
		}
	}
	return fmt.Errorf("the server answered %s%s", status, code)
}

// digits reads a decimal number; -1 if p is none.
func digits(p []byte) int {
	if len(p) == 0 || len(p) > 9 {
		return -1
	}
	n := 0
	for _, c := range p {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}
