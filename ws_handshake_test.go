package gpoll_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// The fields of a handshake are read by RFC 6455, sections 4.2.1 and 4.2.2, and RFC 9110, on connections of every kind.
func TestHandshakeFields(t *testing.T) {
	// In the heads below, a line ends with LF, $U stands for the two lines that ask for an upgrade, $V for that of the
	// version, $K for that of the key, $W for all of them, and $P: for that of the subprotocols.
	const (
		accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
		v1     = "gpoll.v1"
	)
	abbreviated := strings.NewReplacer("$W", "$U$V$K", "$U", "Connection: Upgrade\nUpgrade: websocket\n",
		"$V", "Sec-WebSocket-Version: 13\n", "$K", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n",
		"$P:", "Sec-WebSocket-Protocol:")
	for _, c := range []struct {
		name, head string
		status     int
		protocol   string // that is agreed to
	}{
		{"plain", "$W", 101, ""},
		{"v1", "$W$P: gpoll.v1\n", 101, v1},
		{"HTTP/1.0", "$W", 426, ""},
		{"POST", "$WContent-Length: 2\nContent-Type: application/json\nGpoll-Client-Id: 0\n", 400, ""},

		{"tokens in any case", "Connection: uPGRADE\nUpgrade: WebSocket\n$V$K", 101, ""},
		{"other tokens", "Connection: keep-alive ,\tUpgrade\nUpgrade: h2c, websocket\n$V$K", 101, ""},
		{"tokens on two lines", "Connection: close\nConnection: upgrade\nUpgrade: a/2\nUpgrade: websocket\n$V$K", 101, ""},
		{"empty elements", "Connection: ,, upgrade ,\nUpgrade: , websocket\n$V$K", 101, ""},
		{"no Connection", "Upgrade: websocket\n$V$K", 426, ""},
		{"no Upgrade", "Connection: Upgrade\n$V$K", 426, ""},
		{"a part of a token", "Connection: upgraded\nUpgrade: websocket\n$V$K", 426, ""},
		{"two tokens in one", "Connection: Upgrade\nUpgrade: h2c websocket\n$V$K", 426, ""},

		{"no version", "$U$K", 400, ""},
		{"version 8", "$U$KSec-WebSocket-Version: 8\n", 426, ""},
		{"version 130", "$U$KSec-WebSocket-Version: 130\n", 426, ""},
		{"version 013", "$U$KSec-WebSocket-Version: 013\n", 426, ""},
		{"empty version", "$U$KSec-WebSocket-Version:\n", 426, ""},
		{"two versions", "$U$KSec-WebSocket-Version: 13, 8\n", 426, ""},
		{"version twice", "$W$V", 426, ""},
		{"version with spaces", "$U$KSec-WebSocket-Version: \t13  \n", 101, ""},

		{"no key", "$U$V", 400, ""},
		{"empty key", "$U$VSec-WebSocket-Key:\n", 400, ""},
		{"key twice", "$W$K", 400, ""},
		{"key of 15 bytes", "$U$VSec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\n", 400, ""},
		{"key of 17 bytes", "$U$VSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWU=\n", 400, ""},
		{"key not in base64", "$U$VSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!==\n", 400, ""},
		{"key without =", "$U$VSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\n", 400, ""},
		{"two keys", "$U$VSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==\n", 400, ""},
		{"key with spaces", "$U$VSec-WebSocket-Key:   dGhlIHNhbXBsZSBub25jZQ== \n", 101, ""},

		{"protocol among others", "$W$P: chat, gpoll.v1 ,superchat\n", 101, v1},
		{"protocol on the second line", "$W$P: chat\n$P: gpoll.v1\n", 101, v1},
		{"protocol at the end", "$W$P: chat\n$P: a,gpoll.v1\n", 101, v1},
		{"protocol with tabs", "$W$P: \t gpoll.v1\t\n", 101, v1},
		{"protocol and empty elements", "$W$P: ,,gpoll.v1,\n", 101, v1},
		{"other protocols", "$W$P: chat, superchat\n", 101, ""},
		{"protocol in another case", "$W$P: GPOLL.V1\n", 101, ""},
		{"protocol of a later version", "$W$P: gpoll.v2, gpoll.v10\n", 101, ""},
		{"protocol of two words", "$W$P: x gpoll.v1\n", 101, ""},
		{"empty protocol", "$W$P: \n", 101, ""},

		{"extensions", "$WSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n", 101, ""},
		{"extensions of v1", "$W$P: gpoll.v1\nSec-WebSocket-Extensions: permessage-deflate\n", 101, v1},
		{"broken extensions", "$WSec-WebSocket-Extensions: ;;=,\"\nSec-WebSocket-Extensions: ,\n", 101, ""},
		{"an Accept of the client's", "$WSec-WebSocket-Accept: x\n", 101, ""},
		{"another order", "$K$V$U", 101, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for over, open := range handshaken {
				s := open(t)
				conn := s.raw(t)
				method, proto, body := "GET", "HTTP/1.1", ""
				switch c.name {
				case "POST":
					method, body = c.name, "{}"
				case "HTTP/1.0":
					proto = c.name
				}
				head := abbreviated.Replace(abbreviated.Replace(c.head)) // $W holds others
				head = strings.ReplaceAll(head, "\n", "\r\n")
				fmt.Fprintf(conn, "%s /poll/ws %s\r\nHost: gpoll.test\r\n%s\r\n%s", method, proto, head, body)
				r := bufio.NewReader(conn)
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(over, err)
				}
				h := resp.Header
				agreed, named := h["Sec-Websocket-Protocol"]
				switch {
				case resp.StatusCode != c.status:
					t.Errorf("%s: %d, want %d", over, resp.StatusCode, c.status)
				case c.status == 101 && (h.Get("Sec-WebSocket-Accept") != accept || h["Sec-Websocket-Extensions"] != nil):
					t.Errorf("%s: %v", over, h)
				case named != (c.protocol != "") || strings.Join(agreed, ",") != c.protocol:
					t.Errorf("%s: subprotocol %q, want %q", over, agreed, c.protocol)
				case c.status == 426 && (h.Get("Sec-WebSocket-Version") != "13" || h.Get("Upgrade") != "websocket"):
					t.Errorf("%s: %v", over, h)
				case c.status != 101 && h.Get("Gpoll-Error") != "not-websocket":
					t.Errorf("%s: %v", over, h)
				case c.status == 101:
					// The form is the one that was agreed to: in the plain one the server speaks first.
					kind := "websocket"
					if c.protocol != "" {
						kind = v1
						conn.Write(clientFrame(t, `text {"hello":{}}`))
					}
					first, said, err := (&reader{conn, r, kind}).next()
					want := map[string]string{"websocket": `{"client-id":`, v1: `{"welcome":`}[kind]
					if !strings.HasPrefix(first, want) {
						t.Errorf("%s: %q, %q, %v, want %s", over, first, said, err, want)
					}
				}
				conn.Close()
			}
		})
	}
}

// handshaken are servers on connections of every kind.
var handshaken = map[string]func(*testing.T) *server{
	"net/http": func(t *testing.T) *server { return start(t, setup{}) },
	"Listener": func(t *testing.T) *server { return start(t, setup{listener: true}) },
	"TLS":      sockets["tls"],
}

// Over HTTP/2 there is no upgrade, and an answer that says so.
func TestHandshakeOverHTTP2(t *testing.T) {
	s := start(t, setup{tls: true})
	a := s.get(t, "/poll/ws")
	if a.status != http.StatusUpgradeRequired || a.code(t) != "not-websocket" || a.header.Get("Upgrade") != "" {
		t.Errorf("%d %v", a.status, a.header)
	}
}
