// Package js has the browser client of gpoll: ES modules without a dependency, which a Broadcaster serves at its mount.
// docs/browser.md is the guide.
package js

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"strings"
	"sync"
)

//go:embed gpoll.js upstream.js presence.js iterate.js
var sources embed.FS

// A File is a module as it is served. Nothing of it may be changed.
type File struct {
	Text   []byte // without comments and space
	Gzip   []byte // the same, compressed
	Hash   string // of Text
	Global []byte // the core alone: a script that is no module, and makes GpollSource a global name
}

// Core is the module that a page imports.
var Core = sync.OnceValue(func() *File {
	text := strip(source("gpoll.js"))
	for _, name := range Parts() {
		text = strings.ReplaceAll(text, `"./`+name+`"`, `"./client/`+name+`"`)
	}
	f := newFile(text)
	f.Global = []byte("(()=>{" + strings.ReplaceAll(text, "export ", "") +
		"\nObject.assign(globalThis,{GpollSource,GpollError})})()")
	return f
})

// Parts are the names of the modules that the core loads when a page needs them.
func Parts() []string { return []string{"iterate.js", "presence.js", "upstream.js"} }

// Part returns one of Parts, or nil.
func Part(name string) *File { return parts()[name] }

var parts = sync.OnceValue(func() map[string]*File {
	all := map[string]*File{}
	for _, name := range Parts() {
		all[name] = newFile(strip(source(name)))
	}
	return all
})

func source(name string) string {
	text, err := sources.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return string(text)
}

func newFile(text string) *File {
	sum := sha256.Sum256([]byte(text))
	f := &File{Text: []byte(text), Hash: hex.EncodeToString(sum[:8])}
	f.Gzip = Compress(f.Text)
	return f
}

// Compress returns text as gzip, as small as it gets.
func Compress(text []byte) []byte {
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		panic(err) // a constant level
	}
	_, _ = w.Write(text) // to memory
	_ = w.Close()
	return buf.Bytes()
}
