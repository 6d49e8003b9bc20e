// Package js has the browser client of gpoll: ES modules without a dependency, as a mount serves them.
package js

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"sync"
)

//go:embed gpoll.js upstream.js presence.js iterate.js tabs.js sealed.js strip.go embed.go
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
	for _, name := range slices.Concat(Parts(), Modules(), []string{"gpoll.js", "strip.go", "embed.go"}) {
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
	return locate(strip(source("gpoll.js")), "./client/")
}

// locate gives the parts that a module loads the addresses that they have below folder.
func locate(text, folder string) string {
	for _, name := range Parts() {
		text = strings.ReplaceAll(text, `"./`+name+`"`, `"`+folder+Version()+`/`+name+`"`)
	}
	return text
}

// Modules are the names of those that a page imports by itself, from client/ beside the core.
func Modules() []string { return []string{"sealed.js", "tabs.js"} }

// Parts are the names of the modules that the core loads when a page needs them.
func Parts() []string { return []string{"iterate.js", "presence.js", "upstream.js"} }

// Part returns one of Parts or Modules, or nil.
func Part(name string) *File { return parts()[name] }

var parts = sync.OnceValue(func() map[string]*File {
	all := map[string]*File{}
	for _, name := range Parts() {
		all[name] = newFile(strip(source(name)))
	}
	for _, name := range Modules() {
		text := strings.ReplaceAll(strip(source(name)), `"./gpoll.js"`, `"../client.js"`)
		all[name] = newFile(locate(text, "./"))
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
