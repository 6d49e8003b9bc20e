package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/corvuscrypto/gpoll/gpolltest"
	"github.com/corvuscrypto/gpoll/internal/needs"
)

// A firefox is Firefox, driven by WebDriver BiDi (W3C). It knows the operations "open", "eval", "close", "complaints"
// and "end".
type firefox struct {
	conn *websocket.Conn

	mu      sync.Mutex // guards the fields below
	last    int
	waiting map[int]chan bidiAnswer
	users   map[string]string // contexts of users by the names of profiles
	tabs    map[int]string
}

type bidiAnswer struct {
	ID      int
	Error   string
	Message string
	Result  json.RawMessage
}

// startFirefox starts Firefox until the test ends.
func startFirefox(t *testing.T) *firefox {
	t.Helper()
	if testing.Short() {
		t.Skip("the browser takes a minute: run without -short")
	}
	path, err := exec.LookPath("firefox-esr")
	if err != nil {
		path = needs.Program(t, "firefox", "no Firefox, so nothing is tried in it: install firefox-esr; make setup does")
	}
	dir := t.TempDir()
	const quiet = `user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("app.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("browser.safebrowsing.downloads.remote.enabled", false);
user_pref("services.settings.server", "http://127.0.0.1:9/");
`
	if err := os.WriteFile(filepath.Join(dir, "user.js"), []byte(quiet), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--no-remote", "--profile", dir, "--remote-debugging-port", "0")
	cmd.Env = append(os.Environ(), "HOME="+dir, "MOZ_CRASHREPORTER_DISABLE=1")
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := make(chan string, 1)
	go func() { // ends with the process
		defer close(address)
		listens := regexp.MustCompile(`WebDriver BiDi listening on (ws://\S+)`)
		for lines := bufio.NewScanner(said); lines.Scan(); {
			if found := listens.FindStringSubmatch(lines.Text()); found != nil {
				address <- found[1]
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var url string
	select {
	case url = <-address:
	case <-ctx.Done():
	}
	if url == "" {
		t.Fatal("Firefox does not say where it listens")
	}
	conn, _, err := websocket.Dial(ctx, url+"/session", nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(-1)
	f := &firefox{conn: conn, waiting: map[int]chan bidiAnswer{}, users: map[string]string{}, tabs: map[int]string{}}
	go f.read() // ends with the process
	if err := f.command(nil, "session.new", map[string]any{"capabilities": map[string]any{}}); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *firefox) read() {
	for {
		_, text, err := f.conn.Read(context.Background())
		if err != nil {
			return
		}
		var a bidiAnswer
		if json.Unmarshal(text, &a) != nil {
			continue
		}
		f.mu.Lock()
		if waiting := f.waiting[a.ID]; waiting != nil {
			waiting <- a
			delete(f.waiting, a.ID)
		}
		f.mu.Unlock()
	}
}

func (f *firefox) command(value any, method string, params map[string]any) error {
	done := make(chan bidiAnswer, 1)
	f.mu.Lock()
	f.last++
	id := f.last
	f.waiting[id] = done
	f.mu.Unlock()
	text, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	if err != nil {
		return err
	}
	if err := f.conn.Write(context.Background(), websocket.MessageText, text); err != nil {
		return err
	}
	select {
	case a := <-done:
		if a.Error != "" {
			return fmt.Errorf("%s: %s: %s", method, a.Error, a.Message)
		}
		if value == nil {
			return nil
		}
		return json.Unmarshal(a.Result, value)
	case <-time.After(2 * patience):
		return fmt.Errorf("%s has no end", method)
	}
}

// do implements driver.
func (f *firefox) do(value any, op string, args map[string]any) error {
	name, _ := args["context"].(string)
	id, _ := args["page"].(int)
	f.mu.Lock()
	user, tab := f.users[name], f.tabs[id]
	f.mu.Unlock()
	switch op {
	case "open":
		if user == "" {
			var made struct{ UserContext string }
			if err := f.command(&made, "browser.createUserContext", map[string]any{}); err != nil {
				return err
			}
			user = made.UserContext
		}
		var made struct{ Context string }
		if err := f.command(&made, "browsingContext.create", map[string]any{"type": "tab", "userContext": user}); err != nil {
			return err
		}
		f.mu.Lock()
		f.users[name] = user
		id := len(f.tabs) + 1
		f.tabs[id] = made.Context
		f.mu.Unlock()
		*value.(*int) = id
		return f.command(nil, "browsingContext.navigate",
			map[string]any{"context": made.Context, "url": args["url"], "wait": "complete"})
	case "eval":
		var got struct {
			Result           struct{ Value string }
			ExceptionDetails struct{ Text string }
		}
		err := f.command(&got, "script.evaluate", map[string]any{"target": map[string]any{"context": tab},
			"awaitPromise": true, "expression": fmt.Sprintf("(async () => JSON.stringify(await (%s)) ?? 'null')()", args["js"])})
		switch {
		case err != nil:
			return err
		case got.ExceptionDetails.Text != "":
			return fmt.Errorf("eval: %s", got.ExceptionDetails.Text)
		case value == nil:
			return nil
		}
		return json.Unmarshal([]byte(got.Result.Value), value)
	case "close":
		return f.command(nil, "browsingContext.close", map[string]any{"context": tab})
	case "complaints":
		return nil
	case "end":
		if user == "" {
			return nil
		}
		return f.command(nil, "browser.removeUserContext", map[string]any{"userContext": user})
	}
	return fmt.Errorf("Firefox is not driven to %s", op)
}

// What counts most, in Firefox.
func TestFirefox(t *testing.T) {
	f := startFirefox(t)
	for _, by := range transports {
		t.Run(by, func(t *testing.T) {
			w := newWorld(t, nil)
			tab := w.listen(newProfileIn(t, f), map[string]any{"transports": []string{by}})
			w.publish(700, 2000)
			for range 2 {
				w.kill()
				w.begin()
				w.publish(650, 2000)
			}
			w.judge(tab, gpolltest.Checker{})
			var reply string
			tab.eval(&reply, `feed.send("hi").then(() => feed.request("what"))`)
			if reply != "re: what" {
				t.Errorf("the application replies %q", reply)
			}
			tab.eval(nil, "feed.close()")
			w.until("no client is left", func() bool { return w.b.Stats().Clients == 0 })
		})
	}
	t.Run("fallback", func(t *testing.T) {
		w := newWorld(t, nil)
		w.block(w.stripped, socket)
		w.block(w.buffered, events)
		tab := w.listen(newProfileIn(t, f), nil)
		w.publish(2000, 1000)
		tab.eval(nil, `by("long-poll")`)
		w.judge(tab, gpolltest.Checker{NoGaps: true})
		var reasons string
		if tab.eval(&reasons, `feed.status.reasons.join(" ")`); reasons != "ws_refused sse_buffered" {
			t.Error(reasons)
		}
	})
	t.Run("tabs", func(t *testing.T) {
		w := newWorld(t, nil)
		w.shared = true
		tabs := w.tabs(newProfileIn(t, f), 4, "sse")
		for len(tabs) > 1 {
			w.publish(300, 1000)
			leads := w.leader(tabs)
			tabs[leads].does("close")
			tabs = without(tabs, leads)
			w.publish(300, 1000)
		}
		w.judge(tabs[0], gpolltest.Checker{NoGaps: true})
	})
}
