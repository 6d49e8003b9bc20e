package js_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/needs"
	"github.com/corvuscrypto/gpoll/js"
)

// The modules are right by their own types, what is declared is what is written, and a program that uses all of it
// compiles. The lines of that program that say @ts-expect-error do not.
func TestTypes(t *testing.T) {
	modules := installed(t)
	dir := t.TempDir()
	files := []string{"gpoll.js", "gpoll.d.ts", "tabs.d.ts", "sealed.d.ts", "package.json"}
	for _, name := range slices.Concat(js.Parts(), js.Modules(), files) {
		copyFile(t, name, dir+"/"+name)
		copyFile(t, name, dir+"/user/node_modules/gpoll/"+name)
	}
	copyFile(t, "gpoll.js", dir+"/core.js") // gpoll.js itself is known by its declaration
	copyFile(t, "tabs.js", dir+"/shared.js")
	copyFile(t, "sealed.js", dir+"/box.js")
	write(t, dir+"/same.ts", `import * as declared from "./gpoll.js";
import * as written from "./core.js";
export const module: typeof declared = written;
import * as declaredTabs from "./tabs.js";
import * as writtenTabs from "./shared.js";
export const tabs: Record<keyof typeof declaredTabs, unknown> = writtenTabs;
`)
	copyFile(t, "testdata/user.ts", dir+"/user/user.mts")
	check := func(dir string, args ...string) {
		t.Helper()
		args = append([]string{modules + "/typescript/bin/tsc", "--noEmit", "--strict", "--target", "es2022",
			"--lib", "es2023,dom,dom.iterable,dom.asynciterable"}, args...)
		run(t, dir, "node", args...)
	}
	bundler := []string{"--module", "esnext", "--moduleResolution", "bundler"}
	sources := slices.Concat([]string{"--allowJs", "--checkJs", "gpoll.js", "core.js", "tabs.js", "shared.js", "box.js"},
		js.Parts())
	check(dir, append(bundler, append(sources, "same.ts")...)...)
	check(dir+"/user", append(bundler, "user.mts")...)
	check(dir+"/user", "--module", "nodenext", "user.mts")
}

// installed returns the folder of the packages that the tests use, if they are there.
func installed(t *testing.T) string {
	t.Helper()
	needs.Program(t, "node", noNode)
	modules, err := filepath.Abs("testdata/node/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	needs.Folder(t, modules, "the packages for the tests of the browser client are not installed: "+
		"run npm ci in js/testdata/node")
	return modules
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(text))
}

// run runs a program that ends by itself, and returns what it prints.
func run(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}
