// Package js has the browser client of gpoll: ES modules without a dependency, as a mount serves them.
package js

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"strings"
	"sync"
)

//go:embed gpoll.js upstream.js presence.js iterate.js tabs.js strip.go embed.go
var sources embed.FS

// A File is a module as it is served. Nothing of it may be changed.
type File struct {
	Text []byte // without comments and space
	Gzip []byte // the same, compressed
}

// Version names what the files are: another release has another one. It is in the addresses of the parts, so that the
// parts that a browser keeps are those of its core.
var Version = sync.OnceValue(func() string {
	sum := sha256.New()
	for _, name := range append(Parts(), "gpoll.js", "tabs.js", "strip.go", "embed.go") {
		_, _ = io.WriteString(sum, source(name)) // a hash does not fail
	}
	return hex.EncodeToString(sum.Sum(nil)[:4])
})

// Core is the module that a page imports.
var Core = sync.OnceValue(func() *File { return newFile(core()) })

// Global is the core as a script that is no module: it makes GpollSource and GpollError global.
var Global = sync.OnceValue(func() *File {
	text := strings.ReplaceAll(core(), "export class", "class")
	return newFile("(()=>{" + text + "Object.assign(globalThis,{GpollSource,GpollError})})()")
})

func core() string {
	text := strip(source("gpoll.js"))
	for _, name := range Parts() {
		text = strings.ReplaceAll(text, `"./`+name+`"`, `"./client/`+Version()+`/`+name+`"`)
	}
	return text
}

// Tabs is the module with SharedSource, which stands below the core as client/tabs.js.
var Tabs = sync.OnceValue(func() *File {
	text := strings.ReplaceAll(strip(source("tabs.js")), `"./gpoll.js"`, `"../client.js"`)
	return newFile(strings.ReplaceAll(text, `"./presence.js"`, `"./`+Version()+`/presence.js"`))
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
	return &File{Text: []byte(text), Gzip: compress(text)}
}

// compress returns text as gzip, as small as it gets.
func compress(text string) []byte {
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		panic(err) // a constant level
	}
	_, _ = io.WriteString(w, text) // to memory
	_ = w.Close()
	return buf.Bytes()
}
