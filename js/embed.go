// Package js has the browser client of gpoll: ES modules without a dependency.
package js

import (
	"bytes"
	"compress/gzip"
	"embed"
	"io"
	"strings"
	"sync"
)

//go:embed gpoll.js upstream.js presence.js iterate.js
var sources embed.FS

// A File is a module as it is served. Nothing of it may be changed.
type File struct {
	Text []byte // without comments and space
	Gzip []byte // the same, compressed
}

// Core is the module that a page imports.
var Core = sync.OnceValue(func() *File {
	text := strip(source("gpoll.js"))
	for _, name := range Parts() {
		text = strings.ReplaceAll(text, `"./`+name+`"`, `"./client/`+name+`"`)
	}
	return newFile(text)
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
