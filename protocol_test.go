package gpoll_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/corvuscrypto/gpoll"
)

// TestTranscripts replays testdata/protocol/*.txt, once over memory on fake time and once over loopback.
// testdata/protocol/README.md describes the form of a transcript.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/protocol/*.txt")
	if err != nil || len(files) < 13 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name+"/memory", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { replay(t, file, string(text), setup{memory: true}, nil) })
		})
		t.Run(name+"/loopback", func(t *testing.T) { replay(t, file, string(text), setup{}, nil) })
	}
}

// A cutter says how what a client sends reaches the server.
type cutter struct {
	// pieces cuts what is sent at once.
	pieces func(sent []byte) [][]byte

	// settle returns when the server has taken a piece.
	settle func(conn net.Conn)

	// joins reports whether the n-th block of a WebSocket is sent together with the one before it, although the server
	// has not answered that. It is asked where a client can do so: it needs no answer to know what to send.
	joins func(n int) bool
	asked int // how often it was
}

// A transcript is a replay under way.
type transcript struct {
	t     *testing.T
	s     *server
	where string // file:line, for messages
	conns map[string]*peer
	now   *peer
	bound map[string]string // what placeholders stand for
	send  func(data string)
	cut   *cutter      // nil: a write for each block
	sent  map[int]bool // lines of blocks that were sent together with an earlier one
}

// A peer is the client's end of one connection.
type peer struct {
	conn   net.Conn
	r      *bufio.Reader
	resp   *http.Response
	body   *bufio.Reader // of a response whose body is being read
	socket bool          // upgraded: lines are frames

	// Pongs have no place of their own among the messages, and one may answer several pings (RFC 6455, section 5.5.3).
	pings []string // that were sent
	pongs []string // that came
	early []string // other frames that came before a pong that was read
}

func replay(t *testing.T, file, text string, how setup, cut *cutter) {
	tr := &transcript{t: t, conns: map[string]*peer{}, bound: map[string]string{}, cut: cut, sent: map[int]bool{}}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	configure, first := tr.settings(lines)
	how.broadcaster = configure
	tr.s = start(t, how)
	tr.send = tr.s.witness(t)
	tr.use("a")
	for i := first; i < len(lines); {
		tr.where = fmt.Sprintf("%s:%d", file, i+1)
		mark, rest, _ := strings.Cut(lines[i], " ")
		block := blockAt(lines, i)
		switch mark {
		case "", "#":
			i++
		case "@":
			tr.use(rest)
			i++
		case "!":
			tr.act(rest)
			i++
		case ">":
			if !tr.sent[i] {
				tr.say(lines, i)
			}
			i += len(block)
		case "<":
			tr.expect(block)
			i += len(block)
		case ".":
			tr.expectEnd()
			i++
		default:
			t.Fatalf("%s: what is %q?", tr.where, lines[i])
		}
	}
	for name, p := range tr.conns {
		if p.body != nil && p.resp.ContentLength >= 0 {
			if rest, _ := io.ReadAll(p.body); len(rest) > 0 {
				t.Errorf("%s: connection %s: more came: %q", file, name, rest)
			}
		}
	}
}

// blockAt returns the lines of one side from line i on, which belong together.
func blockAt(lines []string, i int) (block []string) {
	mark, _, _ := strings.Cut(lines[i], " ")
	for _, line := range lines[i:] {
		m, l, _ := strings.Cut(line, " ")
		if m != mark || m != ">" && m != "<" {
			break
		}
		block = append(block, l)
	}
	return block
}

// settings reads the lines before the first exchange.
func (tr *transcript) settings(lines []string) (configure func(*gpoll.Broadcaster), first int) {
	var all []func(*gpoll.Broadcaster)
	for ; first < len(lines); first++ {
		mark, rest, _ := strings.Cut(lines[first], " ")
		if mark == "#" || mark == "" {
			continue
		}
		if mark != "=" {
			break
		}
		name, value, _ := strings.Cut(rest, " ")
		all = append(all, func(b *gpoll.Broadcaster) {
			var err error
			switch name {
			case "History.Count":
				b.History.Count, err = strconv.Atoi(value)
			case "PollWait":
				b.PollWait, err = time.ParseDuration(value)
			case "MaxTopics":
				b.MaxTopics, err = strconv.Atoi(value)
			case "Application":
				hearing(b)
			case "OnConnect":
				b.OnConnect = func(*gpoll.Client) error { return errors.New(value) }
			case "Wildcards":
				b.Wildcards = value == "true"
			case "PlainMessages":
				b.PlainMessages = value == "true"
			case "AllowedOrigins":
				b.AllowedOrigins = strings.Fields(value)
			default:
				err = errors.New("unknown setting")
			}
			if err != nil {
				tr.t.Fatalf("line %d: %s: %v", first, name, err)
			}
		})
	}
	return func(b *gpoll.Broadcaster) {
		for _, set := range all {
			set(b)
		}
	}, first
}

// use turns to the connection of that name, which is opened when it is first named.
func (tr *transcript) use(name string) {
	p := tr.conns[name]
	if p == nil {
		conn := tr.s.raw(tr.t)
		conn.SetDeadline(time.Now().Add(10 * patience))
		p = &peer{conn: conn, r: bufio.NewReader(conn)}
		tr.conns[name] = p
	}
	tr.now = p
}

// act does what happens on the server.
func (tr *transcript) act(what string) {
	verb, rest, _ := strings.Cut(tr.fill(what), " ")
	switch verb {
	case "send":
		tr.send(rest)
	case "send-bytes":
		data, err := strconv.Unquote(rest)
		if err != nil {
			tr.t.Fatalf("%s: %v", tr.where, err)
		}
		tr.send(data)
	case "publish":
		topic, data, _ := strings.Cut(rest, " ")
		tr.s.mustPublish(tr.t, topic, data)
	case "remove":
		if !tr.s.RemoveClient(rest) {
			tr.t.Errorf("%s: there is no such client", tr.where)
		}
	case "ask":
		id, data, _ := strings.Cut(rest, " ")
		c, ok := tr.s.Client(id)
		if !ok {
			tr.t.Fatalf("%s: there is no such client", tr.where)
		}
		go func() { _, _ = c.Request(tr.t.Context(), []byte(data)) }() // ends with the reply, or with the test
	case "attached":
		transport, n, _ := strings.Cut(rest, " ")
		count, err := strconv.Atoi(n)
		if err != nil {
			tr.t.Fatalf("%s: %v", tr.where, err)
		}
		tr.s.awaitAttached(tr.t, transport, count)
	case "shutdown":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		done := make(chan error, 1)
		go func() { // ends by patience at the latest
			done <- tr.s.Shutdown(ctx)
		}()
		tr.t.Cleanup(func() {
			if err := <-done; err != nil {
				tr.t.Errorf("Shutdown: %v", err)
			}
			cancel()
		})
	default:
		tr.t.Fatalf("%s: what is %q?", tr.where, verb)
	}
}

// say sends the block at line i, a request or frames, and those behind it that the cutter joins to it.
func (tr *transcript) say(lines []string, i int) {
	p := tr.now
	block := blockAt(lines, i)
	socket := p.socket || slices.ContainsFunc(block, func(l string) bool { return strings.HasPrefix(l, "Upgrade:") })
	out := tr.encode(block, p.socket)
	for next := i + len(block); tr.cut != nil && tr.cut.joins != nil && socket && next < len(lines); {
		mark, rest, _ := strings.Cut(lines[next], " ")
		if mark == "#" || mark == "<" && answered.MatchString(rest) {
			next++
			continue
		}
		block := blockAt(lines, next)
		if mark != ">" || !tr.known(block) {
			break
		}
		tr.cut.asked++
		if !tr.cut.joins(tr.cut.asked - 1) {
			break
		}
		out = append(out, tr.encode(block, true)...)
		tr.sent[next] = true
		next += len(block)
	}
	tr.write(out)
}

// answered matches what a server sends because of what the client has sent, and of nothing else.
var answered = regexp.MustCompile(
	`^$|^[A-Z]|^pong|^text {"(client-id|welcome|subscribed|unsubscribed|watching|error)"|^close [^4]|^close$`)

func (tr *transcript) write(out []byte) {
	pieces := [][]byte{out}
	if tr.cut != nil && tr.cut.pieces != nil {
		pieces = tr.cut.pieces(out)
	}
	for n, piece := range pieces {
		if _, err := tr.now.conn.Write(piece); err != nil && n > 0 {
			return // the server has seen enough: the transcript says why
		} else if err != nil {
			tr.t.Fatalf("%s: piece %d: %v", tr.where, n, err)
		}
		if n < len(pieces)-1 {
			tr.cut.settle(tr.now.conn)
		}
	}
}

// encode returns the bytes of a block: a request, or frames.
func (tr *transcript) encode(block []string, socket bool) (out []byte) {
	p := tr.now
	block = slices.Clone(block)
	for i, line := range block {
		block[i] = tr.fill(line)
	}
	if socket {
		for _, line := range block {
			if ping, ok := strings.CutPrefix(line, "ping"); ok {
				p.pings = append(p.pings, strings.TrimPrefix(ping, " "))
			}
			out = append(out, clientFrame(tr.t, line)...)
		}
		return out
	}
	head, body := block, ""
	if i := slices.Index(block, ""); i >= 0 {
		head, body = block[:i], strings.Join(block[i+1:], "\n")
	}
	out = []byte(strings.Join(head, "\r\n"))
	if body != "" {
		out = fmt.Appendf(out, "\r\nContent-Length: %d", len(body))
	}
	out = append(out, "\r\n\r\n"+body...)
	p.resp, p.body = nil, nil
	return out
}

// expect reads what the server sends and compares.
func (tr *transcript) expect(block []string) {
	p := tr.now
	if !p.socket && p.body == nil {
		i := slices.Index(block, "")
		if i < 0 {
			i = len(block)
		}
		tr.expectHead(block[:i])
		block = block[min(i+1, len(block)):]
		if !p.socket && p.resp.ContentLength >= 0 { // the whole body at once
			got, err := io.ReadAll(p.body)
			if err != nil {
				tr.t.Fatalf("%s: %v", tr.where, err)
			}
			if !utf8.Valid(got) {
				got = fmt.Appendf(nil, "hex %x", got)
			}
			tr.compare(string(got), strings.Join(block, "\n"))
			return
		}
	}
	for _, want := range block {
		if p.socket {
			tr.expectFrame(want)
			continue
		}
		got, err := p.body.ReadString('\n')
		if err != nil {
			tr.t.Fatalf("%s: after %q: %v, want %q", tr.where, got, err, want)
		}
		tr.compare(strings.TrimSuffix(got, "\n"), want)
	}
}

// expectFrame reads a frame and compares. A pong may come with an earlier or a later message, and the pong to a later
// ping may stand for it.
func (tr *transcript) expectFrame(want string) {
	p := tr.now
	if data, ok := strings.CutPrefix(want, "pong"); ok {
		asked := slices.Index(p.pings, strings.TrimPrefix(data, " "))
		for !slices.ContainsFunc(p.pongs, func(got string) bool { return slices.Index(p.pings, got) >= asked }) {
			p.take(serverFrame(tr.t, tr.where, p.r))
		}
		return
	}
	for len(p.early) == 0 {
		p.take(serverFrame(tr.t, tr.where, p.r))
	}
	got := p.early[0]
	p.early = p.early[1:]
	tr.compare(got, want)
}

func (p *peer) take(frame string) {
	if data, ok := strings.CutPrefix(frame, "pong"); ok {
		p.pongs = append(p.pongs, strings.TrimPrefix(data, " "))
		return
	}
	p.early = append(p.early, frame)
}

// expectHead compares status line and the header as a set.
func (tr *transcript) expectHead(want []string) {
	p := tr.now
	reader := textproto.NewReader(p.r)
	var got []string
	for {
		line, err := reader.ReadLine()
		if err != nil {
			tr.t.Fatalf("%s: %v after %q", tr.where, err, got)
		}
		if line == "" {
			break
		}
		got = append(got, line)
	}
	canonical(got)
	canonical(want)
	if len(got) != len(want) {
		tr.t.Fatalf("%s: the head is\n%s\nwant\n%s", tr.where, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for i := range got {
		tr.compare(got[i], want[i])
	}
	head := strings.NewReader(strings.Join(got, "\r\n") + "\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(head, p.r)), nil)
	if err != nil {
		tr.t.Fatalf("%s: %v", tr.where, err)
	}
	p.resp = resp
	if resp.StatusCode == http.StatusSwitchingProtocols {
		p.socket = true
		return
	}
	p.body = bufio.NewReader(resp.Body)
}

// canonical sorts the fields of a head by their canonical names.
func canonical(head []string) {
	for i, line := range head[1:] {
		name, value, _ := strings.Cut(line, ":")
		head[i+1] = http.CanonicalHeaderKey(name) + ":" + value
	}
	slices.Sort(head[1:])
}

// expectEnd checks that the response or the connection ends here.
func (tr *transcript) expectEnd() {
	p := tr.now
	r := io.Reader(p.r)
	if p.body != nil {
		r = p.body
	}
	rest, err := io.ReadAll(r)
	if len(rest) > 0 || len(p.early) > 0 || err != nil {
		tr.t.Errorf("%s: %q, %q and %v, want the end", tr.where, p.early, rest, err)
	}
}

var placeholder = regexp.MustCompile(`<([a-z]+)([0-9]*)(?:\+([0-9]+))?>`)

// forms are the placeholders by their name, without the digits that tell two of a kind apart. A placeholder of a fixed
// name is new each time.
var forms = map[string]string{
	"id":     `(?:0|[1-9][0-9]{0,5})\$[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`,
	"pos":    `[0-9a-f]{16}-(?:0|[1-9][0-9]*)`,
	"epoch":  `[0-9a-f]{16}`,
	"retry":  `(?:[1-9][0-9]{3}|10000)`,
	"ms":     `[1-9][0-9]*`,
	"date":   `[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT`,
	"secs":   `[1-9][0-9]?`,
	"member": `[0-9a-f]{32}`,
	"text":   `(?:[^"\\]|\\.)+`,
}

var unbound = []string{"retry", "ms", "date", "secs", "text"}

// fill replaces the placeholders of a line by what they stand for.
func (tr *transcript) fill(line string) string {
	return placeholder.ReplaceAllStringFunc(line, func(p string) string {
		value, ok := tr.value(p)
		if !ok {
			tr.t.Fatalf("%s: %s stands for nothing yet", tr.where, p)
		}
		return value
	})
}

// known reports whether all placeholders of a block stand for something.
func (tr *transcript) known(block []string) bool {
	for _, line := range block {
		for _, p := range placeholder.FindAllString(line, -1) {
			if _, ok := tr.value(p); !ok {
				return false
			}
		}
	}
	return true
}

// value returns the value of a placeholder: `<pos+2>` is two further than `<pos>`.
func (tr *transcript) value(p string) (string, bool) {
	m := placeholder.FindStringSubmatch(p)
	value, ok := tr.bound[m[1]+m[2]]
	if !ok || m[3] == "" {
		return value, ok && m[3] == ""
	}
	pos, err := gpoll.ParsePosition(value)
	if err != nil {
		tr.t.Fatalf("%s: %s: %v", tr.where, p, err)
	}
	n, _ := strconv.ParseUint(m[3], 10, 64)
	pos.Seq += n
	return pos.String(), true
}

// compare compares what came with a line of the transcript and remembers the values of its placeholders.
func (tr *transcript) compare(got, want string) {
	tr.t.Helper()
	pattern, names, end := "", []string(nil), 0
	for _, m := range placeholder.FindAllStringSubmatchIndex(want, -1) {
		pattern += regexp.QuoteMeta(want[end:m[0]])
		end = m[1]
		kind, name := want[m[2]:m[3]], want[m[2]:m[5]]
		if value, ok := tr.value(want[m[0]:m[1]]); ok {
			pattern += regexp.QuoteMeta(value)
			continue
		}
		form, ok := forms[kind]
		if !ok || m[6] >= 0 {
			tr.t.Fatalf("%s: %s stands for nothing yet", tr.where, want[m[0]:m[1]])
		}
		pattern += "(" + form + ")"
		names = append(names, name)
	}
	pattern += regexp.QuoteMeta(want[end:])
	match := regexp.MustCompile(`(?s)\A` + pattern + `\z`).FindStringSubmatch(got)
	if match == nil {
		tr.t.Fatalf("%s: the server sent\n\t%q\nwant\n\t%q", tr.where, got, want)
	}
	for i, name := range names {
		if !slices.Contains(unbound, name) {
			tr.bound[name] = match[i+1]
		}
	}
	// The epoch of a position can be named on its own.
	if pos, ok := tr.bound["pos"]; ok {
		tr.bound["epoch"] = pos[:16]
	}
}

// opcodes are the kinds of frames by the words of a transcript.
var opcodes = map[string]byte{"cont": 0, "text": 1, "binary": 2, "close": 8, "ping": 9, "pong": 10}

// clientFrame encodes a line like `text hello`, `text+ hel` or `close 1000 reason` as one masked frame (RFC 6455,
// section 5.2), or the bytes of `hex 8100`. The mask is zero.
func clientFrame(t testing.TB, line string) []byte {
	word, payload, _ := strings.Cut(line, " ")
	if word == "hex" {
		b, err := hex.DecodeString(payload)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	word, more := strings.CutSuffix(word, "+")
	opcode, ok := opcodes[word]
	if !ok {
		t.Fatalf("frame %q", line)
	}
	if word == "close" && payload != "" {
		code, reason, _ := strings.Cut(payload, " ")
		n, err := strconv.Atoi(code)
		if err != nil {
			t.Fatal(err)
		}
		payload = string(binary.BigEndian.AppendUint16(nil, uint16(n))) + reason
	}
	b := []byte{0x80 | opcode}
	if more {
		b[0] = opcode
	}
	if len(payload) < 126 {
		b = append(b, 0x80|byte(len(payload)))
	} else {
		b = append(b, 0x80|126)
		b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// serverFrame reads one frame and spells it as a transcript does.
func serverFrame(t *testing.T, where string, r *bufio.Reader) string {
	t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatalf("%s: reading a frame: %v", where, err)
	}
	n := uint64(head[1] & 0x7f)
	if wide := map[uint64]int{126: 2, 127: 8}[n]; wide > 0 {
		var length [8]byte
		if _, err := io.ReadFull(r, length[8-wide:]); err != nil {
			t.Fatalf("%s: reading a frame: %v", where, err)
		}
		n = binary.BigEndian.Uint64(length[:])
	}
	if head[0]&0xf0 != 0x80 || head[1]&0x80 != 0 || n > 1<<20 {
		t.Fatalf("%s: a frame with head %x", where, head)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatalf("%s: reading a frame: %v", where, err)
	}
	switch head[0] & 0xf {
	case 1:
		return "text " + string(payload)
	case 2:
		return fmt.Sprintf("binary %x", payload)
	case 8:
		if len(payload) < 2 {
			return "close"
		}
		return strings.TrimSuffix(fmt.Sprintf("close %d %s", binary.BigEndian.Uint16(payload), payload[2:]), " ")
	case 9:
		return strings.TrimSuffix("ping "+string(payload), " ")
	case 10:
		return strings.TrimSuffix("pong "+string(payload), " ")
	default:
		return fmt.Sprintf("opcode %d %q", head[0]&0xf, payload)
	}
}
