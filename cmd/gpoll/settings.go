package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/topicname"
)

// settings is what the command line says.
type settings struct {
	addr, path      string
	tlsCert, tlsKey string
	publicOrigin    string
	allowOrigins    list
	allowHosts      list
	publishToken    string

	stdin      bool
	stdinTopic string

	routineMaxClients, clientBuffer, routineBuffer int
	syncDelay                                      time.Duration
	historyCount                                   int
	historyBytes                                   byteSize
	historyAge                                     time.Duration
	maxMessage                                     byteSize
	maxClients, maxTopics                          int
	pollWait, heartbeat, clientTTL                 time.Duration
	drain, shutdownSpread                          time.Duration

	stats               time.Duration
	logLevel, logFormat string
	quiet, version      bool
}

// tokenVariable is the environment variable that is read if -publish-token is not given. A command line is visible to
// every user of the machine.
const tokenVariable = "GPOLL_PUBLISH_TOKEN"

// flagGroups is the order in which -h shows the flags.
var flagGroups = []struct {
	title string
	names []string
}{
	{"Where to serve", []string{"addr", "path", "tls-cert", "tls-key", "public-origin", "allow-host", "allow-origin"}},
	{"Publishing", []string{"publish-token", "stdin", "stdin-topic", "max-message"}},
	{"History, for clients that come back", []string{"history-count", "history-bytes", "history-age"}},
	{"Sizes and limits", []string{"max-clients", "max-topics", "routine-max-clients", "client-buffer", "routine-buffer",
		"sync-delay"}},
	{"Times", []string{"poll-wait", "heartbeat", "client-ttl", "drain", "shutdown-spread"}},
	{"Output", []string{"stats", "log-level", "log-format", "quiet", "version"}},
}

// flags declares every flag on a new set, with set as the target and the defaults as values.
func (set *settings) flags() *flag.FlagSet {
	fs := flag.NewFlagSet("gpoll", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // one sentence is printed by run, not a page of usage
	fs.Usage = func() {}

	fs.StringVar(&set.addr, "addr", "127.0.0.1:8080",
		"listen on `host:port`; port 0 takes a free one, an empty host every address of the machine")
	fs.StringVar(&set.path, "path", "/poll", "mount the broadcast at `path`, with path/events and path/ws")
	fs.StringVar(&set.tlsCert, "tls-cert", "", "serve HTTPS with the certificate chain in this PEM `file`")
	fs.StringVar(&set.tlsKey, "tls-key", "", "the private key of -tls-cert, a PEM `file`")
	fs.StringVar(&set.publicOrigin, "public-origin", "",
		"the `origin` that browsers see when a proxy stands in front, such as https://live.example.org")
	fs.Var(&set.allowHosts, "allow-host", "answer requests for this host `name` too (repeatable); IP addresses, "+
		"localhost, the name in -addr, the certificate's names and the host of -public-origin are always answered")
	fs.Var(&set.allowOrigins, "allow-origin",
		"let pages of this `origin` read, such as https://app.example.org (repeatable)")

	fs.StringVar(&set.publishToken, "publish-token", "",
		"POST /send, POST /restart and GET /stats need \"Authorization: Bearer `token`\"; required if other "+
			"machines can reach the server; $"+tokenVariable+" does the same and is not visible in ps")
	fs.BoolVar(&set.stdin, "stdin", false, "broadcast each line of standard input; at its end go on serving")
	fs.StringVar(&set.stdinTopic, "stdin-topic", "",
		"publish the lines of -stdin to this `topic` only, instead of to everybody")
	set.maxMessage = 64 << 10
	fs.Var(&set.maxMessage, "max-message",
		"largest message, as `bytes` or 64KiB; a longer line of -stdin is sent in pieces")

	fs.IntVar(&set.historyCount, "history-count", 10000, "keep the newest `n` messages")
	set.historyBytes = 16 << 20
	fs.Var(&set.historyBytes, "history-bytes", "keep messages of at most this many `bytes`, such as 16MiB")
	fs.DurationVar(&set.historyAge, "history-age", 0, "keep messages for this `time`, such as 10m; 0: no limit")

	fs.IntVar(&set.maxClients, "max-clients", 100000, "refuse more than `n` clients")
	fs.IntVar(&set.maxTopics, "max-topics", 128, "at most `n` topics for each client")
	fs.IntVar(&set.routineMaxClients, "routine-max-clients", 1000, "at most `n` clients for each goroutine that fans out")
	fs.IntVar(&set.clientBuffer, "client-buffer", 100, "queue at most `n` messages for a client")
	fs.IntVar(&set.routineBuffer, "routine-buffer", 200,
		"a publisher waits when a fan-out goroutine is `n` messages behind")
	fs.DurationVar(&set.syncDelay, "sync-delay", 0,
		"gather messages for this `time`, in whole milliseconds, and send them as one batch")

	fs.DurationVar(&set.pollWait, "poll-wait", 25*time.Second,
		"answer a long-poll after this `time` if no message comes, give or take 10 %")
	fs.DurationVar(&set.heartbeat, "heartbeat", 15*time.Second,
		"send a sign of life on idle streams every `time`, give or take 10 %")
	fs.DurationVar(&set.clientTTL, "client-ttl", time.Minute, "forget a client that has been away for this `time`")
	fs.DurationVar(&set.drain, "drain", 8*time.Second,
		"at SIGINT or SIGTERM wait at most this `time` for clients to leave")

	fs.DurationVar(&set.shutdownSpread, "shutdown-spread", 10*time.Second,
		"tell the clients to come back at random moments within this `time`, at least 1s")

	fs.DurationVar(&set.stats, "stats", 0,
		"log a line of figures every `time`, such as 10s; GET /stats has them as JSON at any moment")
	fs.StringVar(&set.logLevel, "log-level", "info",
		"log on standard error from this `level` on: debug, info, warn or error")
	fs.StringVar(&set.logFormat, "log-format", "text", "log in this `format`: text or json")
	fs.BoolVar(&set.quiet, "quiet", false, "print neither the address nor the curl lines; the address goes to the log")
	fs.BoolVar(&set.version, "version", false, "print the version and exit")
	return fs
}

// parseSettings reads the command line. The error is flag.ErrHelp when help was asked for; any other is one sentence,
// without a full stop, that names the flag and what it may be.
func parseSettings(args []string, getenv func(string) string) (*settings, error) {
	set := new(settings)
	fs := set.flags()
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if set.version {
		return set, nil
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: gpoll takes flags only", fs.Arg(0))
	}
	if set.publishToken == "" {
		set.publishToken = getenv(tokenVariable)
	}
	return set, set.check()
}

// check refuses settings that cannot work, and names the flag. Only a bound address shows whether a token is needed.
func (set *settings) check() error {
	for _, n := range []struct {
		flag  string
		value int
	}{
		{"max-message", int(set.maxMessage)}, {"history-count", set.historyCount}, {"history-bytes", int(set.historyBytes)},
		{"max-clients", set.maxClients}, {"max-topics", set.maxTopics}, {"routine-max-clients", set.routineMaxClients},
		{"client-buffer", set.clientBuffer}, {"routine-buffer", set.routineBuffer},
	} {
		if n.value < 1 {
			return fmt.Errorf("-%s must be at least 1, not %d", n.flag, n.value)
		}
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"poll-wait", set.pollWait}, {"heartbeat", set.heartbeat}, {"client-ttl", set.clientTTL}, {"drain", set.drain},
	} {
		if d.value <= 0 {
			return fmt.Errorf("-%s must be longer than 0, such as 30s, not %v", d.flag, d.value)
		}
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"history-age", set.historyAge}, {"sync-delay", set.syncDelay}, {"stats", set.stats}} {
		if d.value < 0 {
			return fmt.Errorf("-%s must not be negative, but is %v", d.flag, d.value)
		}
	}
	switch {
	case set.shutdownSpread < time.Second:
		return fmt.Errorf("-shutdown-spread must be at least 1s, not %v", set.shutdownSpread)
	case set.syncDelay%time.Millisecond != 0:
		return fmt.Errorf("-sync-delay must be whole milliseconds, such as 20ms, not %v", set.syncDelay)
	case set.stats > 0 && set.stats < time.Second:
		return fmt.Errorf("-stats must be at least 1s, not %v", set.stats)
	case (set.tlsCert == "") != (set.tlsKey == ""):
		return errors.New("-tls-cert and -tls-key must be given together")
	case set.stdinTopic != "" && !set.stdin:
		return errors.New("-stdin-topic needs -stdin")
	case set.logFormat != "text" && set.logFormat != "json":
		return fmt.Errorf("-log-format must be text or json, not %q", set.logFormat)
	case !slices.Contains(logLevels, set.logLevel):
		return fmt.Errorf("-log-level must be debug, info, warn or error, not %q", set.logLevel)
	}
	if _, _, err := net.SplitHostPort(set.addr); err != nil {
		return fmt.Errorf("-addr must be host:port, such as 127.0.0.1:8080 or :8080, not %q", set.addr)
	}
	if err := checkPath(set.path); err != nil {
		return err
	}
	if err := checkToken(set.publishToken); err != nil {
		return err
	}
	if set.stdinTopic != "" && !topicname.Valid(set.stdinTopic) {
		return fmt.Errorf("-stdin-topic must be a topic, not %q: %s", set.stdinTopic, topicname.Rule)
	}
	for _, h := range set.allowHosts {
		if h == "" || strings.ContainsAny(h, "/:*@[] ") {
			return fmt.Errorf("-allow-host must be a host name without scheme and port, such as live.example.org, not %q", h)
		}
	}
	for _, o := range set.allowOrigins {
		if err := checkOrigin("allow-origin", o); err != nil {
			return err
		}
	}
	if set.publicOrigin != "" {
		return checkOrigin("public-origin", set.publicOrigin)
	}
	return nil
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// checkPath accepts clean absolute paths of unreserved characters that are free on this server.
func checkPath(p string) error {
	plain := strings.IndexFunc(p, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("/-_.~", r) }) < 0
	if !plain || p == "/" || !strings.HasPrefix(p, "/") || path.Clean(p) != p {
		return fmt.Errorf("-path must be a path such as /poll, of letters, digits and -_.~/, not %q", p)
	}
	taken := []string{sendPath, statsPath, restartPath, strings.TrimSuffix(pagePath, "/")}
	if slices.Contains(taken, p) || strings.HasPrefix(p, pagePath) {
		return fmt.Errorf("-path must not be %s, which is taken by gpoll itself", p)
	}
	return nil
}

// checkToken accepts what can stand in an Authorization header (RFC 6750, section 2.1).
func checkToken(token string) error {
	if strings.IndexFunc(token, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == ',' }) >= 0 {
		return errors.New("-publish-token must be of printable ASCII characters, without blanks, commas and quotes")
	}
	return nil
}

func checkOrigin(name, origin string) error {
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || origin != u.Scheme+"://"+u.Host {
		return fmt.Errorf("-%s must be an origin, such as https://live.example.org, not %q", name, origin)
	}
	return nil
}

// broadcaster returns a Broadcaster with these settings.
func (set *settings) broadcaster(logger *slog.Logger) *gpoll.Broadcaster {
	b := gpoll.NewBroadcaster()
	b.RoutineMaxClients = set.routineMaxClients
	b.ClientBufferSize = set.clientBuffer
	b.RoutineBufferSize = set.routineBuffer
	b.SyncDelayMs = int(set.syncDelay / time.Millisecond)
	b.PollWait = set.pollWait
	b.Heartbeat = set.heartbeat
	b.ClientTTL = set.clientTTL
	b.ShutdownSpread = set.shutdownSpread
	b.MaxMessage = int(set.maxMessage)
	b.MaxTopics = set.maxTopics
	b.MaxClients = set.maxClients
	b.History = gpoll.Limits{Count: set.historyCount, Bytes: int(set.historyBytes), Age: set.historyAge}
	b.AllowedOrigins = set.allowOrigins
	b.PublicOrigin = set.publicOrigin
	b.Logger = logger
	b.Broker = gpoll.NewMemoryBroker()
	everybody := gpoll.Grant{Presence: func(string) bool { return true }} // who is present is a number without a name
	b.Authorize = func(*http.Request) (gpoll.Grant, error) { return everybody, nil }
	return b
}

// certificate loads the pair of -tls-cert and -tls-key; it is nil where none is asked for.
func (set *settings) certificate() (*tls.Certificate, error) {
	if set.tlsCert == "" {
		return nil, nil
	}
	for _, file := range []struct{ flag, name string }{{"tls-cert", set.tlsCert}, {"tls-key", set.tlsKey}} {
		f, err := os.Open(file.name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the file of -%s: %w", file.flag, err)
		}
		f.Close()
	}
	cert, err := tls.LoadX509KeyPair(set.tlsCert, set.tlsKey)
	if err != nil {
		return nil, fmt.Errorf("cannot use the certificate %s with the key %s: %w", set.tlsCert, set.tlsKey, err)
	}
	return &cert, nil
}

var logLevels = []string{"debug", "info", "warn", "error"}

// logger returns the logger of -log-level and -log-format.
func (set *settings) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(set.logLevel)); err != nil {
		panic(err) // check has accepted it
	}
	o := &slog.HandlerOptions{Level: level}
	if set.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// list is a repeatable flag.
type list []string

func (l *list) String() string     { return strings.Join(*l, ", ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// byteSize is a number of bytes, given as 65536, 64KiB, 16MiB or 1GiB.
type byteSize int

var byteUnits = []struct {
	suffix string
	bytes  int
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String prints the size in the largest unit that divides it.
func (s *byteSize) String() string {
	for _, u := range byteUnits[:3] {
		if n := int(*s); n >= u.bytes && n%u.bytes == 0 {
			return strconv.Itoa(n/u.bytes) + u.suffix
		}
	}
	return strconv.Itoa(int(*s))
}

// Set parses the size, which is at most 1 GiB.
func (s *byteSize) Set(v string) error {
	number, unit := v, 1
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(v, u.suffix); ok {
			number, unit = rest, u.bytes
			break
		}
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n > (1<<30)/unit {
		return errors.New("must be a size up to 1GiB, such as 65536, 64KiB or 16MiB")
	}
	*s = byteSize(n * unit)
	return nil
}

// printHelp writes the text of -h.
func printHelp(w io.Writer) {
	fmt.Fprint(w, `gpoll broadcasts messages to every browser and program that listens: by long-poll, by
Server-Sent Events or by WebSocket.

  gpoll                               serve on http://127.0.0.1:8080/ with a page to try it
  tail -F access.log | gpoll -stdin   show a log live in every browser
  curl -d 'hello' 'http://127.0.0.1:8080/send?topic=news'

`)
	fs := new(settings).flags()
	for _, g := range flagGroups {
		fmt.Fprintf(w, "%s:\n", g.title)
		for _, name := range g.names {
			f := fs.Lookup(name)
			arg, usage := flag.UnquoteUsage(f)
			if arg != "" {
				arg = " " + arg
			}
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0s" {
				usage += " (default " + f.DefValue + ")"
			}
			fmt.Fprintf(w, "  -%s%s\n%s", name, arg, wrap(usage, 84, "        "))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "Exit codes: 0 drained after a signal, 1 serving failed, 2 a flag, the address or the certificate "+
		"is wrong.\n")
}

// wrap breaks text into lines of at most width bytes, each after indent.
func wrap(text string, width int, indent string) string {
	var out strings.Builder
	line := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			out.WriteString(indent)
		case line+1+len(word) > width:
			out.WriteString("\n" + indent)
			line = 0
		default:
			out.WriteByte(' ')
			line++
		}
		out.WriteString(word)
		line += len(word)
	}
	out.WriteByte('\n')
	return out.String()
}

// versionLine says which gpoll this is, as far as the build knows.
func versionLine() string {
	version := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	return fmt.Sprintf("gpoll %s %s %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
