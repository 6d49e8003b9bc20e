package js_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/internal/needs"
	"github.com/corvuscrypto/gpoll/js"
)

// What npm packs is what is needed: a program that installs it uses every part of it, by each transport.
func TestPackage(t *testing.T) {
	project := install(t)
	copyFile(t, "testdata/everything.mjs", project+"/everything.mjs")
	everything(t, project, "everything.mjs", "websocket", "sse", "long-poll")
}

// The package has all modules, and the license of the repository.
func TestPackageFiles(t *testing.T) {
	text, err := os.ReadFile("package.json")
	if err != nil {
		t.Fatal(err)
	}
	var said struct{ Files []string }
	if err := json.Unmarshal(text, &said); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(js.Parts(), js.Modules(), []string{"gpoll.js", "gpoll.d.ts", "sealed.d.ts", "tabs.d.ts"})
	slices.Sort(want)
	slices.Sort(said.Files)
	if !slices.Equal(said.Files, want) {
		t.Errorf("package.json has %v, and not %v", said.Files, want)
	}
	here, err := os.ReadFile("LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if there, err := os.ReadFile("../LICENSE"); err != nil || string(here) != string(there) {
		t.Error("the license is not that of the repository", err)
	}
}

// Bundlers make programs of it that work, and leave what a page may need later in chunks of its own.
func TestBundles(t *testing.T) {
	project := install(t)
	copyFile(t, "testdata/everything.mjs", project+"/everything.mjs")
	write(t, project+"/vite.config.js", `export default {
	logLevel: "warn",
	build: {
		outDir: "vite",
		target: "es2022",
		minify: false,
		rollupOptions: { input: "everything.mjs", external: ["ws", /^node:/] },
	},
};
`)
	modules := installed(t)
	for name, args := range map[string][]string{
		"esbuild": {modules + "/esbuild/bin/esbuild", "everything.mjs", "--bundle", "--splitting", "--format=esm",
			"--platform=node", "--external:ws", "--outdir=esbuild"},
		"vite": {"node", modules + "/vite/bin/vite.js", "build"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, project, args[0], args[1:]...)
			var entry string
			chunks := map[string]int{}
			err := filepath.WalkDir(project+"/"+name, func(path string, entered os.DirEntry, err error) error {
				if err != nil || entered.IsDir() {
					return err
				}
				chunk, _, _ := strings.Cut(entered.Name(), "-")
				chunks[strings.TrimSuffix(chunk, ".js")]++
				if chunk == "everything" || chunk == "everything.js" {
					entry = path
				}
				run(t, project, "node", "--check", path)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range js.Parts() {
				if chunks[strings.TrimSuffix(part, ".js")] != 1 {
					t.Errorf("%s is no chunk of its own: %v", part, chunks)
				}
			}
			if text, err := os.ReadFile(entry); err != nil || !regexp.MustCompile(`import\([^)]*upstream`).Match(text) {
				t.Errorf("%s loads nothing later: %v", entry, err)
			}
			everything(t, project, entry, "sse", "websocket")
		})
	}
}

// The script that is no module makes the classes global, and loads the parts from beside it.
func TestGlobal(t *testing.T) {
	needs.Program(t, "node", noNode)
	folder := serve(t)
	copyFile(t, "testdata/global.mjs", folder+"/global.mjs")
	url, _ := application(t)
	if got := run(t, folder, "node", "--no-warnings", "global.mjs", url); got != "function function\nsse\nre: what?\n" {
		t.Errorf("it prints %q", got)
	}
}

// install packs the package and installs it in a new project, without a network. The project also has ws.
func install(t *testing.T) string {
	t.Helper()
	modules := installed(t)
	needs.Program(t, "npm", "npm is not installed, so the package is not tried: install npm")
	project := t.TempDir()
	write(t, project+"/package.json", `{"private":true,"type":"module"}`)
	source, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	run(t, project, "npm", "pack", "--silent", "--pack-destination", ".", source)
	packed, err := filepath.Glob(project + "/gpoll-*.tgz")
	if err != nil || len(packed) != 1 {
		t.Fatal(packed, err)
	}
	run(t, project, "npm", "install", "--offline", "--no-audit", "--no-fund", packed[0])
	if err := os.Symlink(modules+"/ws", project+"/node_modules/ws"); err != nil {
		t.Fatal(err)
	}
	return project
}

// everything runs testdata/everything.mjs, or what was made of it.
func everything(t *testing.T, project, program string, transports ...string) {
	t.Helper()
	url, heard := application(t)
	got := run(t, project, "node", append([]string{program, url}, transports...)...)
	if want := strings.Join(transports, "\n") + "\n"; got != want {
		t.Errorf("it prints %q, and not %q", got, want)
	}
	var want []string
	for _, transport := range transports {
		want = append(want, "sent by "+transport)
	}
	if got := heard(); !slices.Equal(got, want) {
		t.Errorf("the application heard %q, and not %q", got, want)
	}
}

// application is a server whose application publishes what it hears, asks the one who said it something, answers
// requests, and lets everybody publish to news and see who is there.
func application(t *testing.T) (url string, heard func() []string) {
	t.Helper()
	var mu sync.Mutex // guards all
	var all []string
	ctx := context.WithoutCancel(t.Context())
	b := gpoll.NewBroadcaster()
	b.Authorize = func(*http.Request) (gpoll.Grant, error) {
		news := func(topic string) bool { return topic == "news" }
		return gpoll.Grant{Publish: news, Presence: news}, nil
	}
	var asking sync.WaitGroup
	b.OnMessage = func(c *gpoll.Client, m gpoll.Message) {
		mu.Lock()
		all = append(all, string(m.Data))
		mu.Unlock()
		if _, err := b.Publish(ctx, gpoll.Message{Topic: "news", Data: m.Data}); err != nil {
			t.Error(err)
		}
		asking.Go(func() { // ends with the reply
			reply, err := c.Request(ctx, []byte("what you say"))
			if err != nil {
				t.Error(err)
			}
			c.Send(string(reply))
		})
	}
	b.OnRequest = func(_ *gpoll.Client, m gpoll.Message) ([]byte, error) {
		if string(m.Data) == "no" {
			return nil, errors.New("not today")
		}
		return append([]byte("re: "), m.Data...), nil
	}
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		asking.Wait()
		_ = b.Shutdown(ctx)
		server.Close()
	})
	return server.URL + "/poll", func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}
