package client

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll"
	gpollclient "github.com/corvuscrypto/gpoll/client"
	"github.com/corvuscrypto/gpoll/internal/freeport"
)

const isServer = "GPOLL_TESTS_CLIENT_SERVER"

// serve is what this program is as a server, at the address that isServer names. It publishes a number every
// millisecond, and says on its standard output what it has heard and published.
func serve() {
	b := gpoll.NewBroadcaster()
	b.Logger = slog.New(slog.DiscardHandler)
	b.UpstreamRate = -1
	b.History.Count = 200_000 // a client may be away for some time
	b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) { fmt.Println("heard", m.ID) }
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	ln, err := net.Listen("tcp", os.Getenv(isServer))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go http.Serve(ln, mux) // ends with the process
	fmt.Println("address", ln.Addr())
	for i := 1; ; i++ {
		p, err := b.Publish(context.Background(), gpoll.Message{Topic: "news", Data: fmt.Append(nil, i)})
		if err != nil {
			os.Exit(1)
		}
		fmt.Println("published", p)
		time.Sleep(time.Millisecond)
	}
}

// A life is one process of a server.
type life struct {
	cmd     *exec.Cmd
	address string
	read    chan struct{} // closed at the end of its output

	mu        sync.Mutex // guards the fields below
	heard     map[string]int
	published gpoll.Position
}

func startLife(t *testing.T, address string) *life {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := &life{cmd: exec.Command(self), read: make(chan struct{}), heard: map[string]int{}}
	l.cmd.Env = append(os.Environ(), isServer+"="+address)
	l.cmd.Stderr = os.Stderr
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.kill)
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "address ") {
		t.Fatal("the server did not start: ", lines.Text())
	}
	l.address = strings.TrimPrefix(lines.Text(), "address ")
	go func() { // ends with the process
		defer close(l.read)
		for lines.Scan() {
			what, which, _ := strings.Cut(lines.Text(), " ")
			l.mu.Lock()
			if what == "heard" {
				l.heard[which]++
			} else if p, err := gpoll.ParsePosition(which); err == nil {
				l.published = p
			}
			l.mu.Unlock()
		}
	}()
	return l
}

// kill is kill -9.
func (l *life) kill() {
	_ = l.cmd.Process.Kill()
	<-l.read
	_ = l.cmd.Wait()
}

// A server that is killed and starts again is one gap. In each life of the server a command takes effect once at most,
// and in all of them once at least; twice only if it had no answer at a kill.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, by := range []gpollclient.Transport{gpollclient.WebSocket, gpollclient.SSE, gpollclient.LongPoll} {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			const kills, senders = 3, 4
			now := startLife(t, freeport.Address(t))
			lives := []*life{now}
			n := newNetwork(t, now.address)
			// The client's waits double up to 30 s, and the lives are too short for them to begin anew: the last ones may
			// be long ones. Most often all is over in 10 s.
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			c, err := gpollclient.Dial(ctx, "http://gpoll.test/poll", gpollclient.Options{HTTPClient: n.hc,
				Transports: []gpollclient.Transport{by}, Topics: []string{"news"}})
			if err != nil {
				t.Fatal(err)
			}
			taken := make(chan struct{})
			go func() { // ends with Close
				defer close(taken)
				last, gaps := gpoll.Position{}, 0
				for m, err := range c.Messages(context.Background()) {
					switch {
					case err != nil:
						if gaps != kills {
							t.Errorf("%d gaps after %d kills", gaps, kills)
						}
						return
					case m.Gap != nil:
						if gaps++; m.Gap.Reason != "epoch" {
							t.Errorf("a gap: %+v", *m.Gap)
						}
						last = gpoll.Position{}
					case !last.IsZero() && (m.Position.Epoch != last.Epoch || m.Position.Seq != last.Seq+1):
						t.Errorf("%v came behind %v", m.Position, last)
						last = m.Position
					default:
						last = m.Position
					}
				}
			}()
			stop := make(chan struct{})
			var group sync.WaitGroup
			sent := make([]int, senders)
			for i := range senders {
				group.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if err := c.Send(ctx, []byte("x")); err != nil {
							t.Errorf("Send: %v; it is %v", err, c.Status())
							return
						}
						sent[i]++
						time.Sleep(2 * time.Millisecond)
					}
				})
			}
			for range kills {
				<-time.After(800 * time.Millisecond)
				now.kill()
				<-time.After(200 * time.Millisecond)
				now = startLife(t, now.address)
				lives = append(lives, now)
				for s := c.Status(); s.State != gpollclient.Connected && ctx.Err() == nil; s = c.Status() {
					<-time.After(10 * time.Millisecond)
				}
			}
			<-time.After(800 * time.Millisecond)
			close(stop)
			group.Wait()
			now.mu.Lock()
			owed := now.published
			now.mu.Unlock()
			for p := c.Position(); (p.Epoch != owed.Epoch || p.Seq < owed.Seq) && ctx.Err() == nil; p = c.Position() {
				<-time.After(10 * time.Millisecond)
			}
			if ctx.Err() != nil {
				t.Errorf("it is at %v, and not at %v: %v", c.Position(), owed, c.Status())
			}
			c.Close()
			<-taken
			now.kill()
			all, again := map[string]int{}, 0
			for _, l := range lives {
				for id, n := range l.heard {
					if n != 1 {
						t.Errorf("%s took effect %d times in one life of the server", id, n)
					}
					if all[id]++; all[id] > 1 {
						again++
					}
				}
			}
			total := 0
			for _, n := range sent {
				total += n
			}
			if len(all) != total || again > kills*senders {
				t.Errorf("%d commands took effect, and %d of them again, of %d", len(all), again, total)
			}
			t.Logf("%d commands, of which %d took effect again after a kill", total, again)
		})
	}
}
