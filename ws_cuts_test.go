package gpoll_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Nothing depends on how TCP cuts what a client of a WebSocket sends: each transcript has the same answers wherever its
// frames are cut, byte by byte, and however they are joined.
func TestTranscriptsCutAndJoined(t *testing.T) {
	for _, name := range []string{"10-websocket-plain", "11-websocket-v1", "15-websocket-frames", "16-websocket-close"} {
		file := filepath.Join("testdata/protocol", name+".txt")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		memory := func(t *testing.T, cut *cutter) {
			t.Helper()
			cut.settle = func(net.Conn) { synctest.Wait() }
			synctest.Test(t, func(t *testing.T) { replay(t, file, text, setup{memory: true}, cut) })
		}
		longest, joints := 0, 0
		t.Run(name+"/whole", func(t *testing.T) {
			cut := &cutter{joins: func(int) bool { return false }}
			cut.pieces = func(sent []byte) [][]byte {
				if !isHead(sent) {
					longest = max(longest, len(sent))
				}
				return [][]byte{sent}
			}
			memory(t, cut)
			joints = cut.asked
		})
		t.Run(name+"/byte by byte", func(t *testing.T) { memory(t, &cutter{pieces: bytewise}) })
		for at := 1; at < longest; at++ {
			t.Run(fmt.Sprint(name, "/cut at ", at), func(t *testing.T) { memory(t, &cutter{pieces: cutAt(at)}) })
		}
		for how, joins := range waysToJoin(joints) {
			t.Run(name+"/joined "+how, func(t *testing.T) {
				memory(t, &cutter{joins: joins})
			})
		}
		t.Run(name+"/loopback", func(t *testing.T) {
			all := func(int) bool { return true }
			cuts := []*cutter{{pieces: bytewise}, {joins: all}, {joins: all, pieces: bytewise}}
			for at := 1; at < 10 && joints < 20; at++ { // each close takes some 40 ms there
				cuts = append(cuts, &cutter{pieces: cutAt(at)})
			}
			for _, cut := range cuts {
				how := setup{}
				how.server, cut.settle = taking(t)
				replay(t, file, text, how, cut)
			}
		})
	}
}

// isHead reports whether the client sends a request.
func isHead(sent []byte) bool { return bytes.HasPrefix(sent, []byte("GET ")) }

// bytewise cuts behind every byte, but in the head of a request, which net/http reads.
func bytewise(sent []byte) (pieces [][]byte) {
	if isHead(sent) {
		end := bytes.Index(sent, []byte("\r\n\r\n")) + 3
		pieces, sent = append(pieces, sent[:end]), sent[end:]
	}
	for i := range sent {
		pieces = append(pieces, sent[i:i+1])
	}
	return pieces
}

func cutAt(at int) func(sent []byte) [][]byte {
	return func(sent []byte) [][]byte {
		if isHead(sent) || at >= len(sent) {
			return [][]byte{sent}
		}
		return [][]byte{sent[:at], sent[at:]}
	}
}

// waysToJoin are all ways to join n+1 blocks, if they are few. Otherwise all are joined, or each to the one before or
// behind it.
func waysToJoin(n int) map[string]func(int) bool {
	ways := map[string]func(int) bool{}
	if n <= 6 {
		for set := 1; set < 1<<n; set++ {
			ways[fmt.Sprintf("%0*b", n, set)] = func(i int) bool { return set>>i&1 != 0 }
		}
		return ways
	}
	ways["all"] = func(int) bool { return true }
	for odd := range 2 {
		ways[fmt.Sprint("every other ", odd)] = func(i int) bool { return i%2 == odd }
	}
	return ways
}

// taking returns a setting of a server, and a function that waits until it has read all that has been sent on a
// connection.
func taking(t *testing.T) (configure func(*http.Server), settle func(net.Conn)) {
	var ends sync.Map // the server's of each connection, by the client's address
	configure = func(hs *http.Server) {
		hs.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
			at := conn.RemoteAddr().String()
			for {
				over, ok := conn.(interface{ NetConn() net.Conn })
				if !ok {
					break
				}
				conn = over.NetConn()
			}
			ends.Store(at, conn)
			return ctx
		}
	}
	return configure, func(conn net.Conn) {
		for deadline := time.Now().Add(patience); ; runtime.Gosched() {
			end, ok := ends.Load(conn.LocalAddr().String())
			if ok && hasTaken(end.(net.Conn)) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the server has not read everything")
			}
		}
	}
}

// A transcript of a WebSocket is played by TestTranscriptsCutAndJoined.
func TestEveryWebSocketTranscriptIsCut(t *testing.T) {
	files, err := filepath.Glob("testdata/protocol/*websocket*.txt")
	if err != nil || len(files) != 4 {
		t.Errorf("%s, %v: add the new one to TestTranscriptsCutAndJoined", strings.Join(files, " "), err)
	}
}
