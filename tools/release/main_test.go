package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corvuscrypto/gpoll/internal/needs"
)

// TestInstall releases the commit that is checked out into a proxy. Then it installs and requires the modules as a
// stranger does: with an empty module cache, outside the workspace.
func TestInstall(t *testing.T) {
	for _, name := range []string{"git", "go"} {
		needs.Program(t, name, "the command "+name+" is needed to try a release")
	}
	if _, err := command("git", "rev-parse", "HEAD"); err != nil {
		needs.Lacks(t, "a release is made from a commit: "+err.Error())
	}
	const version = "v0.1.0"
	proxy := t.TempDir()
	modules, err := release(proxy, version)
	if err != nil {
		t.Fatal(err)
	}

	cache, upstream := golang(t, "", nil, "env", "GOMODCACHE"), golang(t, "", nil, "env", "GOPROXY")
	bin := t.TempDir()
	env := append(os.Environ(),
		"GOWORK=off",
		"GOBIN="+bin,
		"GOMODCACHE="+t.TempDir(),
		"GOFLAGS=-modcacherw",
		"GONOSUMDB="+ours,
		"GOPROXY="+strings.Join([]string{fileURL(proxy), fileURL(filepath.Join(cache, "cache", "download")), upstream}, ","))

	t.Run("install", func(t *testing.T) {
		for _, name := range []string{"gpoll", "gpollbench"} {
			golang(t, t.TempDir(), env, "install", ours+"/cmd/"+name+"@"+version)
			out, err := exec.Command(filepath.Join(bin, name), "--help").CombinedOutput()
			if err != nil || !strings.Contains(string(out), name) {
				t.Errorf("%s --help: %v\n%s", name, err, out)
			}
		}
	})
	for _, m := range modules {
		t.Run("get/"+strings.TrimPrefix(m.Path, ours), func(t *testing.T) {
			dir := t.TempDir()
			golang(t, dir, env, "mod", "init", "example.com/user")
			golang(t, dir, env, "get", m.String())
		})
	}
	t.Run("program", func(t *testing.T) {
		dir := t.TempDir()
		program, err := os.ReadFile(filepath.Join("..", "..", "testdata", "seed-readme", "main.go"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "main.go"), program, 0o644); err != nil {
			t.Fatal(err)
		}
		golang(t, dir, env, "mod", "init", "example.com/user")
		golang(t, dir, env, "get", ours+"@"+version)
		golang(t, dir, env, "build", ".")
	})
}

// golang runs the go command in dir and returns what it prints.
func golang(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// fileURL is the address under which GOPROXY takes a folder.
func fileURL(dir string) string {
	dir = filepath.ToSlash(dir)
	if !strings.HasPrefix(dir, "/") {
		dir = "/" + dir
	}
	return "file://" + dir
}
