//go:build linux

package explore

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corvuscrypto/gpoll/internal/overlay"
)

// packages are the folders whose files are instrumented: the package itself, and the one that makes its system calls.
var packages = []string{".", "internal/socket"}

// instrumented writes instrumented copies of the packages' files into dir, with the changes of set, and returns the
// list that the go command takes with -overlay. root is the repository.
func instrumented(root, dir string, set *overlay.Set) (list string, err error) {
	for _, folder := range packages {
		paths, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(folder), "*.go"))
		if err != nil || len(paths) == 0 {
			return "", fmt.Errorf("no files in %s: %w", folder, err)
		}
		for _, at := range paths {
			file := path.Join(folder, filepath.Base(at))
			if strings.HasSuffix(file, "_test.go") || file == "benchmark.go" {
				continue
			}
			text, err := set.Source(file)
			if err != nil {
				return "", err
			}
			if text, err = instrument(file, text); err != nil {
				return "", err
			}
			set.Put(file, text)
		}
	}
	for file, from := range map[string]string{
		"internal/socket/call_linux.go": "call.go.txt",
		"gpolltest/conn_raw.go":         "conn_raw.go.txt",
	} {
		text, err := os.ReadFile(filepath.Join("testdata", from))
		if err != nil {
			return "", err
		}
		set.Put(file, text)
	}
	return set.Write(dir)
}

// An edit puts text in the place of what stands between two offsets.
type edit struct {
	from, to int
	text     string
}

// instrument returns a file of the package in which every lock and atomic value is one of internal/step, and a point
// stands in front of every statement at which goroutines can meet. The schedule decides what Go leaves to chance: which
// ready case a select takes, and the order of the clients in their map. Lines keep their numbers.
func instrument(name string, text []byte) ([]byte, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution|parser.ParseComments)
	if err != nil {
		return nil, err
	}
	v := &visitor{text: text, offset: func(p token.Pos) int { return fset.Position(p).Offset }}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			v.quiet = quiet(f)
			ast.Inspect(f, v.visit)
			continue
		}
		v.quiet = false
		ast.Inspect(decl, v.visit)
	}
	if name == "internal/socket/socket_unix.go" {
		const sockets = "case *net.TCPConn, *net.UnixConn:"
		at := bytes.Index(text, []byte(sockets))
		if at < 0 {
			return nil, fmt.Errorf("%s: no line %q, which says what is written to without waiting", name, sockets)
		}
		end := at + len(sockets)
		v.edits = append(v.edits, edit{end - 1, end - 1, ", step.InMemory"})
		v.used = true
	}
	if !v.used {
		return text, nil
	}
	after := v.offset(file.Name.End())
	v.edits = append(v.edits, edit{after, after, `; import "github.com/corvuscrypto/gpoll/internal/step"`})
	slices.SortStableFunc(v.edits, func(a, b edit) int { return a.from - b.from })
	var out bytes.Buffer
	at := 0
	for _, e := range v.edits {
		out.Write(text[at:e.from])
		out.WriteString(e.text)
		at = e.to
	}
	out.Write(text[at:])
	// An import may have no other use left.
	for _, spec := range file.Imports {
		switch spec.Path.Value {
		case `"sync"`:
			out.WriteString("\nvar _ sync.Once\n")
		case `"sync/atomic"`:
			out.WriteString("\nvar _ atomic.Bool\n")
		case `"runtime"`:
			out.WriteString("\nvar _ = runtime.Gosched\n")
		case `"math/rand/v2"`:
			out.WriteString("\nvar _ = rand.Int\n")
		}
	}
	return out.Bytes(), nil
}

// quiet reports whether net/http calls a function while it holds a lock of its own. Nothing in a bubble may wait on
// such a lock.
func quiet(f *ast.FuncDecl) bool {
	if f.Recv == nil || f.Name.Name != "SetReadDeadline" && f.Name.Name != "SetDeadline" {
		return false
	}
	star, ok := f.Recv.List[0].Type.(*ast.StarExpr)
	return ok && star.X.(*ast.Ident).Name == "servedConn"
}

type visitor struct {
	text   []byte
	offset func(token.Pos) int
	edits  []edit
	used   bool
	quiet  bool
}

// replaced are names of the standard library and the names in internal/step that take their place.
var replaced = map[string]map[string]string{
	"sync": {"Mutex": "Mutex", "RWMutex": "RWMutex"},
	"atomic": {"Bool": "Bool", "Int32": "Int32", "Int64": "Int64", "Uint32": "Uint32", "Uint64": "Uint64",
		"Pointer": "Pointer"},
	"runtime": {"Gosched": "Point"},
	"rand":    {"N": "N"},
}

func (v *visitor) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.SelectorExpr:
		pkg, ok := n.X.(*ast.Ident)
		if to := ""; ok {
			if to = replaced[pkg.Name][n.Sel.Name]; to != "" {
				v.edits = append(v.edits, edit{v.offset(n.Pos()), v.offset(n.End()), "step." + to})
				v.used = true
			}
		}
		if v.quiet && (n.Sel.Name == "Store" || n.Sel.Name == "Load") {
			v.edits = append(v.edits, edit{v.offset(n.Sel.Pos()), v.offset(n.Sel.End()), "Quiet" + n.Sel.Name})
		}
	case *ast.RangeStmt:
		if sel, ok := n.X.(*ast.SelectorExpr); ok && sel.Sel.Name == "byKey" {
			v.put(sel.Pos(), "step.Sorted(")
			v.put(sel.End(), ")")
		}
	case *ast.BlockStmt:
		v.statements(n.List)
	case *ast.CaseClause:
		v.statements(n.Body)
	case *ast.CommClause:
		v.statements(n.Body)
	}
	return true
}

// statements puts a point in front of those of a list at which goroutines can meet.
func (v *visitor) statements(list []ast.Stmt) {
	if v.quiet {
		return
	}
	for _, s := range list {
		labeled, hasLabel := s.(*ast.LabeledStmt)
		if hasLabel {
			s = labeled.Stmt
		}
		if meets(s) {
			v.put(s.Pos(), "step.Point(); ")
		}
		if sel, ok := s.(*ast.SelectStmt); ok && !hasLabel {
			v.choose(sel)
		}
	}
}

// put inserts text.
func (v *visitor) put(before token.Pos, text string) {
	at := v.offset(before)
	v.edits = append(v.edits, edit{at, at, text})
	v.used = true
}

// choose lets the schedule say from which channel a select receives if several are ready. It leaves a select that sends
// as it is.
func (v *visitor) choose(s *ast.SelectStmt) {
	var from []ast.Expr
	for _, clause := range s.Body.List {
		comm := clause.(*ast.CommClause).Comm
		var recv ast.Expr
		switch comm := comm.(type) {
		case nil: // default
			continue
		case *ast.ExprStmt:
			recv = comm.X
		case *ast.AssignStmt:
			recv = comm.Rhs[0]
		default:
			return
		}
		from = append(from, recv.(*ast.UnaryExpr).X)
	}
	if len(from) != 2 && len(from) != 3 {
		return
	}
	var names, channels []string
	for i, x := range from {
		name := fmt.Sprintf("step%d_%d", v.offset(s.Pos()), i)
		names = append(names, name)
		from, to := v.offset(x.Pos()), v.offset(x.End())
		channels = append(channels, string(v.text[from:to]))
		v.edits = append(v.edits, edit{from, to, name})
	}
	v.put(s.Pos(), fmt.Sprintf("%s := step.Choose%d(%s); ",
		strings.Join(names, ", "), len(from), strings.Join(channels, ", ")))
}

// calls are the methods that do something with a socket. Those of internal/socket have a point inside.
var calls = []string{"Write", "Read", "Close", "CloseWrite", "SetReadDeadline", "SetWriteDeadline", "SetDeadline",
	"Control", "TryWrite", "Flush", "Hijack"}

// meets reports whether s, without the statements inside it, is one of these: it sends, receives, selects, closes a
// channel, starts a goroutine, uses a socket, or changes who carries a client on.
func meets(s ast.Stmt) (found bool) {
	switch s := s.(type) {
	case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt:
		return true
	case *ast.AssignStmt:
		for _, left := range s.Lhs {
			if sel, ok := left.(*ast.SelectorExpr); ok &&
				(sel.Sel.Name == "mode" || sel.Sel.Name == "turn" || sel.Sel.Name == "at" || sel.Sel.Name == "attach") {
				return true
			}
		}
	}
	ast.Inspect(s, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit, *ast.BlockStmt, *ast.CaseClause, *ast.CommClause:
			return false
		case *ast.UnaryExpr:
			found = found || n.Op == token.ARROW
		case *ast.CallExpr:
			switch f := n.Fun.(type) {
			case *ast.Ident:
				found = found || f.Name == "close"
			case *ast.SelectorExpr:
				pkg, ok := f.X.(*ast.Ident)
				found = found || slices.Contains(calls, f.Sel.Name) && !(ok && pkg.Name == "socket")
			}
		}
		return !found
	})
	return found
}
