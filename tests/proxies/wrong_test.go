//go:build unix

package proxies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/gpolltest"
)

// remove returns a block without the lines that match. Each pattern has to match one.
func remove(t *testing.T, block string, patterns ...string) string {
	t.Helper()
	for _, pattern := range patterns {
		lines := regexp.MustCompile(`(?m)^.*` + pattern + `.*\n`)
		if !lines.MatchString(block) {
			t.Fatalf("no line with %s in\n%s", pattern, block)
		}
		block = lines.ReplaceAllString(block, "")
	}
	return block
}

func named(name string) *proxy {
	for _, p := range proxies {
		if p.name == name {
			return p
		}
	}
	panic(name)
}

// A WebSocket of a page through a proxy that was told less than docs/proxies.md says gets the sentence that the page
// explains, and the log has it too.
func TestWhatIsMissing(t *testing.T) {
	nginx, apache := block(t, "nginx"), block(t, "apache")
	upgrades := []string{"proxy_set_header Upgrade", "proxy_set_header Connection"}
	for _, c := range []struct {
		name, proxy, block string
		status             int
		says               []string
	}{
		{"nginx alone", "nginx",
			remove(t, nginx, append(upgrades, "proxy_set_header Host", "proxy_http_version")...),
			426, []string{"this request came by HTTP/1.0"}},
		{"nginx without Upgrade", "nginx", remove(t, nginx, append(upgrades, "proxy_set_header Host")...),
			426, []string{"this WebSocket handshake came without the headers Upgrade and Connection"}},
		{"nginx without Connection", "nginx", remove(t, nginx, upgrades[1:]...),
			426, []string{"this WebSocket handshake came without the header"}},
		{"nginx without Host", "nginx", remove(t, nginx, "proxy_set_header Host"),
			403, []string{"Origin ORIGIN is not Host program:"}},
		{"nginx without the port", "nginx", strings.Replace(nginx, "Host $http_host", "Host $host", 1),
			403, []string{"Origin ORIGIN is not Host 127.0.0.1:", "with its port"}},
		{"Apache without upgrade", "Apache", strings.ReplaceAll(apache, " upgrade=websocket", ""),
			426, []string{"this WebSocket handshake came without the headers Upgrade and Connection"}},
		{"Apache without ProxyPreserveHost", "Apache", remove(t, apache, "ProxyPreserveHost"),
			403, []string{"Origin ORIGIN is not Host BACKEND:"}},
		{"Varnish without vcl_pipe", "Varnish",
			strings.Replace(block(t, "vcl"), "if (req.http.Upgrade) {", "if (false) {", 1),
			426, []string{"this WebSocket handshake came without the header"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log lockedBuffer
			backend := serve(t, &gpoll.Broadcaster{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			origin := "http://" + named(c.proxy).run(t, c.block, backend).plain
			s := &gpolltest.Session{URL: origin + "/poll", Client: client(t), Header: http.Header{"Origin": {origin}}}
			err := s.Attach(t.Context(), gpolltest.WebSocket)
			refused, ok := errors.AsType[*gpolltest.ServerError](err)
			if !ok || refused.Status != c.status {
				t.Fatalf("%v, want %d", err, c.status)
			}
			for _, want := range c.says {
				want = strings.NewReplacer("ORIGIN", origin, "BACKEND", backend).Replace(want)
				if !strings.Contains(refused.Message, want) {
					t.Errorf("%q is not in %q", want, refused.Message)
				}
			}
			if !strings.Contains(log.String(), refused.Message) {
				t.Errorf("the log does not say so:\n%s", log.String())
			}
		})
	}
}

// A proxy that puts another Host into its requests and says which came is enough with TrustForwarded.
func TestForwardedHost(t *testing.T) {
	forwarded := block(t, "nginx-forwarded")
	for name, block := range map[string]string{
		"nginx":  strings.Replace(block(t, "nginx"), "proxy_set_header Host $http_host;", forwarded, 1),
		"Apache": remove(t, block(t, "apache"), "ProxyPreserveHost"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := named(name).run(t, block, serve(t, &gpoll.Broadcaster{TrustForwarded: true}))
			for _, url := range []string{"http://" + at.plain + "/", "https://" + at.secure + "/app/"} {
				for _, transport := range transports {
					if err := exchange(t, url, transport); err != nil {
						t.Errorf("%s by %s: %v", url, transport, err)
					}
				}
			}
			s := &gpolltest.Session{URL: "http://" + at.plain + "/poll", Client: client(t),
				Header: http.Header{"Origin": {"http://evil.example"}}}
			err := s.Attach(t.Context(), gpolltest.WebSocket)
			if refused, ok := errors.AsType[*gpolltest.ServerError](err); !ok || refused.Code != "origin" {
				t.Errorf("a page of another origin: %v", err)
			}
		})
	}
}

// Signs of life keep quiet streams open through the proxies, whose time-outs are shorter here than the silence: one of
// 60 s is 3 s.
func TestQuietStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("a silence of 5 seconds: run without -short")
	}
	b := &gpoll.Broadcaster{Heartbeat: time.Second, PongTimeout: 900 * time.Millisecond, PollWait: time.Second}
	backend := serve(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	var listening sync.WaitGroup
	defer listening.Wait()
	defer cancel()
	for _, p := range proxies {
		if missing(t, p) {
			continue
		}
		text := block(t, p.language)
		if p.seconds != "" {
			if !strings.Contains(text, p.seconds) {
				t.Fatalf("no %q in\n%s", p.seconds, text)
			}
			text = strings.ReplaceAll(text, p.seconds, strings.Replace(p.seconds, "60", "3", 1))
		}
		at := p.run(t, text, backend)
		urls := []string{"http://" + at.plain + "/"}
		if at.secure != "" {
			urls = append(urls, "https://"+at.secure+"/")
		}
		for _, url := range urls {
			for _, form := range []gpolltest.Transport{gpolltest.LongPoll, gpolltest.SSE, gpolltest.WebSocket} {
				s := &gpolltest.Session{URL: url + "poll", Client: client(t)}
				if err := s.Attach(ctx, form); err != nil {
					t.Errorf("%s, %s by %v: %v", p.name, url, form, err)
					continue
				}
				listening.Go(func() {
					if err := listenTo(ctx, s, "after the silence"); err != nil {
						t.Errorf("%s, %s by %v: %v", p.name, url, form, err)
					}
				})
			}
		}
	}
	<-time.After(5 * time.Second) // the silence
	b.Send("after the silence")
	listening.Wait()
}

// listenTo receives on one attach until a message comes.
func listenTo(ctx context.Context, s *gpolltest.Session, text string) error {
	defer s.Cut()
	for {
		got, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		for _, m := range got {
			if string(m.Data) == text {
				return nil
			}
			return fmt.Errorf("got %q", m.Data)
		}
	}
}

// A lockedBuffer takes what several goroutines log.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
