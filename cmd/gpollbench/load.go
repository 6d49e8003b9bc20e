package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/corvuscrypto/gpoll/internal/load"
)

// loadPlan is what "gpollbench load" was asked for.
type loadPlan struct {
	url        string
	transport  string
	clients    int
	topics     []string
	rates      []float64
	duration   time.Duration
	size       int
	publishURL string
	token      string
	pid        int
	patience   time.Duration
}

func loadCommand(out *output) *cli.Command {
	p := &loadPlan{}
	return &cli.Command{
		Name:      "load",
		Usage:     "many real clients against any gpoll server",
		ArgsUsage: "URL",
		Description: "URL is where the server is mounted, for example http://127.0.0.1:8080/poll. Messages are " +
			"published by POST, as cmd/gpoll takes them at /send;\n" +
			"every client verifies that each arrives once, in order and unaltered.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "transport", Value: "websocket",
				Usage:       "`NAME`: websocket, gpoll.v1, sse, sse-json, long-poll, long-poll-json; several by comma",
				Destination: &p.transport},
			&cli.IntFlag{Name: "clients", Value: 100, Usage: "`NUMBER` of connections", Destination: &p.clients},
			&cli.StringSliceFlag{Name: "topics",
				Usage: "`NAMES` by comma; each client takes one of them. Without: messages to everybody", Destination: &p.topics},
			&cli.FloatSliceFlag{Name: "rate", Value: []float64{10}, Usage: "`NUMBER` of messages per second, all " +
				"topics together; several by comma are measured one after the other", Destination: &p.rates},
			&cli.DurationFlag{Name: "duration", Value: 5 * time.Second, Usage: "`TIME` to publish at each rate",
				Destination: &p.duration},
			&cli.IntFlag{Name: "size", Value: 128, Usage: "`BYTES` of a message", Destination: &p.size},
			&cli.StringFlag{Name: "publish-url", Usage: "`URL` to post messages to; default: /send on the same server",
				Destination: &p.publishURL},
			&cli.StringFlag{Name: "token", Usage: "`SECRET` sent as a bearer token with each publish",
				Destination: &p.token, Sources: cli.EnvVars("GPOLL_PUBLISH_TOKEN")},
			&cli.IntFlag{Name: "pid", Usage: "`PROCESS` on this machine whose CPU and memory are read", Destination: &p.pid},
			&cli.DurationFlag{Name: "patience", Value: 5 * time.Second,
				Usage: "`TIME` without any arrival after which what is missing counts as lost", Destination: &p.patience},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if cmd.Args().Len() != 1 {
				return usagef("load needs one URL, for example http://127.0.0.1:8080/poll")
			}
			p.url = cmd.Args().First()
			return p.run(ctx, out)
		},
	}
}

// loadFinding is what load has found.
type loadFinding struct {
	Machine   machine    `json:"machine"`
	Server    string     `json:"server"`
	Transport string     `json:"transport"`
	Clients   int        `json:"clients"`
	Topics    []string   `json:"topics,omitempty"`
	Size      int        `json:"message_size"`
	Connect   float64    `json:"connect_s"` // until every client was ready
	Steps     []loadStep `json:"steps"`
	Reasons   []string   `json:"reasons,omitempty"` // why connections ended
	Stopped   bool       `json:"interrupted,omitempty"`
}

// loadStep is one rate.
type loadStep struct {
	Rate       float64       `json:"rate"` // asked for, messages/s
	Reached    float64       `json:"rate_reached"`
	Published  uint64        `json:"published"`
	Deliveries uint64        `json:"deliveries"`
	PerSecond  float64       `json:"deliveries_per_s"`
	Lost       uint64        `json:"lost"`
	Repeated   uint64        `json:"repeated"`
	Disordered uint64        `json:"disordered"`
	Damaged    uint64        `json:"damaged"`
	Foreign    uint64        `json:"foreign"` // published by somebody else
	Gaps       uint64        `json:"gaps"`
	Closed     int           `json:"closed"`
	P50        float64       `json:"p50_ms"`
	P90        float64       `json:"p90_ms"`
	P99        float64       `json:"p99_ms"`
	P999       float64       `json:"p999_ms"`
	Max        float64       `json:"max_ms"`
	CPU        float64       `json:"server_cpu_us_per_delivery,omitempty"`
	RSS        int64         `json:"server_rss,omitempty"`
	Percentile []quantile    `json:"latency"`
	wall       time.Duration // of publishing
}

// quantile is a point of the latency distribution.
type quantile struct {
	Percent float64 `json:"percent"`
	MS      float64 `json:"ms"`
}

func (p *loadPlan) check() (*url.URL, error) {
	u, err := url.Parse(p.url)
	switch {
	case err != nil || u.Host == "":
		return nil, usagef("%q is no URL of a server, such as http://127.0.0.1:8080/poll", p.url)
	case u.Scheme == "https":
		return nil, usagef("load speaks plain HTTP only: the generator would measure its own TLS; use the server's " +
			"plain port")
	case u.Scheme != "http":
		return nil, usagef("%q: the scheme must be http, as in http://127.0.0.1:8080/poll", p.url)
	case p.clients < 1:
		return nil, usagef("%d clients; there must be at least one", p.clients)
	case p.size < load.MinSize || p.size > load.MaxSize:
		return nil, usagef("a message size of %d bytes; it must be %d to %d", p.size, load.MinSize, load.MaxSize)
	case p.duration <= 0:
		return nil, usagef("a duration of %v; it must be above 0, such as 5s", p.duration)
	case p.pid < 0:
		return nil, usagef("process %d; a number of a process is above 0", p.pid)
	case p.patience <= 0:
		return nil, usagef("a patience of %v; it must be above 0, such as 5s", p.patience)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, usagef("%q: only host, port and path are used; leave out what else there is", p.url)
	case len(p.topics) > p.clients:
		return nil, usagef("%d topics for %d clients: some would have no client", len(p.topics), p.clients)
	}
	if sorted := slices.Sorted(slices.Values(p.topics)); len(slices.Compact(sorted)) < len(p.topics) {
		return nil, usagef("a topic is named twice: each must be another one")
	}
	for _, rate := range p.rates {
		if err := checkRate(rate); err != nil {
			return nil, err
		}
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "80")
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	if p.publishURL == "" {
		p.publishURL = "http://" + u.Host + "/send"
	}
	if to, err := url.Parse(p.publishURL); err != nil || to.Host == "" || to.Scheme != "http" && to.Scheme != "https" {
		return nil, usagef("-publish-url %q is no URL, such as http://127.0.0.1:8080/send", p.publishURL)
	}
	return u, nil
}

// maxRate is more messages per second than any publisher here gets out.
const maxRate = 1e6

func checkRate(rate float64) error {
	if !(rate > 0 && rate <= maxRate) { // nor NaN
		return usagef("a rate of %v messages per second; it must be above 0 and at most %.0f", rate, maxRate)
	}
	return nil
}

func (p *loadPlan) protocol(u *url.URL) (load.Protocol, error) {
	var all load.Mixed
	for name := range strings.SplitSeq(p.transport, ",") {
		one, err := load.Gpoll{Host: u.Host, Path: u.EscapedPath(), Topics: p.topics}.NewProtocol(strings.TrimSpace(name))
		if err != nil {
			return nil, usageError{err}
		}
		all = append(all, one)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

func (p *loadPlan) run(ctx context.Context, out *output) error {
	u, err := p.check()
	if err != nil {
		return err
	}
	protocol, err := p.protocol(u)
	if err != nil {
		return err
	}
	if err := out.ready(); err != nil {
		return err
	}
	out.secret = p.token
	if err := probe(ctx, p.url); err != nil {
		return err
	}
	if p.pid != 0 {
		if _, err := load.ProcessUsage(p.pid); err != nil {
			return err
		}
	}
	run := rand.Uint32()
	e, err := load.New(load.Config{Addr: u.Host, Clients: p.clients, Protocol: protocol, Run: run,
		Streams: max(len(p.topics), 1)})
	if err != nil {
		return err
	}
	defer e.Close()

	f := &loadFinding{Machine: thisMachine(), Server: p.url, Transport: p.transport, Clients: p.clients,
		Topics: p.topics, Size: p.size}
	bar := newBar(out, p.clients, "connecting")
	e.OnProgress = func(ready, _ int) { bar.at(ready) }
	began := time.Now()
	err = e.Connect(ctx, p.patience)
	bar.end()
	if err != nil {
		return err
	}
	f.Connect = time.Since(began).Seconds()

	pub := &publisher{url: p.publishURL, token: p.token, topics: p.topics, run: run, size: p.size,
		last: make([]uint64, max(len(p.topics), 1))}
	var failed error
	for _, rate := range p.rates {
		if ctx.Err() != nil || failed != nil {
			break
		}
		var step measuredStep
		if step, failed = p.step(ctx, out, e, pub, rate); step.Published > 0 {
			f.Steps = append(f.Steps, step.loadStep)
			f.Reasons = append(f.Reasons, step.reasons...)
		}
	}
	f.Stopped = ctx.Err() != nil
	if len(f.Steps) == 0 {
		return cmp.Or(failed, context.Cause(ctx))
	}
	if err := out.write(f); err != nil {
		return err
	}
	return errors.Join(failed, f.verdict())
}

type measuredStep struct {
	loadStep
	reasons []string
}

// step publishes at one rate while the engine, on this goroutine, lets the messages arrive. If publishing fails, step
// returns the error and what it had measured by then.
func (p *loadPlan) step(
	ctx context.Context, out *output, e *load.Engine, pub *publisher, rate float64,
) (measuredStep, error) {
	var before, after load.Usage
	if p.pid != 0 {
		var err error
		if before, err = load.ProcessUsage(p.pid); err != nil {
			return measuredStep{}, err
		}
	}
	total := max(int(rate*p.duration.Seconds()), 1)
	bar := newBar(out, total, fmt.Sprintf("%g messages/s", rate))
	defer bar.end()
	first := pub.count.Load()
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- pub.publish(ctx, rate, p.duration) }() // ends with the duration, by an error or with ctx
	var published error
	err := e.Run(func() bool {
		select {
		case published = <-done:
			return true
		default:
		}
		bar.at(int(pub.count.Load() - first))
		return false
	})
	wall := time.Since(began)
	if err != nil {
		return measuredStep{}, err
	}
	if _, err := e.DrainEach(pub.last, p.patience); err != nil {
		return measuredStep{}, err
	}
	if published != nil { // the server may have told the clients why, too
		by := time.Now().Add(min(p.patience, 200*time.Millisecond))
		if err := e.Run(func() bool { return time.Now().After(by) }); err != nil {
			return measuredStep{}, err
		}
	}
	if p.pid != 0 {
		after, err = load.ProcessUsage(p.pid)
		published = errors.Join(published, err)
	}
	t := e.Take(pub.last)
	s := stepOf(t, pub.count.Load()-first, rate, wall)
	if p.pid != 0 && err == nil {
		s.CPU = float64((after.CPU - before.CPU).Microseconds()) / float64(max(t.Deliveries, 1))
		s.RSS = after.RSS
	}
	m := measuredStep{loadStep: s}
	for reason, n := range t.Reasons {
		m.reasons = append(m.reasons, fmt.Sprintf("%d × %s", n, reason))
	}
	return m, published
}

func stepOf(t *load.Tally, published uint64, rate float64, wall time.Duration) loadStep {
	ms := func(q float64) float64 { return t.Quantile(q).Seconds() * 1000 }
	s := loadStep{
		Rate: rate, Reached: float64(published) / wall.Seconds(), Published: published,
		Deliveries: t.Deliveries, PerSecond: t.Rate(),
		Lost: t.Lost, Repeated: t.Repeated, Disordered: t.Disordered, Damaged: t.Damaged, Foreign: t.Foreign,
		Gaps: t.Gaps, Closed: t.Closed,
		P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: ms(100), wall: wall,
	}
	for _, b := range t.Latency.CumulativeDistribution() {
		s.Percentile = append(s.Percentile, quantile{b.Quantile, float64(b.ValueAt) / 1000})
	}
	return s
}

// probe asks whether there is a gpoll server at all: it registers one client, which the server forgets by itself.
func probe(ctx context.Context, mount string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(mount, "/")+"?client-id=0", nil)
	if err != nil {
		return usageError{err}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no server answers at %s: %w", mount, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	switch {
	case err != nil:
		return fmt.Errorf("no server answers at %s: %w", mount, err)
	case resp.StatusCode == http.StatusOK && bytes.Contains(body, []byte(`"client-id"`)) &&
		resp.Header.Get("Gpoll-Position") != "":
		return nil
	case resp.Header.Get("Gpoll-Error") != "":
		return fmt.Errorf("the gpoll server at %s refuses clients: %s (%s)", mount, resp.Header.Get("Gpoll-Error"),
			bytes.TrimSpace(body))
	}
	return fmt.Errorf("%s is not a gpoll server: it answered %s; give the URL where gpoll is mounted, such as "+
		"http://127.0.0.1:8080/poll", mount, resp.Status)
}

// publisher posts messages. last and count may be read while it is not publishing, count at any time.
type publisher struct {
	url    string
	token  string
	topics []string
	run    uint32
	size   int
	last   []uint64 // per topic
	next   int      // topic
	count  atomic.Uint64
}

// overtime is how long after the end of a step messages are published that are late.
const overtime = time.Second

// publish posts messages at a rate for a time. If the server holds it up, it catches up. The latency of a message
// counts from the moment at which the message was due, so a server that stands still also delays the messages that
// could not be published meanwhile.
func (p *publisher) publish(ctx context.Context, rate float64, d time.Duration) error {
	began, stamp := time.Now(), load.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := 0; ; i++ {
		due := min(time.Duration(float64(i)/rate*float64(time.Second)), d)
		timer.Reset(time.Until(began.Add(due)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		if due == d || time.Since(began) > d+overtime {
			return nil
		}
		if err := p.post(stamp + int64(due)); err != nil {
			return err
		}
	}
}

// post sends one message. It cannot be interrupted: if nobody knows whether the server took a message, its delivery
// cannot be verified.
func (p *publisher) post(stamp int64) error {
	target, stream := p.url, 0
	if len(p.topics) > 0 {
		stream = p.next % len(p.topics)
		p.next++
		target += "?topic=" + url.QueryEscape(p.topics[stream])
	}
	body := load.Payload(nil, p.run+uint32(stream), p.last[stream]+1, stamp, p.size)
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return usageError{err}
	}
	req.Header.Set("Content-Type", "text/plain")
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the server stopped answering: %s took no message within %v", p.url, limit)
	} else if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s refused a message: %s %s", p.url, resp.Status, bytes.TrimSpace(answer))
	}
	p.last[stream]++
	p.count.Add(1)
	return nil
}

// verdict is the error that the finding amounts to.
func (f *loadFinding) verdict() error {
	var lost, wrong, all uint64
	closed := 0
	for _, s := range f.Steps {
		lost += s.Lost
		wrong += s.Repeated + s.Disordered + s.Damaged
		all += s.Deliveries + s.Lost
		closed = s.Closed
	}
	var errs []error
	if lost > 0 {
		errs = append(errs, fmt.Errorf("%d of %d deliveries were lost", lost, all))
	}
	if wrong > 0 {
		errs = append(errs, fmt.Errorf("%d deliveries were repeated, out of order or altered", wrong))
	}
	if closed > 0 {
		errs = append(errs, fmt.Errorf("%d clients were disconnected: %s", closed, strings.Join(f.Reasons, "; ")))
	}
	return errors.Join(errs...)
}

// Text implements finding.
func (f *loadFinding) Text(w io.Writer) {
	fmt.Fprintln(w, f.Machine)
	fmt.Fprintf(w, "%d clients by %s, ready after %.2f s; messages of %d bytes\n", f.Clients, f.Transport, f.Connect,
		f.Size)
	head, rows := f.table()
	printTable(w, head, rows)
	for _, s := range f.Steps {
		if s.Reached < 0.95*s.Rate && !f.Stopped {
			fmt.Fprintf(w, "%g messages/s were not reached: the server did not take them that fast, one after "+
				"the other\n", s.Rate)
		}
		if s.Foreign > 0 {
			fmt.Fprintf(w, "%d deliveries were of messages that somebody else published\n", s.Foreign)
		}
	}
	for _, r := range f.Reasons {
		fmt.Fprintln(w, "closed:", r)
	}
	if f.Stopped {
		fmt.Fprintln(w, "interrupted: the last line is not complete")
	}
}

func (f *loadFinding) table() (head []string, rows [][]string) {
	head = []string{"messages/s", "reached", "deliveries", "deliveries/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms",
		"max ms", "lost", "repeated", "disordered", "damaged", "gaps"}
	cost := f.Steps[0].RSS > 0
	if cost {
		head = append(head, "server CPU µs/delivery", "server MB")
	}
	for _, s := range f.Steps {
		row := []string{fmt.Sprintf("%g", s.Rate), fmt.Sprintf("%.1f", s.Reached), fmt.Sprint(s.Deliveries),
			fmt.Sprintf("%.0f", s.PerSecond)}
		for _, v := range []float64{s.P50, s.P90, s.P99, s.P999, s.Max} {
			row = append(row, fmt.Sprintf("%.2f", v))
		}
		for _, v := range []uint64{s.Lost, s.Repeated, s.Disordered, s.Damaged, s.Gaps} {
			row = append(row, fmt.Sprint(v))
		}
		if cost {
			row = append(row, fmt.Sprintf("%.2f", s.CPU), fmt.Sprintf("%.1f", float64(s.RSS)/1e6))
		}
		rows = append(rows, row)
	}
	return head, rows
}

// Page implements finding.
func (f *loadFinding) Page(p *page) {
	p.title(fmt.Sprintf("Load: %d clients by %s", f.Clients, f.Transport))
	p.paragraph(fmt.Sprintf("Messages of %d bytes through %s; each delivery was verified.", f.Size, f.Server))
	p.table(f.table())
	var p50, p99, cost []point
	var spread []line
	for _, s := range f.Steps {
		p50 = append(p50, point{s.Rate * float64(f.Clients), s.P50 / 1e3})
		p99 = append(p99, point{s.Rate * float64(f.Clients), s.P99 / 1e3})
		cost = append(cost, point{s.Rate * float64(f.Clients), s.CPU / 1e6})
		l := line{name: si(s.Rate, "") + "/s"}
		for _, q := range s.Percentile {
			l.points = append(l.points, point{q.Percent, q.MS / 1e3})
		}
		spread = append(spread, l)
	}
	if len(f.Steps) > 1 {
		p.plot(chart{title: "Latency over load", x: "deliveries/s asked for", y: "from publishing to arrival",
			unit: "s", logX: true,
			lines: []line{{"p50", p50}, {"p99", p99}}})
	}
	p.plot(chart{title: "Latency by percentile", x: "percent of the deliveries, by nines",
		y: "a line for each rate of messages", unit: "s", percent: true, lines: spread})
	if len(f.Steps) > 1 && f.Steps[0].RSS > 0 {
		p.plot(chart{title: "Server's processor time", x: "deliveries/s asked for", y: "for one delivery", unit: "s",
			logX: true, lines: []line{{"cost", cost}}})
	}
}
