package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What cannot be moved is refused with the reason and what to do.
func TestMigrateRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	node := file("node.hcl", fmt.Sprintf("node_name = \"a\"\nlistener \"tcp\" {\n  address = \"127.0.0.1:8400\"\n  tls_disable = true\n}\nstorage \"raft\" {\n  path = %q\n}\n", filepath.Join(dir, "raft")))
	empty := file("empty.hcl", fmt.Sprintf("storage_source \"file\" {\n  path = %q\n}\nstorage_destination \"file\" {\n  path = %q\n}\n", filepath.Join(dir, "from"), filepath.Join(dir, "to")))
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "no configuration"},
		{[]string{"-config", filepath.Join(dir, "nowhere.hcl")}, "nowhere.hcl"},
		{[]string{"-config", empty}, "is it the right path?"},
		{[]string{"-lock", "-config", node}, `"raft" has its own lock, which cannot be moved`},
	} {
		a, out, errs := newApp()
		if code := a.run(t.Context(), append([]string{"operator", "migrate"}, c.args...)); code == 0 || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%v: exit %d, %s%s; want %q", c.args, code, out, errs, c.want)
		}
	}
}
