// Command release builds a module proxy in a folder from the commit that is checked out. The proxy has the modules of
// go.work as they will be fetched once that commit is tagged. With GOPROXY=file:///…the folder… in front, go install
// and go get can be tried before anything is published.
//
//	go run ./tools/release -o ../proxy
//	GOPROXY=file://$(cd ../proxy && pwd),$(go env GOPROXY) GONOSUMDB=github.com/corvuscrypto/gpoll GOWORK=off \
//		go install github.com/corvuscrypto/gpoll/cmd/gpoll@v0.1.0
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

func main() {
	out := flag.String("o", "", "the folder that becomes the proxy; it is made when it is not there")
	version := flag.String("version", "v0.1.0",
		"the version that the modules get; those that require each other must name it")
	flag.Parse()
	if *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	modules, err := release(*out, *version)
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
	for _, m := range modules {
		fmt.Println(m)
	}
}

// release writes every module of the workspace in which it runs into the proxy at out, and returns them.
func release(out, version string) ([]module.Version, error) {
	work, err := command("go", "env", "GOWORK")
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(work)
	if err != nil {
		return nil, fmt.Errorf("no go.work: run this inside the repository: %w", err)
	}
	file, err := modfile.ParseWork(work, text, nil)
	if err != nil {
		return nil, err
	}
	root := filepath.Dir(work)
	if changes, err := command("git", "-C", root, "status", "--porcelain"); err != nil {
		return nil, err
	} else if changes != "" {
		fmt.Fprintln(os.Stderr, "release: the commit is released, without what is changed in the work tree")
	}

	var modules []module.Version
	for _, use := range file.Use {
		m, err := releaseOne(out, root, path.Clean(filepath.ToSlash(use.Path)), version)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", use.Path, err)
		}
		modules = append(modules, m)
	}
	return modules, nil
}

// releaseOne writes the module in the folder dir of the repository, by the protocol of go help goproxy.
func releaseOne(out, root, dir, version string) (module.Version, error) {
	goMod, err := command("git", "-C", root, "show", "HEAD:"+path.Join(dir, "go.mod"))
	if err != nil {
		return module.Version{}, err
	}
	goMod += "\n"
	mod, err := modfile.Parse("go.mod", []byte(goMod), nil)
	if err != nil {
		return module.Version{}, err
	}
	m := module.Version{Path: mod.Module.Mod.Path, Version: version}
	if len(mod.Replace) > 0 {
		return m, errors.New("its go.mod has a replace line, with which nobody can install it")
	}
	for _, need := range mod.Require {
		if isOurs(need.Mod.Path) && need.Mod.Version != version {
			return m, fmt.Errorf("its go.mod requires %s; name %s there and in go.work", need.Mod, version)
		}
	}

	at := filepath.Join(out, filepath.FromSlash(m.Path), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return m, err
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{version, time.Now().UTC()})
	if err != nil {
		return m, err
	}
	for name, content := range map[string][]byte{"list": []byte(version + "\n"), version + ".info": info,
		version + ".mod": []byte(goMod)} {
		if err := os.WriteFile(filepath.Join(at, name), content, 0o644); err != nil {
			return m, err
		}
	}
	archive, err := os.Create(filepath.Join(at, version+".zip"))
	if err != nil {
		return m, err
	}
	if err := zip.CreateFromVCS(archive, m, root, "HEAD", strings.TrimPrefix(dir, ".")); err != nil {
		return m, errors.Join(err, archive.Close())
	}
	return m, archive.Close()
}

const ours = "github.com/corvuscrypto/gpoll"

func isOurs(path string) bool { return path == ours || strings.HasPrefix(path, ours+"/") }

// command returns what a command prints, without the line's end.
func command(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(failed.Stderr)))
		}
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
