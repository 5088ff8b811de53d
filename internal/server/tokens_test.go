package server

import (
	"fmt"
	"testing"
)

// P3, P5: tokens and policies are everybody's: made at one node, good at all, and after another node became active.
func TestTokensAcrossNodes(t *testing.T) {
	nodes := testCluster(t, 3)
	for _, n := range nodes {
		n.start()
	}
	root := initialise(t, nodes[0])
	ready(t, nodes...)
	voters(t, nodes[0], root, 3)
	want := func(n *testNode, code int, token, method, path string, body any) map[string]any {
		t.Helper()
		got, answer := n.call(method, "/v1/"+path, token, body)
		if got != code {
			t.Errorf("%s: %s %s: %d %v, want %d", n.name, method, path, got, answer, code)
		}
		return answer
	}
	made := func(answer map[string]any) string {
		t.Helper()
		block, _ := answer["auth"].(map[string]any)
		token, _ := block["client_token"].(string)
		if token == "" {
			t.Fatalf("no token: %v", answer)
		}
		return token
	}
	policy := `path "secret/data/app/*" { capabilities = ["create", "read"] }
path "auth/token/create" { capabilities = ["update"] }`
	want(nodes[1], 204, root, "PUT", "sys/policies/acl/app", map[string]any{"policy": policy})
	app := made(want(nodes[2], 200, root, "POST", "auth/token/create", map[string]any{"policies": []string{"app"}, "ttl": "1h"}))
	child := made(want(nodes[1], 200, app, "POST", "auth/token/create", map[string]any{}))
	counted := made(want(nodes[1], 200, app, "POST", "auth/token/create", map[string]any{"num_uses": 4}))
	value := map[string]any{"data": map[string]any{"a": 1}}
	for i, n := range nodes {
		path := fmt.Sprintf("secret/data/app/%d", i)
		want(n, 200, child, "POST", path, value)
		want(n, 403, child, "POST", path, value) // it is there now, and may not be changed
		want(n, 200, counted, "GET", path, nil)
		want(n, 403, child, "GET", "secret/data/other", nil)
	}
	want(nodes[1], 200, root, "POST", "sys/step-down", map[string]any{"wait": "10s"})
	want(nodes[0], 200, child, "GET", "secret/data/app/0", nil)
	want(nodes[2], 200, counted, "GET", "secret/data/app/0", nil) // the last use
	want(nodes[0], 403, counted, "GET", "secret/data/app/0", nil)
	want(nodes[0], 204, app, "POST", "auth/token/revoke-self", nil)
	for _, n := range nodes {
		want(n, 403, app, "GET", "auth/token/lookup-self", nil)
		want(n, 403, child, "GET", "secret/data/app/0", nil)
	}
}
