// Cross checks the types of a module, its tests included, for every target of "go tool dist list". It finds what
// "go vet" reports first on a system: a name, a field or a type that is not there. It needs a minute. "go vet" compiles
// the standard library for each target, which takes the better part of an hour.
//
//	go run ./tools/cross            # the module in this folder
//	go run ./tools/cross js/wasm    # for some targets
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(targets []string) error {
	if len(targets) == 0 {
		list, err := exec.Command("go", "tool", "dist", "list").Output()
		if err != nil {
			return err
		}
		targets = strings.Fields(string(list))
	}
	c := &checker{fset: token.NewFileSet(), files: map[string]*ast.File{}}
	found := make([]error, len(targets))
	turns := make(chan bool, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i, target := range targets {
		turns <- true
		all.Go(func() {
			defer func() { <-turns }()
			found[i] = c.target(target)
		})
	}
	all.Wait()
	if err := errors.Join(found...); err != nil {
		return err
	}
	fmt.Printf("cross: the types are right for %d targets\n", len(targets))
	return nil
}

// A checker keeps what it has parsed: most files belong to many targets.
type checker struct {
	fset *token.FileSet

	mu    sync.Mutex // guards files
	files map[string]*ast.File
}

// listed is what "go list" says of a package.
type listed struct {
	ImportPath, Name, Dir string
	GoFiles               []string
	ImportMap             map[string]string
	Module                *struct{ Main bool }
	Error                 *struct{ Err string }
}

func (c *checker) target(target string) error {
	system, machine, ok := strings.Cut(target, "/")
	if !ok {
		return fmt.Errorf("%q is no target like linux/amd64", target)
	}
	var said bytes.Buffer
	list := exec.Command("go", "list", "-e", "-deps", "-test",
		"-json=ImportPath,Name,Dir,GoFiles,ImportMap,Module,Error", "./...")
	list.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+machine, "CGO_ENABLED=0", "GOWORK=off")
	list.Stderr = &said
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", target, err, &said)
	}
	var mistakes []error
	pkgs := packages{"unsafe": types.Unsafe}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			return errors.Join(mistakes...)
		} else if err != nil {
			return err
		}
		if p.ImportPath == "unsafe" || p.Name == "main" && strings.HasSuffix(p.ImportPath, ".test") {
			continue
		}
		if p.Error != nil {
			return fmt.Errorf("%s: %s: %s", target, p.ImportPath, p.Error.Err)
		}
		own := p.Module != nil && p.Module.Main
		conf := &types.Config{
			Importer:         mapped{pkgs, p.ImportMap},
			IgnoreFuncBodies: !own,
			Sizes:            types.SizesFor("gc", machine),
			Error: func(err error) {
				if own {
					mistakes = append(mistakes, fmt.Errorf("%s: %w", target, err))
				}
			},
		}
		files, err := c.parse(p.Dir, p.GoFiles)
		if err != nil {
			return err
		}
		path, _, _ := strings.Cut(p.ImportPath, " ")                 // without "[x.test]"
		pkgs[p.ImportPath], _ = conf.Check(path, c.fset, files, nil) // Error has the errors
	}
}

func (c *checker) parse(dir string, names []string) ([]*ast.File, error) {
	var files []*ast.File
	for _, name := range names {
		path := filepath.Join(dir, name)
		c.mu.Lock()
		f := c.files[path]
		c.mu.Unlock()
		if f == nil {
			var err error
			if f, err = parser.ParseFile(c.fset, path, nil, parser.SkipObjectResolution); err != nil {
				return nil, err
			}
			c.mu.Lock()
			c.files[path] = f
			c.mu.Unlock()
		}
		files = append(files, f)
	}
	return slices.Clip(files), nil
}

// packages are those of one target, by what "go list" calls them.
type packages map[string]*types.Package

// mapped is the Importer for one package.
type mapped struct {
	of    packages
	names map[string]string
}

func (m mapped) Import(path string) (*types.Package, error) {
	if name, ok := m.names[path]; ok {
		path = name
	}
	if p := m.of[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s is not among the packages", path)
}
