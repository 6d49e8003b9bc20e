package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"time"

	"github.com/corvuscrypto/gpoll"
)

//go:embed page
var pageFiles embed.FS

// contentPolicy allows the page its own style and scripts and nothing else: no script in the markup, and no markup made
// of strings (Trusted Types), so that a message can never become more than text.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// recent is how many messages the page shows of the time before it was opened, if the window has them.
const recent = 50

// pageData is what the page has to know of the server. Addresses are relative to the page: a proxy may serve it below a
// prefix.
type pageData struct {
	Mount, Send, Stats, Restart string

	Path string // of the mount, where no proxy stands in front

	Token      bool
	MaxMessage int
	After      string // the Position after which the page reads
}

// addPage serves the page at / and its parts under /page/.
func addPage(mux *http.ServeMux, set *settings, token bool, stats func() gpoll.Stats) error {
	t, err := template.ParseFS(pageFiles, "page/index.html")
	if err != nil {
		return err
	}
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		var index bytes.Buffer
		err := t.Execute(&index, pageData{
			Mount: "." + set.path, Send: "." + sendPath, Stats: "." + statsPath, Restart: "." + restartPath,
			Path: set.path, Token: token, MaxMessage: int(set.maxMessage), After: recentPosition(stats()),
		})
		if err != nil {
			panic(err) // the template and its data do not depend on the request
		}
		newFile("index.html", index.Bytes()).ServeHTTP(w, r)
	})
	return fs.WalkDir(pageFiles, "page", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || name == "page/index.html" {
			return err
		}
		content, err := pageFiles.ReadFile(name)
		if err == nil {
			mux.Handle("/"+name, newFile(name, content))
		}
		return err
	})
}

// recentPosition returns the Position before the newest messages of the window, "" if it is empty.
func recentPosition(s gpoll.Stats) string {
	if s.WindowMessages == 0 || s.WindowHigh < s.WindowLow {
		return ""
	}
	return fmt.Sprintf("%s-%d", s.Epoch, s.WindowHigh-min(recent, s.WindowHigh-s.WindowLow+1))
}

// file is a part of the page. Browsers ask each time whether it has changed, which costs a 304.
type file struct {
	name    string
	content []byte
	etag    string
}

func newFile(name string, content []byte) *file {
	sum := sha256.Sum256(content)
	return &file{name, content, `"` + hex.EncodeToString(sum[:12]) + `"`}
}

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "method", "use GET")
		return
	}
	h := w.Header()
	h.Set("Content-Type", cmp.Or(contentTypes[path.Ext(f.name)], "text/plain; charset=utf-8"))
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.content))
}
