package gpoll_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/corvuscrypto/gpoll/internal/needs"
)

// comingFrom runs the lines of docs/coming-from.md, each in a world of its own. LINES is what the test fills in.
const comingFrom = `package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/eventloop"
	"github.com/corvuscrypto/gpoll/sealed"
)

type quiet struct{}

func (quiet) ConnAccepted(*eventloop.Loop, uint64)            {}
func (quiet) ConnClosed(*eventloop.Loop, uint64)              {}
func (quiet) EventLoopTimeout(*eventloop.Loop)                {}
func (quiet) MessageReceived(*eventloop.Loop, uint64, []byte) {}

// A world is what the lines use.
type world struct {
	ctx               context.Context
	b                 *gpoll.Broadcaster
	c                 *gpoll.Client
	d                 *client.Client
	options           client.Options
	box               *sealed.Box
	handler           eventloop.Handler
	loop              *eventloop.Loop
	id                uint64
	conn              *websocket.Conn
	w                 http.ResponseWriter
	r                 *http.Request
	data, key         []byte
	url, address      string
	certFile, keyFile string
	timeout           time.Duration
	count             int
	closed, found     bool
	value             any
	members           []gpoll.Member
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newWorld(ctx context.Context) *world {
	o := &world{ctx: ctx, b: gpoll.NewBroadcaster(), handler: quiet{}, data: []byte("hi"), timeout: time.Second}
	o.key = []byte(strings.Repeat("0123", 8))
	o.certFile, o.keyFile = os.Args[1], os.Args[2]
	clients := make(chan *gpoll.Client, 1)
	o.b.OnConnect = func(c *gpoll.Client) error {
		select {
		case clients <- c:
		default:
		}
		return nil
	}
	o.b.OnMessage = func(*gpoll.Client, gpoll.Message) {}
	o.b.Authorize = func(*http.Request) (gpoll.Grant, error) { return gpoll.Grant{User: "alice"}, nil }
	mux := http.NewServeMux()
	o.b.ListenAndBroadcast("/poll", mux)
	o.url = httptest.NewServer(mux).URL + "/poll"
	o.d = must(client.Dial(ctx, o.url, client.Options{}))
	o.c = <-clients
	o.loop = eventloop.New(o.handler)
	addr := must(o.loop.Listen("127.0.0.1:0", nil))
	_, _, err := websocket.Dial(ctx, "ws://"+addr.String(), nil)
	if err != nil {
		panic(err)
	}
	o.id = 1
	o.conn, _, err = websocket.Dial(ctx, "ws"+strings.TrimPrefix(o.url, "http"), nil)
	if err != nil {
		panic(err)
	}
	o.w, o.r = httptest.NewRecorder(), httptest.NewRequest("GET", "/poll?client-id=0", nil)
	return o
}

var lines = []struct {
	text string
	run  func(*world) error
}{
LINES}

func main() {
	failed := false
	for _, line := range lines {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		o := newWorld(ctx)
		if strings.Contains(line.text, ".Run(ctx)") || strings.Contains(line.text, "range d.Messages") {
			time.AfterFunc(100*time.Millisecond, cancel) // they end with ctx
		}
		if err := line.run(o); err != nil && !errors.Is(err, context.Canceled) {
			fmt.Println(line.text, "fails:", err)
			failed = true
		}
		cancel()
	}
	if failed {
		os.Exit(1)
	}
	fmt.Println(len(lines), "lines")
}
`

// Each line of Go in docs/coming-from.md compiles and does what it says without an error.
func TestComingFrom(t *testing.T) {
	needs.Program(t, "go", "the go command is needed to run docs/coming-from.md")
	text, err := os.ReadFile(filepath.Join("docs", "coming-from.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := "ctx b c d options box handler loop id conn w r data key url address certFile keyFile timeout count closed " +
		"found value members"
	var in, out, blank []string
	for name := range strings.FieldsSeq(names) {
		in, out, blank = append(in, "o."+name), append(out, name), append(blank, "_")
	}
	var lines strings.Builder
	count := 0
	for _, row := range regexp.MustCompile("(?m)^\\|[^|]+\\| `(.+?)` \\|").FindAllStringSubmatch(string(text), -1) {
		count++
		lines.WriteString("\t{" + strconv.Quote(row[1]) + ", func(o *world) (err error) {\n\t\t" +
			strings.Join(out, ", ") + " := " + strings.Join(in, ", ") + "\n\t\t" +
			strings.Join(blank, ", ") + " = " + strings.Join(out, ", ") + "\n\t\t" + row[1] + "\n\t\t" +
			strings.Join(blank, ", ") + " = " + strings.Join(out, ", ") + "\n\t\treturn err\n\t}},\n")
	}
	if count < 50 {
		t.Errorf("only %d lines are there", count)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "main.go")
	if err := os.WriteFile(program, []byte(strings.Replace(comingFrom, "LINES", lines.String(), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := writeCertificate(t, dir)
	said, err := exec.CommandContext(t.Context(), "go", "run", program, cert, key).CombinedOutput()
	if err != nil || !strings.Contains(string(said), strconv.Itoa(count)+" lines") {
		t.Errorf("%v: %s", err, said)
	}
}

// writeCertificate writes a certificate and its key into dir.
func writeCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	pair := certificateForTests()
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
