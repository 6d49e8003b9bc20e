// Package overlay has the go command build the package with some of its files changed, without touching them. The
// changes are patches that plant a bug, or copies that the explorer has instrumented.
package overlay

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Set is the files of a repository that are replaced.
type Set struct {
	root  string
	files map[string][]byte
}

// New returns an empty Set for the repository at root.
func New(root string) *Set { return &Set{root, map[string][]byte{}} }

// Source returns a file of the repository, by its path from the root with slashes: the version in the Set, or else the
// one on disk.
func (s *Set) Source(file string) ([]byte, error) {
	if text, ok := s.files[file]; ok {
		return text, nil
	}
	return os.ReadFile(filepath.Join(s.root, filepath.FromSlash(file)))
}

// Put replaces a file, or adds one.
func (s *Set) Put(file string, text []byte) { s.files[file] = text }

// Files returns the paths of what is replaced, in no order.
func (s *Set) Files() (files []string) {
	for file := range s.files {
		files = append(files, file)
	}
	return files
}

// Patch applies p. The error says which of its hunks does not fit, and why; the Set is then as it was.
func (s *Set) Patch(p *Patch) error {
	changed := map[string][]byte{}
	for _, h := range p.hunks {
		text, ok := changed[h.file]
		if !ok {
			var err error
			if text, err = s.Source(h.file); err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
		}
		switch n := strings.Count(string(text), h.from); n {
		case 1:
			changed[h.file] = []byte(strings.Replace(string(text), h.from, h.to, 1))
		default:
			return fmt.Errorf("%s no longer fits: %s has %d times, not once:\n%s", p.Name, h.file, n, h.from)
		}
	}
	for file, text := range changed {
		s.Put(file, text)
	}
	return nil
}

// Write writes the replaced files into dir, and returns the path of the list that the go command takes with -overlay.
func (s *Set) Write(dir string) (list string, err error) {
	replace := map[string]string{}
	for file, text := range s.files {
		at := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(at, text, 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(s.root, filepath.FromSlash(file))] = at
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list = filepath.Join(dir, "overlay.json")
	return list, os.WriteFile(list, text, 0o644)
}
