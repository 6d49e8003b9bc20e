//go:build unix

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/freeport"
)

// TestBrowser runs testdata/browser/browser.mjs, which drives the page in Chromium.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("the browser takes 15 seconds: run without -short")
	}
	require(t, lookPath("node"),
		"node is not installed, so the page is not tried in a browser: install Node.js 20 or newer")
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	require(t, browser != "", "Chromium is not in PATH, so the page is not tried in a browser: install chromium")
	dir := filepath.Join("testdata", "browser")
	_, err := os.Stat(filepath.Join(dir, "node_modules", "playwright-core"))
	require(t, err == nil, "playwright-core is not installed, so the page is not tried in a browser: run npm ci in "+
		"cmd/gpoll/"+filepath.ToSlash(dir))

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "browser.mjs", binary, browser, freeport.Address(t))
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
