package locum_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The repo's rules, as far as a program can hold them. They come from the design ("Layout" and "House style"); a rule
// that stands in the way is changed here, with its reason, and not worked around.

const module = "github.com/locum-ha/locum"

// maxLines is the length of a file beyond which the question is whether it holds one job.
const maxLines = 550

// maxFunction is the same for a function; tests, which are lists, may be longer.
const maxFunction = 75

// longFiles may be longer, each for a reason.
var longFiles = map[string]string{}

// sleepers may call time.Sleep in a test although the call does not stand inside synctest.Test, each for a reason.
var sleepers = map[string]string{}

// Feature packages do not import one another, where an interface of one or two methods will do. These do:
var featureImports = map[string][]string{
	"api": {"kv", "auth", "cache", "lock"}, // interfaces over versioned entries, tokens and the cache are made of these packages' own types
}

// Small helpers that any package may import. The rest of internal/ is for internal/server and the commands.
var helpers = []string{"internal/boottime", "internal/conns", "internal/cell", "internal/enginelog", "internal/footprint", "internal/gather", "internal/grouped", "internal/processors", "internal/quickio", "internal/slots"}

// features are the packages between internal/server and physical.
var features = []string{
	"seal", "barrier", "election", "cluster", "forward", "supervise", "cache", "kv", "lock", "auth", "api", "client",
}

// forbiddenNames say nothing about what is in a package.
var forbiddenNames = []string{
	"pkg", "util", "utils", "common", "types", "models", "model", "helpers", "helper", "misc", "base", "shared", "lib",
	// of the standard library, those that are imported everywhere; "metrics", which runtime/metrics is too, confuses nobody
	"http", "log", "errors", "context", "sync", "time", "net", "io", "os", "sort", "strings", "bytes", "crypto", "json", "tls", "testing", "bufio", "slices", "maps",
}

// forbiddenModules are not imported by the main module. Each has a plainer way.
var forbiddenModules = map[string]string{
	"github.com/stretchr/testify":      "the standard library and go-cmp do it",
	"github.com/sirupsen/logrus":       "log/slog does it",
	"go.uber.org/zap":                  "log/slog does it",
	"github.com/pkg/errors":            "%w does it",
	"k8s.io/client-go":                 "one resource needs no such client",
	"google.golang.org/grpc":           "it is not needed to forward gRPC",
	"github.com/golang/protobuf":       "JSON and own framing do it",
	"github.com/armon/go-metrics":      "it is hashicorp/go-metrics now",
	"github.com/hashicorp/raft-boltdb": "physical/raft has its own log store",
}

// moduleExceptions are forbidden modules that one package needs all the same.
var moduleExceptions = map[string][]string{
	"physical/etcd": {"google.golang.org/grpc", "go.uber.org/zap"}, // etcd's client speaks gRPC, and takes no other logger
}

// file is one parsed Go file of the repository.
type file struct {
	path  string // slash-separated, from the root
	pkg   string // the directory, "" for the root
	test  bool
	inner bool // of the main module; else of test/, tools/ or examples/
	src   []byte
	ast   *ast.File
	fset  *token.FileSet
}

func (f file) line(pos token.Pos) int { return f.fset.Position(pos).Line }

func (f file) at(pos token.Pos) string { return fmt.Sprintf("%s:%d", f.path, f.line(pos)) }

// imports calls see with each import's path and position.
func (f file) imports(see func(path string, pos token.Pos)) {
	for _, spec := range f.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			see(p, spec.Pos())
		}
	}
}

func parseRepo(t *testing.T) []file {
	t.Helper()
	var files []file
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f := file{path: filepath.ToSlash(name), test: strings.HasSuffix(base, "_test.go"), src: src, fset: token.NewFileSet()}
		f.pkg = path.Dir(f.path)
		if f.pkg == "." {
			f.pkg = ""
		}
		f.inner = !within(f.pkg, "test") && !within(f.pkg, "tools") && !within(f.pkg, "examples")
		f.ast, err = parser.ParseFile(f.fset, name, src, parser.ParseComments)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// prints matches the calls that write to the process's own output.
var prints = regexp.MustCompile(`^(fmt\.Print(f|ln)?|log\.(Print|Fatal|Panic)(f|ln)?)$`)

// within reports whether pkg is dir or lies below it.
func within(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }

// TestImportArrows: cmd → internal/server → feature packages → physical → standard library.
func TestImportArrows(t *testing.T) {
	for _, f := range parseRepo(t) {
		if !f.inner {
			continue
		}
		f.imports(func(imported string, pos token.Pos) {
			own, isOwn := strings.CutPrefix(imported, module)
			own = strings.TrimPrefix(own, "/")
			switch {
			case isOwn && !f.test:
				if why := ownArrow(f.pkg, own); why != "" {
					t.Errorf("%s: %s must not import %s: %s", f.at(pos), f.pkg, own, why)
				}
			case !isOwn && strings.Contains(strings.Split(imported, "/")[0], "."):
				if why := foreignArrow(f, imported); why != "" {
					t.Errorf("%s: import of %s: %s", f.at(pos), imported, why)
				}
			}
		})
	}
}

// ownArrow says why pkg must not import own, a package of this module; "" if it may.
func ownArrow(pkg, own string) string {
	top, _, _ := strings.Cut(pkg, "/")
	switch {
	case within(own, "cmd"):
		return "nothing imports a command"
	case within(pkg, "cmd"):
		return ""
	case within(pkg, "internal/server"), pkg == "":
		if own == "internal/stores" || strings.HasPrefix(own, "physical/") {
			return "whoever runs a node says which data stores it links: they come in through an opener"
		}
		return ""
	case within(own, "internal/server"):
		return "only the commands and the root package join the daemon in"
	case within(own, "internal/stores"):
		return "it links every data store: only the commands hand it to a node"
	case within(pkg, "internal/stores") && (within(own, "physical") || own == "internal/config"):
		return "" // it is the one place that knows them all
	case slices.Contains(helpers, own):
		if pkg == "physical" {
			return "the contracts rest on the standard library alone"
		}
		return ""
	case pkg == "physical":
		return "the contracts rest on the standard library alone"
	case within(pkg, "physical"):
		if own == "physical" || own == "physical/physicaltest" || within(own, backendOf(pkg)) {
			return ""
		}
		return "a data store imports physical and its client library, never another store"
	case own == "physical":
		return ""
	case slices.Contains(features, top):
		if within(own, top) || slices.Contains(featureImports[top], own) {
			return ""
		}
		return "feature packages meet in internal/server; an interface of one or two methods, declared here, will do"
	case within(pkg, "internal/metrics"):
		return "" // it makes everybody's Observer, and nobody but internal/server knows it
	case top == "internal":
		if within(own, pkg) || within(own, "internal") {
			return ""
		}
		return "helpers rest on physical and one another; what joins features is internal/server"
	default:
		return "unknown package: give it a place in this test"
	}
}

// backendOf is the folder of a data store: physical/raft for physical/raft/log.
func backendOf(pkg string) string {
	parts := strings.SplitN(pkg, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

// foreignArrow says why a file must not import something of another module; "" if it may.
func foreignArrow(f file, imported string) string {
	for bad, why := range forbiddenModules {
		if within(imported, bad) && !slices.Contains(moduleExceptions[f.pkg], bad) {
			return why
		}
	}
	switch {
	case f.test:
		return ""
	case within(imported, "github.com/prometheus") && !within(f.pkg, "internal/metrics"):
		return "metrics are internal/metrics' alone; others take an Observer"
	case within(imported, "github.com/hashicorp/go-metrics") && within(f.pkg, "internal/metrics"):
		return "" // the raft library reports through it
	case within(imported, "github.com/hashicorp/raft") && !within(f.pkg, "physical/raft") && !within(f.pkg, "cache"):
		return "no type of a client library leaves its store"
	case f.pkg == "", f.pkg == "physical", f.pkg == "seal", f.pkg == "barrier", f.pkg == "kv", f.pkg == "auth", f.pkg == "api", f.pkg == "client", f.pkg == "election":
		return "this package rests on the standard library alone"
	}
	return ""
}

// TestPackages: one noun each, with a doc comment that begins as godoc wants.
func TestPackages(t *testing.T) {
	doc := map[string]bool{}
	for _, f := range parseRepo(t) {
		if f.test {
			continue
		}
		name := f.ast.Name.Name
		if slices.Contains(forbiddenNames, name) {
			t.Errorf("%s: package %s: the name says nothing, or is the standard library's", f.path, name)
		}
		has := f.ast.Doc != nil
		doc[f.pkg] = doc[f.pkg] || has
		if has && name != "main" && !strings.HasPrefix(f.ast.Doc.Text(), "Package "+name+" ") {
			t.Errorf("%s: the package comment does not begin with \"Package %s \"", f.path, name)
		}
	}
	for pkg, ok := range doc {
		if !ok {
			t.Errorf("package %q has no doc comment: give it a doc.go", pkg)
		}
	}
}

// TestFiles: one job each, nothing left open, and nothing that names the machine they were written on.
func TestFiles(t *testing.T) {
	open := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:"}
	machine := []string{"/wo" + "rk/", "/ro" + "ot/", "/tmp/" + "locum"}
	for _, f := range parseRepo(t) {
		if n := bytes.Count(f.src, []byte("\n")); n > maxLines && longFiles[f.path] == "" {
			t.Errorf("%s has %d lines: split it, or list it here with the reason", f.path, n)
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && !f.test && f.line(fn.End())-f.line(fn.Pos()) > maxFunction {
				t.Errorf("%s: func %s is longer than %d lines: split it", f.at(fn.Pos()), fn.Name.Name, maxFunction)
			}
		}
		for i, line := range bytes.Split(f.src, []byte("\n")) {
			for _, mark := range open {
				if bytes.Contains(line, []byte(mark)) {
					t.Errorf("%s:%d: %s: what is left open belongs in an issue", f.path, i+1, mark)
				}
			}
			for _, name := range machine {
				if bytes.Contains(line, []byte(name)) {
					t.Errorf("%s:%d: names a path of one machine (%s)", f.path, i+1, name)
				}
			}
		}
	}
}

// TestCalls: libraries log through slog and never end the process; tests wait for conditions, not for time.
func TestCalls(t *testing.T) {
	for _, f := range parseRepo(t) {
		library := f.inner && !f.test && !within(f.pkg, "cmd") && f.ast.Name.Name != "main"
		waits := f.test || within(f.pkg, "test") || strings.HasSuffix(f.pkg, "physicaltest")
		var bubbles [][2]token.Pos // where synctest's calls begin and end
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name := callName(call)
			switch {
			case name == "synctest.Test" || name == "synctest.Run":
				bubbles = append(bubbles, [2]token.Pos{call.Pos(), call.End()})
			case name == "time.Sleep" && waits && sleepers[f.path] == "" && !inside(bubbles, call.Pos()):
				t.Errorf("%s: time.Sleep in a test: wait for a channel or poll a condition with a deadline", f.at(call.Pos()))
			case library && name == "os.Exit":
				t.Errorf("%s: %s: only main ends the process", f.at(call.Pos()), name)
			case library && prints.MatchString(name):
				t.Errorf("%s: %s: libraries neither print nor log but through the slog of their Config", f.at(call.Pos()), name)
			}
			return true
		})
	}
}

// callName is "pkg.Func" for a call of that shape, else "".
func callName(call *ast.CallExpr) string {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + sel.Sel.Name
}

func inside(spans [][2]token.Pos, pos token.Pos) bool {
	for _, s := range spans {
		if s[0] <= pos && pos < s[1] {
			return true
		}
	}
	return false
}
