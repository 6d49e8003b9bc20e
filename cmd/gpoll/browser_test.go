//go:build unix

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/freeport"
	"github.com/corvuscrypto/gpoll/internal/needs"
)

// TestBrowser runs testdata/browser/browser.mjs, which drives the page in Chromium.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("the browser takes up to a minute: run without -short")
	}
	node, browser, modules := needs.Playwright(t, filepath.Join("..", ".."), "the page")
	dir := filepath.Dir(modules)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	readme, readmeAddress := buildREADME(t)
	cmd := exec.CommandContext(ctx, node, "browser.mjs", binary, browser, freeport.Address(t), readme, readmeAddress)
	cmd.Dir = dir
	// An interrupt lets Playwright end its browser; the kill comes only after that.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("node browser.mjs: %v", err)
	}
}

// buildREADME builds the README's program, beside its page. It returns its file and the free address on which it will
// listen.
func buildREADME(t *testing.T) (program, address string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := func(language string) string {
		_, after, _ := strings.Cut(string(text), "\n```"+language+"\n")
		content, _, ok := strings.Cut(after, "\n```\n")
		if !ok {
			t.Fatalf("the README has no block of %s", language)
		}
		return content + "\n"
	}
	dir, address := t.TempDir(), freeport.Address(t)
	for name, content := range map[string]string{
		"main.go": strings.ReplaceAll(block("go"), "127.0.0.1:8080", address), "page.html": block("html"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program = filepath.Join(dir, "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, filepath.Join(dir, "main.go"))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program, address
}
