package gpoll

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// Most commands are written by a program, in one of a few ways. scanCommand reads those at once. It never refuses a
// command: what it does not know it leaves to decodeStrict and frameCommand.command, which know everything, and which
// have the same result wherever scanCommand has one.

// scanCommand reads a command that is one of send, publish and request, with the fields that belong to it, each once,
// whose names are written as in docs/protocol.md, and whose strings have no \u. The command's data may lie in text.
func scanCommand(text []byte) (cmd command, ok bool) {
	s := scanner{text: text}
	found := false
	for sep := byte('{'); s.take(sep); sep = ',' {
		switch s.space(); {
		case !found && s.word(`"send":`):
			cmd.kind = commandSend
		case !found && s.word(`"request":`):
			cmd.kind = commandRequest
		case !found && s.word(`"publish":`):
			cmd.kind = commandPublish
		case cmd.id == "" && s.word(`"id":`):
			cmd.id = string(s.str())
			continue
		default:
			return cmd, false
		}
		found = true
		s.payload(&cmd)
	}
	ok = found && s.take('}') && s.ended() && (cmd.id != "" || cmd.kind != commandRequest)
	return cmd, ok
}

// A scanner reads JSON. Once it has met something that it does not know, bad is true and what it returns means nothing.
type scanner struct {
	text []byte
	at   int
	bad  bool
}

// payload reads the value of send, publish or request.
func (s *scanner) payload(cmd *command) {
	s.space()
	hasTopic := false
	for sep := byte('{'); s.take(sep); sep = ',' {
		switch s.space(); {
		case cmd.data == nil && s.word(`"data":`):
			cmd.data = s.str()
		case !hasTopic && cmd.kind == commandPublish && s.word(`"topic":`):
			hasTopic = true
			cmd.topic = string(s.str())
		default:
			s.bad = true
		}
	}
	if cmd.data == nil || !s.take('}') {
		s.bad = true
	}
}

// word takes w if it is next.
func (s *scanner) word(w string) bool {
	if rest := s.text[s.at:]; len(rest) < len(w) || string(rest[:len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// take takes c, behind white space, if it is next.
func (s *scanner) take(c byte) bool {
	if s.space(); s.bad || s.at == len(s.text) || s.text[s.at] != c {
		return false
	}
	s.at++
	return true
}

func (s *scanner) space() {
	for s.at < len(s.text) && s.text[s.at] <= ' ' {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			s.bad = true
			return
		}
	}
}

// ended reports whether nothing is left.
func (s *scanner) ended() bool {
	s.space()
	return !s.bad && s.at == len(s.text)
}

// str reads a string, which is not nil. It may lie in text.
func (s *scanner) str() []byte {
	if !s.take('"') {
		s.bad = true
		return nil
	}
	rest := s.text[s.at:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		s.bad = true
		return nil
	}
	value := rest[:end:end]
	if slash := bytes.IndexByte(value, '\\'); slash >= 0 {
		return s.escaped(slash)
	}
	s.at += end + 1
	s.check(value)
	return value
}

// escaped reads the rest of a string whose first escape stands behind plain bytes.
func (s *scanner) escaped(plain int) []byte {
	from := s.at
	value := []byte{}
	for at := from + plain; at+1 < len(s.text); at++ {
		switch s.text[at] {
		case '"':
			s.check(s.text[from:at])
			s.at = at + 1
			return append(value, s.text[from:at]...)
		case '\\':
			c := unescaped[s.text[at+1]]
			if c == 0 { // perhaps \u
				s.bad = true
				return nil
			}
			s.check(s.text[from:at])
			value = append(append(value, s.text[from:at]...), c)
			at++
			from = at + 1
		}
	}
	s.bad = true
	return nil
}

// unescaped has the second characters of escapes, and what they stand for.
var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// check finds what may not stand in a string: control characters, and what is not UTF-8, in whose place encoding/json
// puts U+FFFD.
func (s *scanner) check(p []byte) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	var seen uint64 // its high bits: where something was below a space or beyond ASCII
	q := p
	for ; len(q) >= 32; q = q[32:] {
		w, x := binary.LittleEndian.Uint64(q), binary.LittleEndian.Uint64(q[8:])
		y, z := binary.LittleEndian.Uint64(q[16:]), binary.LittleEndian.Uint64(q[24:])
		seen |= w | (w - ' '*ones) | x | (x - ' '*ones) | y | (y - ' '*ones) | z | (z - ' '*ones)
	}
	for ; len(q) >= 8; q = q[8:] {
		w := binary.LittleEndian.Uint64(q)
		seen |= w | (w - ' '*ones)
	}
	for _, c := range q {
		seen |= uint64(c|(c-' ')) << 56
	}
	if seen&high == 0 {
		return
	}
	for _, c := range p {
		if c < ' ' {
			s.bad = true
			return
		}
	}
	if !utf8.Valid(p) {
		s.bad = true
	}
}
