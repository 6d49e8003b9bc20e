package overlay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Patch is a small change of some files: a unified diff below lines that say what it is. The numbers in its hunks do
// not count. The lines that a hunk takes out, with the lines around them, must be in the file once.
type Patch struct {
	Name  string            // of its file, without the ending
	About string            // the lines before the diff that are no fields
	Field map[string]string // the lines before the diff of the form "name: value"
	hunks []hunk
}

type hunk struct{ file, from, to string }

// ReadPatch reads a file.
func ReadPatch(path string) (*Patch, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParsePatch(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), string(text))
}

// ParsePatch reads the text of a patch.
func ParsePatch(name, text string) (*Patch, error) {
	p := &Patch{Name: name, Field: map[string]string{}}
	head, diff, ok := strings.Cut(text, "--- a/")
	if !ok {
		return nil, fmt.Errorf("%s: no line --- a/FILE", name)
	}
	for line := range strings.Lines(head) {
		if key, value, ok := strings.Cut(line, ": "); ok && !strings.Contains(key, " ") {
			p.Field[key] = strings.TrimSpace(value)
		} else {
			p.About += line
		}
	}
	file := ""
	var h *hunk
	for line := range strings.Lines("--- a/" + diff) {
		switch mark, rest := line[0], line[1:]; {
		case strings.HasPrefix(line, "--- a/"):
			h = nil
		case strings.HasPrefix(line, "+++ b/"):
			file = strings.TrimSpace(strings.TrimPrefix(line, "+++ b/"))
		case strings.HasPrefix(line, "@@"):
			p.hunks = append(p.hunks, hunk{file: file})
			h = &p.hunks[len(p.hunks)-1]
		case h == nil:
			return nil, fmt.Errorf("%s: a line outside a hunk: %q", name, line)
		case mark == ' ':
			h.from, h.to = h.from+rest, h.to+rest
		case mark == '-':
			h.from += rest
		case mark == '+':
			h.to += rest
		case line == "\n": // an empty line whose blank an editor took away
			h.from, h.to = h.from+line, h.to+line
		default:
			return nil, fmt.Errorf("%s: a line that is none of a diff: %q", name, line)
		}
	}
	for _, h := range p.hunks {
		if h.from == "" || h.from == h.to {
			return nil, fmt.Errorf("%s: a hunk of %s that finds or changes nothing", name, h.file)
		}
	}
	if len(p.hunks) == 0 {
		return nil, fmt.Errorf("%s: no hunk", name)
	}
	return p, nil
}
