package locum_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// storesOf lists the data stores that a package links.
func storesOf(t *testing.T, dir string, packages ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-deps"}, packages...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	var stores []string
	for pkg := range strings.Lines(string(out)) {
		if store, ok := strings.CutPrefix(strings.TrimSpace(pkg), module+"/physical/"); ok && !strings.Contains(store, "/") {
			stores = append(stores, store)
		}
	}
	slices.Sort(stores)
	return stores
}

// "Importing it pulls in only the stores that are named."
func TestImportsOnlyTheStoresThatAreNamed(t *testing.T) {
	if stores := storesOf(t, ".", "."); len(stores) != 0 {
		t.Errorf("package locum links %v by itself", stores)
	}
	mains, err := filepath.Glob("examples/*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, main := range mains {
		source, err := os.ReadFile(main)
		if err != nil {
			t.Fatal(err)
		}
		named := strings.Count(string(source), `"`+module+"/physical/")
		if stores := storesOf(t, "examples", "./"+filepath.Base(filepath.Dir(main))); len(stores) != named {
			t.Errorf("%s names %d stores and links %v", main, named, stores)
		}
	}
}

// Every module that the set-up builds something from can be read: a clean machine begins with them.
func TestModules(t *testing.T) {
	for _, pattern := range []string{"go.mod", "*/go.mod", "tools/*/go.mod"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			if out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
		}
	}
}
