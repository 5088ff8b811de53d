package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
)

// What a shell gets to offer, from the commands and from a node.
func TestCompletion(t *testing.T) {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/secret/metadata/":
			reply(w, 200, map[string]any{"data": map[string]any{"keys": []string{"app/", "top"}}})
		case "/v1/secret/metadata/app/":
			reply(w, 200, map[string]any{"data": map[string]any{"keys": []string{"db", "web"}}})
		case "/v1/sys/policies/acl":
			reply(w, 200, map[string]any{"data": map[string]any{"keys": []string{"default", "app"}}})
		case "/v1/sys/ha-status":
			reply(w, 200, map[string]any{"nodes": []any{map[string]any{"hostname": "node-a"}}})
		case "/v1/sys/storage/raft/configuration":
			reply(w, 200, map[string]any{"data": map[string]any{"config": map[string]any{"servers": []any{map[string]any{"node_id": "id-a", "name": "node-a"}}}}})
		default:
			fail(w, 403, "permission denied")
		}
	}))
	defer node.Close()
	for _, c := range []struct{ line, want string }{
		{"kv g", "get\tRead an entry :4"},
		{"kv get ", "app/ top :6"},
		{"kv get secret/app/", "secret/app/db secret/app/web :6"},
		{"kv get app/d", "app/db :4"},
		{"kv get app/db ", ":4"},
		{"kv get -for", "-format\t`FORMAT` to print in: table or json :4"},
		{"kv get --for", "--format\t`FORMAT` to print in: table or json :4"},
		{"kv get -format j", "table json :4"},
		{"token create -policy d", "default :4"},
		{"policy read ", "default app :4"},
		{"policy write app ", ":0"},
		{"operator step-down -to ", "node-a :4"},
		{"operator raft remove-peer ", "id-a\tnode-a :4"},
		{"operator members ", ":4"},
		{"help kv metadata g", "get\tAn entry's settings and versions :4"},
		{"man ", ":16"},
	} {
		a, out, _ := newApp("LOCUM_ADDR", node.URL)
		args := append([]string{"__complete"}, strings.Split(c.line, " ")...)
		if code := a.run(context.Background(), args); code != 0 {
			t.Errorf("%s: exit %d", c.line, code)
		}
		if got := strings.Join(strings.Split(strings.TrimSpace(out.String()), "\n"), " "); got != c.want {
			t.Errorf("%s<Tab>\n got %q\nwant %q", c.line, got, c.want)
		}
	}
	// A node that cannot be asked must not hang the shell, nor print anything into its line.
	node.Close()
	a, out, errs := newApp("LOCUM_ADDR", node.URL, "LOCUM_SKIP_VERIFY", "1")
	if a.run(context.Background(), []string{"__complete", "kv", "get", ""}); strings.TrimSpace(out.String()) != ":4" || strings.Contains(errs.String(), "warning") {
		t.Errorf("%q %q", out, errs)
	}
}

// The scripts are for the shells that they are named after.
func TestCompletionScripts(t *testing.T) {
	for shell, want := range map[string]string{"bash": "__start_locum", "zsh": "#compdef locum", "fish": "complete -c locum", "powershell": "Register-ArgumentCompleter"} {
		a, out, errs := newApp()
		if code := a.run(context.Background(), []string{"completion", shell}); code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit %d: %s", shell, code, errs)
		}
		path, err := exec.LookPath(shell)
		if err != nil || shell == "powershell" {
			continue // the syntax is checked where the shell is at hand
		}
		check := exec.Command(path, "-n")
		check.Stdin = strings.NewReader(out.String())
		if text, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, text)
		}
	}
}
